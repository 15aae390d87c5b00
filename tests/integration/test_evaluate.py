"""Evaluations on real Ray actors, one of which is killed, and in a process that is interrupted by a person."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from bench import Bench, Running
from suites import write_suite

ROWS = [{"question": f"What is the sum of {i} and {i * i}?", "answer": str(i + i * i)} for i in range(64)]


def suite(folder: Path) -> Path:
    return write_suite(folder, "sums", ROWS, generation={"max_new_tokens": 80})


def wait_for_parts(bench: Bench, running: Running, number: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(bench.home.glob("runs/*/records/sums/part-*.parquet"))) < number:
        assert running.process.poll() is None, running.ended().told()
        assert time.monotonic() < deadline, "nothing was answered"
        time.sleep(0.02)


def kill_one_worker(ray_folder: Path) -> None:
    workers = [
        one
        for one in psutil.process_iter(["cmdline"])
        if (one.info["cmdline"] or [""])[0].startswith("ray::Worker") and belongs(one, ray_folder)
    ]
    assert workers, "no worker is there"
    workers[0].kill()


def belongs(process: psutil.Process, ray_folder: Path) -> bool:
    try:
        return any(str(ray_folder) in word for parent in process.parents() for word in parent.cmdline())
    except psutil.Error:
        return False


@pytest.mark.thorough
def test_actors_give_what_one_process_gives_also_where_one_is_killed(
    joined: Bench, local: Bench, tiny_llama: Path, tmp_path: Path
) -> None:
    """The process is interrupted, and goes on."""
    assert joined.address is not None
    words = ["evaluate", tiny_llama, "--suite", suite(tmp_path), "answering.batch_size=4", "--json"]
    alone = local.start(*words)
    wait_for_parts(local, alone, 2)
    alone.send(signal.SIGTERM)
    stopped = alone.ended()
    assert stopped.code == 128 + signal.SIGTERM and stopped.object["state"] == "cancelled", stopped.told()
    kept = len(list(local.home.glob("runs/*/records/sums/part-*.parquet")))
    done = local.run(*words)
    assert done.object["run_id"] == stopped.object["run_id"] and kept >= 2
    assert done.object["report"]["suites"]["sums"]["num_items"] == 64
    assert "items were answered before" not in done.stdout

    running = joined.start(*words, "scaling.num_workers=2", "--address", joined.address)
    wait_for_parts(joined, running, 2)
    kill_one_worker(joined.ray_folder)
    on_actors = running.ended()
    assert on_actors.code == 0, on_actors.told()
    assert on_actors.object["digest"] == done.object["digest"]
    assert on_actors.object["resources"]["num_workers"] == 2
    assert on_actors.object["report"]["suites"]["sums"]["num_failed"] == 0
