"""`raytrain submit` and the queue's back end for clusters, against a real cluster that wants a token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from bench import BIN, Bench, wait_until, write_recipe
from conftest import Cluster
from queue_contract import LONG, BackendContract, Carried
from suites import write_suite

from raytrain.cluster.installed import SENT_BY
from raytrain.runs.queue.job import Job, Limits
from raytrain.runs.queue.ray_jobs import RayBackend


def for_jobs(home: Path) -> dict[str, str]:
    """What a job on this machine needs to be like its submitter: on a cluster these stand on its nodes."""
    return {
        "RAYTRAIN_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


@pytest.fixture
def working(tmp_path: Path, tiny_llama: Path, rows_file: Path) -> Path:
    """A user's folder: a recipe, its rows (which git ignores), a hook, and a large file that must stay here."""
    folder = tmp_path / "working"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(rows_file.read_bytes())
    (folder / ".gitignore").write_text("*.jsonl\n*.bin\n")
    (folder / "large.bin").write_bytes(os.urandom(2**20))
    (folder / "mine_hook.py").write_text(
        "from raytrain.training.hooks import Hook\n\n\nclass Told(Hook):\n    def after_step(self, *_, **__):\n"
        "        print('the hook of the package was called', flush=True)\n"
    )
    sections: dict[str, Any] = {"train": {"max_steps": 3, "hooks": []}, "scaling": {"num_workers": 1}}
    write_recipe(folder / "mine.yaml", model=tiny_llama, rows=Path("rows.jsonl"), **sections)
    return folder


def words(joined: Bench, cluster: Cluster) -> list[str]:
    pairs = [f"--env={name}={value}" for name, value in for_jobs(joined.home).items()]
    return ["--address", cluster.dashboard, *pairs]


def test_submitted_logged_and_ended_as_the_command_does(
    joined: Bench, cluster: Cluster, working: Path
) -> None:
    joined.folder = working
    done = joined.run("submit", "train", "mine.yaml", *words(joined, cluster))
    assert done.code == 0, done.told()
    assert "package: " in done.stderr and "KiB" in done.stderr
    assert "3/3" in done.stdout or "succeeded" in done.stdout, done.told()
    (run_id,) = [one.name for one in (joined.home / "runs").iterdir()]
    assert joined.show(run_id)["run"]["global_step"] == 3

    failed = joined.run(
        "submit", "train", "mine.yaml", "data.sources=absent.jsonl", "--json", *words(joined, cluster)
    )
    assert (failed.code, failed.object["state"], failed.object["exit_code"]) == (3, "failed", 3), (
        failed.told()
    )
    assert "error:" in failed.stderr, "the job's log goes beside the object"


def test_a_job_of_another_raytrain_is_refused_on_the_cluster(
    joined: Bench, cluster: Cluster, working: Path
) -> None:
    joined.folder = working
    refused = joined.run(
        "submit", "train", "mine.yaml", f"--env={SENT_BY}=9.9.9", "--json", *words(joined, cluster)
    )
    assert (refused.code, refused.object["exit_code"]) == (4, 4), refused.told()
    assert "raytrain 9.9.9 sent this job" in refused.stderr
    assert not (joined.home / "runs").exists(), "nothing has begun"


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_what_is_searched_trained_and_evaluated_may_be_submitted(
    joined: Bench, cluster: Cluster, working: Path, tiny_llama: Path
) -> None:
    suite = write_suite(working, "texts")
    write_recipe(
        working / "whole.yaml", model=tiny_llama, rows=Path("rows.jsonl"),
        train={"max_steps": 3, "eval_every": 3, "save_every": 3, "warmup_steps": 0, "hooks": []},
        scaling={"num_workers": 1},
        search={
            "space": {"train.learning_rate": {"type": "choice", "choices": [1e-2, 1e-3]}}, "sampler": "grid",
            "num_trials": 2, "max_concurrent": 1, "scheduler": "none", "probe_steps": 0,
        },
        pipeline={"check": False, "suites": [suite.name]},
    )  # fmt: skip
    joined.folder = working
    searched = joined.run("submit", "tune", "whole.yaml", "--json", *words(joined, cluster), timeout_s=400)
    assert (searched.code, searched.object["state"]) == (0, "succeeded"), searched.told()
    kinds = [one["kind"] for one in joined.run("runs", "list", "--json").object["runs"]]
    assert sorted(kinds) == ["train", "train", "tune"]

    whole = joined.run("submit", "pipeline", "whole.yaml", "--json", *words(joined, cluster), timeout_s=400)
    assert whole.object["exit_code"] in (0, 5), whole.told()
    (run,) = joined.run("runs", "list", "--kind", "pipeline", "--json").object["runs"]
    assert run["state"] == "succeeded"
    evaluated = joined.run("runs", "list", "--kind", "evaluate", "--json").object["runs"]
    assert len(evaluated) == 2, "the baseline and what was trained"

    (trained, *_) = joined.run("runs", "list", "--kind", "train", "--json").object["runs"]
    asked = (
        "submit",
        "evaluate",
        trained["id"],
        "--json",
        *words(joined, cluster),
        "--",
        "--suite",
        suite.name,
    )
    done = joined.run(*asked, timeout_s=300)
    assert (done.code, done.object["state"]) == (0, "succeeded"), done.told()


