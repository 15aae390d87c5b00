"""How many trials a cluster is given at once: one that has room, one that grows, and one that never has any."""

from __future__ import annotations

import pytest
from conftest_search import RecipeMaker

from raytrain.cluster import connection
from raytrain.errors import ClusterError
from raytrain.tuning import tuner
from raytrain.tuning.tuner import place_trials

SPREAD = ("scaling.num_workers=2", "scaling.placement_strategy=STRICT_SPREAD")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One node of four CPUs that does not grow."""
    for module in (connection, tuner):
        monkeypatch.setattr(module, "alive_nodes", lambda: [{"CPU": 4.0}])
        monkeypatch.setattr(module, "autoscales", lambda: False)
    return monkeypatch


def grows(cluster: pytest.MonkeyPatch) -> None:
    for module in (connection, tuner):
        cluster.setattr(module, "autoscales", lambda: True)


@pytest.mark.usefixtures("cluster")
def test_workers_that_can_never_be_placed_are_refused(tune_recipe: RecipeMaker) -> None:
    with pytest.raises(ClusterError) as caught:
        place_trials(tune_recipe(*SPREAD), 8)
    assert caught.value.why == (
        "each needs 1 CPU; the cluster has 4 CPU on 1 node(s), and scaling.placement_strategy is STRICT_SPREAD"
    )
    assert "scaling.placement_strategy=PACK, or scaling.num_workers=1" in caught.value.fix


@pytest.mark.parametrize(
    ("overrides", "num_trials", "at_once", "on_growing"),
    [
        (("scaling.num_workers=2",), 8, 2, 2),
        (("scaling.num_workers=2", "search.max_concurrent=3"), 8, 2, 3),
        (("scaling.num_workers=2", "search.max_concurrent=1"), 8, 1, 1),
        (("scaling.num_workers=1", "search.max_concurrent=6"), 5, 4, 5),
        (SPREAD, 8, None, 1),
        ((*SPREAD, "search.max_concurrent=3"), 8, None, 3),
    ],
)
def test_a_cluster_that_grows_has_room_for_as_many_as_are_named(
    tune_recipe: RecipeMaker,
    cluster: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    num_trials: int,
    at_once: int | None,
    on_growing: int,
) -> None:
    recipe = tune_recipe(*overrides)
    if at_once is not None:
        assert place_trials(recipe, num_trials).at_once == at_once
    grows(cluster)
    assert place_trials(recipe, num_trials).at_once == on_growing
