"""The head of a cluster is killed under whoever has joined it: the command says so, and goes on when it is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, Running, end_ray, run_id_of
from conftest import Straight
from test_elastic import TwoNodes
from test_tune import searched, trials_of  # noqa: F401

from raytrain.tuning.spec import load_tune_recipe

pytestmark = pytest.mark.thorough


@pytest.fixture
def head() -> Iterator[TwoNodes]:
    """Alone, with two CPUs."""
    node = TwoNodes(num_cpus=2)
    try:
        node.start_head()
        yield node
    finally:
        for folder in (node.second_folder, node.folder):
            end_ray(folder)


def kill_under(head: TwoNodes, bench: Bench, running: Running) -> None:
    """The command waits for it for 50 s."""
    head.kill_head(spare=running.pid)
    bench.hold_at(None)
    outcome = running.ended(90)
    assert outcome.code == 4, outcome.told()
    assert outcome.error["kind"] == "cluster"
    assert "the Ray cluster went away" in outcome.error["what"]
    assert "the same command goes on" in outcome.error["fix"]
    head.start_head()


@pytest.mark.timeout(1200)
def test_a_run_goes_on_when_the_head_is_back(
    head: TwoNodes, straight: Straight, recipe: Path, tmp_path: Path
) -> None:
    bench, run_id = Bench(tmp_path / "run", head.folder, head.address, head.token), run_id_of(recipe)
    bench.hold_at(6)
    running = bench.begin(recipe)
    bench.wait_for_step(running, run_id, 6, timeout_s=240)
    bench.wait_until_held(run_id, world_size=2)
    bench.wait_for_checkpoint(run_id, 4)
    kill_under(head, bench, running)
    assert bench.show(run_id)["run"]["state"] == "failed"
    outcome = bench.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert bench.resumed_at(run_id) == [4]
    assert outcome.object["digest"] == straight.digest


@pytest.mark.timeout(1500)
def test_a_search_goes_on_when_the_head_is_back(head: TwoNodes, searched: Path, tmp_path: Path) -> None:  # noqa: F811
    bench = Bench(tmp_path / "search", head.folder, head.address, head.token)
    search = load_tune_recipe(searched).run_id
    runs = [f"{search}-{number:04d}" for number in range(3)]
    command = ("tune", searched, "--json", "--address", head.address)
    bench.hold_at(6)
    running = bench.start(*command)
    bench.wait_for_step(running, runs[0], 6, timeout_s=300)
    bench.hold_at(7)
    bench.wait_for_step(running, runs[0], 7)
    bench.wait_until_held(runs[0], world_size=1)
    bench.hold_at(6)
    bench.wait_for_step(running, runs[1], 6, timeout_s=300)
    bench.wait_until_held(runs[1], world_size=1)
    bench.wait_for_checkpoint(runs[1], 4)
    kill_under(head, bench, running)
    assert bench.show(search)["run"]["state"] == "failed"
    outcome = bench.run(*command, timeout_s=400)
    assert outcome.code == 0, outcome.told()
    assert trials_of(outcome.object) == [(0, "complete"), (1, "complete"), (2, "complete")]
    assert [bench.resumed_at(run_id) for run_id in runs] == [[], [4], []]
    for run_id in runs:
        assert bench.steps_told(run_id) == list(range(1, 13)), "no step lost or told twice"
    values = [one["values"]["train.learning_rate"] for one in outcome.object["trials"]]
    assert len(set(values)) == 3, "none is made twice"