def test_interrupted_it_detaches_and_the_job_goes_on(joined: Bench, cluster: Cluster, working: Path) -> None:
    joined.folder = working
    running = joined.start("submit", "train", "mine.yaml", "train.max_steps=100000", *words(joined, cluster))
    wait_until(
        lambda: any(one.stat().st_size for one in joined.home.glob("runs/*/metrics.jsonl")),
        240,
        lambda: f"a step: {[f.read_text() for f in running.files]}",
    )
    running.send(signal.SIGINT)
    left = running.ended(90)
    assert left.code == 130, left.told()
    assert "goes on" in left.stderr and "ray job logs raysubmit_" in left.stderr
    (line,) = [line for line in left.stderr.splitlines() if "ray job stop" in line]
    (run_id,) = [one.name for one in (joined.home / "runs").iterdir()]
    assert joined.show(run_id)["run"]["state"] == "running"
    stop = line.partition("ray ")[2].split()
    told = subprocess.run(
        [BIN / "ray", *stop], env=joined.child_environment(), capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stdout + told.stderr
    wait_until(
        lambda: joined.show(run_id)["run"]["state"] == "cancelled", 60, lambda: "the run to save and end"
    )
    assert joined.checkpoints(run_id)


def test_a_wrong_token(joined: Bench, cluster: Cluster, working: Path) -> None:
    joined.folder = working
    joined.environment = {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}
    outcome = joined.run("submit", "train", "mine.yaml", "--json", *words(joined, cluster))
    assert (outcome.code, outcome.error["kind"]) == (4, "cluster"), outcome.told()
    assert "refuses the token" in outcome.error["what"]
    assert outcome.seconds < 30


class CarriedThere(Carried):
    def client(self, job: Job) -> Any:
        assert isinstance(self.backend, RayBackend)
        return self.backend._client(job)

    def until_it_works(self, job_id: str, within_s: float = 90.0) -> Job:
        job = self.until(job_id, "running", within_s=within_s)
        deadline = time.monotonic() + within_s
        while "jobs are left" not in (log := self.client(job).get_job_logs(job.submission_id)):
            assert time.monotonic() < deadline, log
            time.sleep(0.3)
        return self.store.get(job_id)


@pytest.fixture
def carried(connected: Cluster, home: Path) -> Iterator[CarriedThere]:
    values = {"backend": "ray", "address": connected.dashboard}
    found = CarriedThere(RayBackend(gone_after_s=20.0), values, for_jobs(home))
    yield found
    for job in found.store.jobs(states=["running"]):
        with suppress(Exception):
            found.client(job).stop_job(job.submission_id)
    found.records.close()


@pytest.mark.thorough
class TestContract(BackendContract):
    @contextmanager
    def failing_starts(self, carried: Carried) -> Iterator[None]:
        yield

    def values_of_a_failing_start(self) -> dict[str, Any]:
        return {"address": "http://127.0.0.1:1"}


class Forwarding:
    """A way to a port, which can be cut: what lies behind is then gone as far as anybody can tell."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _open(self, place: tuple[str, int]) -> None:
        self._server = socket.create_server(place)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._server.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self._place = self._server.getsockname()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def mend(self) -> None:
        self._open(self._place)


def test_a_job_whose_cluster_is_gone_is_put_back_and_never_runs_twice(
    carried: CarriedThere, connected: Cluster
) -> None:
    carried.backend = RayBackend(gone_after_s=2.0)
    carried.scheduler = carried.new_scheduler()
    way = Forwarding(int(connected.dashboard.rpartition(":")[2]))
    carried.submit("orphan", LONG, address=way.url)
    job = carried.until_it_works("orphan")
    real = RayBackend()._client(Job(**{**vars(job), "address": connected.dashboard}))
    way.cut()
    again = carried.until("orphan", "queued", "failed", within_s=30)
    assert (again.state, again.num_losses, again.num_failures) == ("queued", 1, 0)
    assert "its cluster is gone: no Ray cluster answers" in (again.exit_reason or "")
    assert real.get_job_status(job.submission_id) == "RUNNING", "the cluster was only out of reach"
    way.mend()
    second = carried.until("orphan", "running", "failed")
    assert second.state == "running" and second.num_starts > 2, "while the first ran, no other began"
    assert any("an earlier start, still runs" in line for line in carried.lines), carried.lines
    assert real.get_job_status(job.submission_id) == "STOPPED"
    carried.store.cancel("orphan")
    assert carried.until("orphan", "cancelled", "failed").state == "cancelled"


def test_a_new_cluster_at_the_old_address_does_not_know_the_job(carried: CarriedThere) -> None:
    carried.submit("unknown", LONG, now=time.time() - 100.0)
    carried.store.start_what_fits("dead-scheduler", "there", Limits(), time.time() - 30.0)
    again = carried.until("unknown", "queued", "failed")
    assert (again.state, again.num_losses) == ("queued", 1)
    assert "does not know it" in (again.exit_reason or "")
    carried.store.cancel("unknown")


def test_the_queue_sends_the_folder_as_it_was(joined: Bench, cluster: Cluster, working: Path) -> None:
    """The job says which recipe it had: one whose rows are not there, exit code 3, and not the broken one, 2."""
    joined.folder = working
    recipe = (working / "mine.yaml").read_text()
    (working / "mine.yaml").write_text(recipe.replace("rows.jsonl", "absent.jsonl"))
    queued = joined.run("queue", "submit", "train", "mine.yaml", "--json", *words(joined, cluster))
    assert queued.code == 0, queued.told()
    (working / "mine.yaml").write_text("broken: by a later thought\n")
    worked = joined.run("queue", "work", "--until-empty", "--json", "--every", "0.5")
    assert (worked.code, worked.object["started"], worked.object["left"]) == (0, 1, 0), worked.told()
    shown = joined.run("queue", "status", queued.object["job"]["id"], "--json").object["job"]
    assert (shown["state"], shown["exit_code"]) == ("failed", 3), json.dumps(shown)
    assert "absent.jsonl" in shown["log_tail"]
