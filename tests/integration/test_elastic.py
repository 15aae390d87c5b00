"""Workers that come and go while a run goes on: a node dies, returns, and is taken away with a warning."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from bench import (
    BIN,
    Bench,
    assert_every_row_once_per_epoch,
    end_ray,
    free_port,
    new_ray_folder,
    processes_below,
    run_id_of,
    write_recipe,
)
from test_kill import losses


def kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(processes, timeout=10)


@dataclass
class TwoNodes:
    """A Ray cluster of a head and, where it is started, a second node, which die and return on request."""

    port: int = field(default_factory=free_port)
    num_cpus: int = 1
    folder: Path = field(default_factory=new_ray_folder)
    second_folder: Path = field(default_factory=new_ray_folder)
    # A token of its own, whatever lies in the user's ~/.ray.
    token: dict[str, str] = field(
        default_factory=lambda: {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start_head(self) -> None:
        self._ray_start(
            self.folder, "--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
        )  # fmt: skip

    def start_second(self) -> None:
        self._ray_start(self.second_folder, f"--address={self.address}")

    def _ray(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return subprocess.run(
            [str(BIN / "ray"), *words],
            env={
                **kept, **self.token, "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_worker_niceness": "0",
            },
            capture_output=True, text=True, timeout=240, check=False, start_new_session=True,
        )  # fmt: skip

    def _ray_start(self, folder: Path, *words: str) -> None:
        for _ in range(3):
            started = self._ray(
                folder, "start", *words, f"--num-cpus={self.num_cpus}", "--object-store-memory=100000000",
                f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats",
            )  # fmt: skip
            if started.returncode == 0:
                return
            # Ray's raylet gives up where its agents take longer than 15 s to start, as on a busy machine they may.
            kill(processes_below(folder))
        raise AssertionError(started.stdout + started.stderr)

    def kill_second(self) -> None:
        """SIGKILL to the second node's raylet and all that it started, as when its machine is switched off."""
        raylets = [one for one in psutil.process_iter() if self._is_second_raylet(one)]
        assert len(raylets) == 1, raylets
        victims = [*raylets[0].children(recursive=True), raylets[0]]
        raylets[0].suspend()  # it starts nothing new meanwhile
        kill(victims)

    def kill_head(self, *, spare: int) -> None:
        """SIGKILL to all of the head but the process `spare`, which has joined it."""
        victims = [one for one in processes_below(self.folder) if one.pid != spare]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.suspend()
        kill(victims)

    def drain(self, node_id: str) -> None:
        """Tell Ray that the node will be taken away in half a minute, as a cloud's watcher of spot machines does."""
        told = self._ray(
            self.folder, "drain-node", f"--address={self.address}", f"--node-id={node_id}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=30",
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr

    def _is_second_raylet(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.name() == "raylet" and process.environ().get("RAY_TMPDIR") == str(
                self.second_folder
            )
        return False


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        nodes.start_head()
        nodes.start_second()
        yield nodes
    finally:
        for folder in (nodes.second_folder, nodes.folder):
            end_ray(folder)


def on_second_node(bench: Bench, run_id: str) -> tuple[int, str]:
    """Rank and node of that one of the newest two workers which is not where the one before them was: on the head."""
    *_, alone, one, other = (event["data"] for event in bench.events(run_id, "worker"))
    (found,) = [each for each in (one, other) if each["node"] != alone["node"]]
    return found["world_rank"], found["node"]


def size_at(step: int) -> int:
    """Workers that made a step that counts: two, one from the death of a node on, two again, one after a warning."""
    return 2 if step <= 4 or 11 < step <= 15 else 1


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_a_run_outlives_a_node_takes_it_back_and_heeds_a_warning(
    nodes: TwoNodes, local: Bench, tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "elastic.yaml",
        model=tiny_llama,
        rows=rows_file,
        adapter={"lora_dropout": 0.0},
        scaling={"num_workers": [1, 2], "elastic_resize_monitor_interval_s": 2},
    )
    run_id = run_id_of(recipe)
    looks_often = {"RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}  # for nodes that Ray drains
    bench = Bench(tmp_path / "elastic", nodes.folder, nodes.address, nodes.token | looks_often)
    bench.hold_at(6)
    running = bench.begin(recipe)
    bench.wait_for_step(running, run_id, 6)
    bench.wait_until_held(run_id, world_size=2)
    bench.wait_for_checkpoint(run_id, 4)
    nodes.kill_second()
    bench.hold_at(10)
    # Ray takes half a minute to see that the node is gone: time for the run to compare with, on a Ray of its own.
    straight = local.train(recipe)
    bench.wait_for_event(run_id, "goes on with 1 of 2 workers: a worker died", timeout_s=120)
    bench.wait_for_step(running, run_id, 10)
    nodes.start_second()
    bench.wait_for_event(run_id, "the cluster has room for 2 workers", timeout_s=120)
    bench.hold_at(14)
    bench.wait_for_event(run_id, "goes on with 2 of 2 workers: the cluster has room for 2", timeout_s=120)
    bench.wait_for_step(running, run_id, 14)
    drained, node = on_second_node(bench, run_id)
    nodes.drain(node)
    time.sleep(5)  # until every worker knows; while the step is held nothing tells of that
    bench.hold_at(None)
    outcome = running.ended(180)
    assert outcome.code == 0, outcome.told()
    notes = [one["message"] for one in bench.events(run_id, "note")]
    assert f"worker {drained} has to go (Ray drains its node): saving first" in notes
    assert f"goes on with 1 of 2 workers: worker {drained} had to go" in notes

    assert straight.code == 0, straight.told()
    assert bench.steps_told(run_id) == local.steps_told(run_id), "no step lost or told twice"
    assert losses(bench, run_id) == pytest.approx(losses(local, run_id), abs=1e-4)
    # Steps 5 and 6 were lost with the node and are made again; growing and the warned end lose nothing.
    assert bench.resumed_at(run_id) == [4, 11, 15]
    made = Counter(line["step"] for line in bench.seen())
    again = {step for step, count in made.items() if count > size_at(step)}
    assert again == {5, 6}, made
    assert_every_row_once_per_epoch(bench.seen(), num_epochs=3, world_size=size_at)
