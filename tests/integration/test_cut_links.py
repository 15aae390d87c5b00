"""Two machines that train together, and the link between them: gone for half a minute, and gone for good. Packets
vanish, and nobody is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, Running, assert_every_row_once_per_epoch, run_id_of
from conftest import Straight, run_straight
from machines import Machine, what_is_missing
from nodes_apart import NodesApart, nodes_apart
from test_kill import losses

missing = what_is_missing()
pytestmark = [
    pytest.mark.alone,
    pytest.mark.thorough,
    pytest.mark.skipif(missing is not None, reason=str(missing)),
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesApart]:
    """A CPU on each, so that a run of two workers needs both."""
    with nodes_apart(tmp_path_factory.mktemp("apart"), head_cpus=1, worker_cpus=1) as found:
        yield found


@pytest.fixture(scope="module")
def uncut(nodes: NodesApart, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The same run on the same nodes, while nothing is wrong."""
    return run_straight(nodes.bench(tmp_path_factory.mktemp("uncut"), nodes.head), recipe)


def held_at_step_6(nodes: NodesApart, bench: Bench, recipe: Path, *overrides: str) -> Running:
    """A run that stands there with a worker on each node, and has saved step 4."""
    run_id = run_id_of(recipe)
    bench.hold_at(6)
    running = bench.begin(recipe, *overrides)
    bench.wait_for_step(running, run_id, 6, timeout_s=240)
    bench.wait_until_held(run_id, world_size=2)
    bench.wait_for_checkpoint(run_id, 4)
    *_, one, other = (event["data"]["node"] for event in bench.events(run_id, "worker"))
    assert one != other
    return running


def assert_ended_as_the_straight_run(bench: Bench, straight: Straight, recipe: Path) -> None:
    run_id = run_id_of(recipe)
    assert bench.show(run_id)["run"]["state"] == "succeeded"
    assert bench.steps_told(run_id) == straight.bench.steps_told(straight.run_id), (
        "no step lost or told twice"
    )
    assert losses(bench, run_id) == losses(straight.bench, run_id)
    assert_every_row_once_per_epoch(bench.seen(), num_epochs=3, world_size=2)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("driver", ["head", "worker"])
def test_half_a_minute_without_a_link(
    nodes: NodesApart, uncut: Straight, recipe: Path, tmp_path: Path, driver: str
) -> None:
    bench = nodes.bench(tmp_path / "cut", getattr(nodes, driver))
    running = held_at_step_6(nodes, bench, recipe)
    nodes.worker.cut_off()
    try:
        bench.hold_at(None)
        time.sleep(30)
        assert running.process.poll() is None, running.ended().told()
        assert max(bench.steps_told(run_id_of(recipe))) == 6, "a step takes both"
    finally:
        nodes.worker.connect()
    outcome = running.ended(400)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == uncut.digest
    # The workers go on where they stood, until Ray looks at those on the other node: a connection that was reset, it
    # starts all of them anew.
    assert len(bench.resumed_at(run_id_of(recipe))) <= 1
    assert_ended_as_the_straight_run(bench, uncut, recipe)


@pytest.mark.timeout(1800)
def test_a_node_that_is_lost_for_good(
    nodes: NodesApart, recipe: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bench = nodes.bench(tmp_path / "lost", nodes.head)
    running = held_at_step_6(nodes, bench, recipe, "scaling.max_wait_for_nodes_s=15")
    nodes.worker.cut_off()
    try:
        bench.hold_at(None)
        outcome = running.ended(400)
        assert outcome.code == 4, outcome.told()
        assert outcome.error["kind"] == "cluster"
        assert "the cluster can place 1 of 2 workers" in outcome.error["what"]
        assert f"node {nodes.worker.address} was lost" in outcome.error["what"]
        assert "ray start" in outcome.error["fix"] and "scaling.num_workers=1" in outcome.error["fix"]
        assert bench.show(run_id_of(recipe))["run"]["state"] == "failed"
    finally:
        nodes.worker.connect()
        start_anew(nodes, nodes.worker)
    assert_goes_on(bench, recipe, request)


@pytest.mark.timeout(1800)
def test_a_command_whose_side_is_cut_from_the_head_for_good(
    nodes: NodesApart, recipe: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It is on the other node, beside one of its workers: it hears no more of the head than if that were gone."""
    bench = nodes.bench(tmp_path / "apart", nodes.worker)
    running = held_at_step_6(nodes, bench, recipe)
    nodes.worker.cut_off()
    cut_at = time.monotonic()
    try:
        bench.hold_at(None)
        outcome = running.ended(200)
        assert time.monotonic() - cut_at < 90, "the head is waited for for 50 s"
        assert outcome.code == 4, outcome.told()
        assert outcome.error["kind"] == "cluster"
        assert "the Ray cluster went away" in outcome.error["what"]
        assert f"its head at {nodes.address} has not answered" in outcome.error["why"]
        assert "see to the network" in outcome.error["fix"]
        assert bench.show(run_id_of(recipe))["run"]["state"] == "failed"
    finally:
        nodes.worker.connect()
        start_anew(nodes, nodes.worker)
    assert_goes_on(bench, recipe, request)


def assert_goes_on(bench: Bench, recipe: Path, request: pytest.FixtureRequest) -> None:
    """The same command, now that the link is back, ends as the run that nothing happened to."""
    outcome = bench.train(recipe, timeout_s=400)
    assert outcome.code == 0, outcome.told()
    uncut: Straight = request.getfixturevalue("uncut")
    assert outcome.object["digest"] == uncut.digest
    assert_ended_as_the_straight_run(bench, uncut, recipe)


def start_anew(nodes: NodesApart, machine: Machine) -> None:
    """Ray has given the node up, and it has ended or will: as whoever sees to it would."""
    machine.kill_all()
    nodes.start_worker()
