"""A head that keeps what it knows in Redis: its GCS is killed, then all of it, and started again, while a worker node
trains and serves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench import free_port, json_lines, run_id_of, wait_until
from conftest import Straight, run_straight
from machines import what_is_missing
from nodes_apart import NodesApart, nodes_apart
from test_cut_links import assert_ended_as_the_straight_run

missing = what_is_missing()
if missing is None and shutil.which("redis-server") is None:
    missing = "there is no redis-server (Debian: redis-server)"
pytestmark = [
    pytest.mark.alone,
    pytest.mark.thorough,
    pytest.mark.skipif(missing is not None, reason=str(missing)),
]
# Asks without a pause longer than a moment, each time over a new connection, as a load balancer's checks do.
CLIENT = """
import json, os, sys, time, urllib.error, urllib.request
url, log, stop = sys.argv[1:]
body = json.dumps({"model": "tiny-llama", "prompt": "What is", "max_tokens": 4, "temperature": 0}).encode()
while not os.path.exists(stop):
    began = time.time()
    try:
        asked = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            told = [answer.status, json.loads(answer.read())["choices"][0]["text"]]
    except urllib.error.HTTPError as error:
        told = [error.code, error.read().decode()[:200]]
    except OSError as error:
        told = [0, str(error)]
    line = {"began": began, "seconds": time.time() - began, "status": told[0], "text": told[1]}
    with open(log, "a") as stream:
        stream.write(json.dumps(line) + "\\n")
    time.sleep(0.1)
"""


def restart_gcs(nodes: NodesApart) -> None:
    nodes.restart_gcs_server()


def restart_head(nodes: NodesApart) -> None:
    nodes.head.kill_all()
    time.sleep(5)
    nodes.start_head()


RESTARTS = [restart_gcs, restart_head]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesApart]:
    """A head that does nothing else, and a worker node with two CPUs."""
    with nodes_apart(tmp_path_factory.mktemp("heads"), head_cpus=0, worker_cpus=2, with_redis=True) as found:
        yield found


@pytest.fixture(scope="module")
def uncut(nodes: NodesApart, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The same run on the same nodes, while nothing is wrong."""
    return run_straight(nodes.bench(tmp_path_factory.mktemp("uncut"), nodes.worker), recipe)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("restart", RESTARTS)
def test_a_run_goes_on_while_the_head_is_started_again(
    nodes: NodesApart, uncut: Straight, recipe: Path, tmp_path: Path, restart: Callable[[NodesApart], None]
) -> None:
    bench, run_id = nodes.bench(tmp_path / "run", nodes.worker), run_id_of(recipe)
    bench.hold_at(6)
    running = bench.begin(recipe)
    bench.wait_for_step(running, run_id, 6, timeout_s=240)
    bench.wait_until_held(run_id, world_size=2)
    bench.hold_at(14)
    bench.wait_for_step(running, run_id, 14)
    restart(nodes)
    bench.hold_at(None)
    outcome = running.ended(180)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == uncut.digest
    assert bench.resumed_at(run_id) == [], "its workers have noticed nothing"
    assert_ended_as_the_straight_run(bench, uncut, recipe)
    again = bench.train(recipe, "--fresh")
    assert (again.code, again.object["digest"]) == (0, uncut.digest), "the head takes new runs"


@dataclass
class Asked:
    """What a client has been answered that asks all the while."""

    log: Path

    def answers(self) -> list[dict[str, Any]]:
        return list(json_lines(self.log))

    def wait_for(self, num: int) -> None:
        """Until so many more are answered."""
        wanted = len(self.answers()) + num
        wait_until(
            lambda: len(self.answers()) >= wanted, 120, lambda: f"{num} answers: {self.answers()[-3:]}"
        )


@contextmanager
def asking(nodes: NodesApart, port: int, folder: Path) -> Iterator[Asked]:
    """Through the worker node's proxy, on that machine, for as long as the block lasts."""
    asked, stop = Asked(folder / "answers.jsonl"), folder / "stop"
    url = f"http://127.0.0.1:{port}/v1/completions"
    client = subprocess.Popen(
        [*nodes.worker.inside, sys.executable, "-c", CLIENT, url, str(asked.log), str(stop)]
    )
    try:
        yield asked
    finally:
        stop.touch()
        client.wait(60)


@pytest.mark.timeout(900)
def test_what_is_served_stays_up_while_the_head_is_started_again(
    nodes: NodesApart, tiny_llama: Path, tmp_path: Path
) -> None:
    bench, port = nodes.bench(tmp_path / "serving", nodes.worker), free_port()
    config = tmp_path / "serving.yaml"
    config.write_text(
        json.dumps(
            {
                "base_model": str(tiny_llama),
                "http": {"num_ingresses": 2, "insecure": True, "port": port, "access_log": False},
                "storage": {"path": str(tmp_path / "cache")},
            }
        )
    )
    started = bench.run("serve", "start", config, "--address", nodes.address, timeout_s=300)
    assert started.code == 0, started.told()
    with asking(nodes, port, tmp_path) as asked:
        asked.wait_for(20)
        for restart in RESTARTS:
            before = len(asked.answers())
            restart(nodes)
            asked.wait_for(100)
            lost = [one for one in asked.answers()[before:] if one["status"] != 200]
            assert lost == [], f"{restart.__name__}: of {len(asked.answers()) - before}"
        # The head is its master again: what dies is replaced.
        (replica,) = nodes.processes(nodes.worker, "ray::ServeReplica:raytrain:replica")
        replica.kill()
        asked.wait_for(20)
        wait_until(lambda: asked.answers()[-1]["status"] == 200, 120, lambda: str(asked.answers()[-3:]))
    texts = {one["text"] for one in asked.answers() if one["status"] == 200}
    assert len(texts) == 1, "always the same"
