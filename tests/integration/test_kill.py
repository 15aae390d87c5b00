"""kill, of the driver and of a worker: a resumed run is the straight run, bit for bit."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import psutil
from bench import Bench, assert_every_row_once_per_epoch, run_id_of, wait_until
from conftest import Straight


def losses(bench: Bench, run_id: str) -> dict[int, float]:
    lines = [line for line in bench.metric_lines(run_id) if "train/loss" in line["metrics"]]
    return {line["global_step"]: line["metrics"]["train/loss"] for line in lines}


def wait_for_the_end_of(pids: list[int]) -> None:
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), 30, lambda: f"the end of workers {pids}")


def test_a_driver_killed_twice_resumes_to_the_same_bits(
    local: Bench, straight: Straight, recipe: Path
) -> None:
    """Killed in the middle of an epoch, and in the next between two micro-batches of one accumulation."""
    run_id = run_id_of(recipe)
    for hold_at, micro_batch, resumes_at in ((6, None, []), (13, 1, [4])):
        local.hold_at(hold_at, before_micro_batch=micro_batch)
        running = local.begin(recipe)
        local.wait_for_step(running, run_id, hold_at if micro_batch is None else hold_at - 1)
        local.wait_until_held(run_id, world_size=2)
        local.wait_for_checkpoint(run_id, hold_at // 4 * 4)
        workers = list(local.worker_pids(run_id).values())
        local.kill_now(running.pid)
        assert running.ended().code == -9
        assert local.show(run_id)["run"]["owner_gone"]
        assert local.resumed_at(run_id) == resumes_at
        wait_for_the_end_of(workers)
    local.hold_at(None)
    outcome = local.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert local.resumed_at(run_id) == [4, 12]
    assert outcome.object["digest"] == straight.digest
    assert local.steps_told(run_id) == straight.bench.steps_told(straight.run_id), (
        "no step lost or told twice"
    )
    assert losses(local, run_id) == losses(straight.bench, run_id)
    assert_every_row_once_per_epoch(local.seen(), num_epochs=3, world_size=2)


def test_a_killed_worker_is_replaced_without_help(local: Bench, straight: Straight, recipe: Path) -> None:
    run_id = run_id_of(recipe)
    local.hold_at(14)
    running = local.begin(recipe)
    local.wait_for_step(running, run_id, 14)
    local.wait_for_checkpoint(run_id, 12)
    victim = local.worker_pids(run_id)[1]
    local.kill_now(victim)
    local.hold_at(None)
    outcome = running.ended()
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    assert victim not in local.worker_pids(run_id).values()
    assert any("a worker died" in one["message"] for one in local.events(run_id, "note"))
    assert local.resumed_at(run_id) == [12]
    assert losses(local, run_id) == losses(straight.bench, run_id)
    assert_every_row_once_per_epoch(local.seen(), num_epochs=3, world_size=2)


def test_a_worker_that_is_given_notice_saves_before_it_goes(
    local: Bench, straight: Straight, recipe: Path
) -> None:
    """SIGTERM between two checkpoints: no step is made twice, and it counts as no failure."""
    run_id = run_id_of(recipe)
    local.hold_at(6)
    running = local.begin(recipe, "scaling.max_failures=0")
    local.wait_for_step(running, run_id, 6)
    local.wait_until_held(run_id, world_size=2)
    victim = local.worker_pids(run_id)[1]
    psutil.Process(victim).send_signal(signal.SIGTERM)
    time.sleep(2)  # until its main thread has run the handler; while the step is held nothing tells of that
    local.hold_at(None)
    outcome = running.ended()
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    assert victim not in local.worker_pids(run_id).values()
    notes = [one["message"] for one in local.events(run_id, "note")]
    assert "worker 1 has to go (SIGTERM): saving first" in notes
    assert "worker 1 had to go; Ray started the workers anew" in notes
    assert local.resumed_at(run_id) == [7]
    assert losses(local, run_id) == losses(straight.bench, run_id)
    assert set(Counter(line["step"] for line in local.seen()).values()) == {2}, "a step was made twice"
    assert_every_row_once_per_epoch(local.seen(), num_epochs=3, world_size=2)
