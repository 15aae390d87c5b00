"""A search over a cluster of two nodes, each with room for one trial: Ray nodes of their own, on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import Bench
from test_elastic import TwoNodes, nodes  # noqa: F401
from test_tune import searched, trials_of  # noqa: F401

from raytrain.training.spec import load_spec
from raytrain.tuning.spec import load_tune_recipe


def nodes_of(bench: Bench, run_id: str) -> set[str]:
    """Where its workers were."""
    return {event["data"]["node"] for event in bench.events(run_id, "worker")}


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_trials_run_on_two_nodes_at_a_time(nodes: TwoNodes, searched: Path, tmp_path: Path) -> None:  # noqa: F811
    bench = Bench(tmp_path / "search", nodes.folder, nodes.address, nodes.token)
    overrides = ["search.max_concurrent=null", "search.num_trials=4"]
    search = load_tune_recipe(searched, overrides).run_id
    first, second, *_ = runs = [f"{search}-{number:04d}" for number in range(4)]
    command = ("tune", searched, *overrides, "--json", "--address", nodes.address)

    bench.hold_at(6)
    running = bench.start(*command)
    for run_id in (first, second):
        bench.wait_for_step(running, run_id, 6, timeout_s=300)
    for run_id in (first, second):
        bench.wait_until_held(run_id, world_size=1)
    assert [bench.show(run_id)["run"]["state"] for run_id in (first, second)] == ["running", "running"]
    at_once = [nodes_of(bench, run_id) for run_id in (first, second)]
    assert [len(one) for one in at_once] == [1, 1]
    assert at_once[0] != at_once[1], "one on each node while both stand at step 6"
    bench.hold_at(None)
    outcome = running.ended(600)
    assert outcome.code == 0, outcome.told()

    told = outcome.object
    assert trials_of(told) == [(number, "complete") for number in range(4)]
    notes = [one["message"] for one in bench.events(search, "note")]
    assert any(one.startswith("2 trials at a time: each needs 1 worker of 1 CPU") for one in notes), notes
    for run_id in runs:
        assert bench.steps_told(run_id) == list(range(1, 13)), "no step lost or told twice"
        assert nodes_of(bench, run_id) <= at_once[0] | at_once[1]
    best = min(told["trials"], key=lambda one: one["objectives"][0])
    assert told["best"][0]["number"] == best["number"]
    written = load_spec(Path(told["files"]["best"]))
    assert written.train.learning_rate == best["values"]["train.learning_rate"]

    again = bench.run(*command)
    assert (again.code, again.object["digest"]) == (0, told["digest"]), (
        "the same command again makes nothing anew"
    )
