"""What a run decides when its cluster is not whole: which messages it takes, and how long it waits for a node."""

from __future__ import annotations

import itertools

import pytest

from raytrain.errors import ClusterError
from raytrain.training.lack import Lack
from raytrain.training.parcels import Message, Parcels
from raytrain.training.section import ScalingSection

BOTH = {"a": "10.0.0.1", "b": "10.0.0.2"}
ONE = {"a": "10.0.0.1"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_messages_come_once_and_in_their_order(order: tuple[int, ...]) -> None:
    messages: list[Message] = [("note", {"text": str(number)}) for number in range(4)]
    parcels, taken = Parcels(), []
    for number in order:
        taken += parcels.take(number, messages[number])
        taken += parcels.take(number, messages[number])  # whose answer was lost
    assert taken == messages
    assert [parcels.take(number, messages[number]) for number in order] == [[], [], [], []]


def lack(num_workers: int | tuple[int, int] = 2) -> Lack:
    return Lack("run", ScalingSection(num_workers=num_workers, max_wait_for_nodes_s=100))


def test_a_lost_node_is_named_waited_for_and_then_given_up() -> None:
    one = lack()
    assert one.look(0.0, 2, BOTH) is None
    note = one.look(10.0, 1, ONE)
    assert note == (
        "the cluster can place 1 of 2 workers since node 10.0.0.2 was lost: waiting up to 100 s for room"
    )
    assert one.look(12.0, 1, ONE) is None, "told once"
    assert one.look(109.0, 1, ONE) is None
    with pytest.raises(ClusterError) as caught:
        one.look(110.0, 1, ONE)
    assert caught.value.what == ("run run: the cluster can place 1 of 2 workers since node 10.0.0.2 was lost")
    assert "100 s (scaling.max_wait_for_nodes_s)" in caught.value.why
    assert "scaling.num_workers=1" in caught.value.fix


def test_room_that_comes_back_is_lost_anew() -> None:
    one = lack()
    one.look(0.0, 2, BOTH)
    assert one.look(10.0, 1, ONE) is not None
    assert one.look(90.0, 2, {**ONE, "c": "10.0.0.3"}) is None
    note = one.look(105.0, 1, ONE)
    assert note is not None and "10.0.0.3" in note, "the one that was there last"
    assert one.look(204.0, 1, ONE) is None


def test_a_range_of_workers_needs_room_for_the_least() -> None:
    one = lack((2, 4))
    assert one.look(0.0, 2, BOTH) is None
    one.look(10.0, 1, ONE)
    with pytest.raises(ClusterError) as caught:
        one.look(110.0, 1, ONE)
    assert "scaling.num_workers=[1,4]" in caught.value.fix


def test_a_cluster_that_never_had_room_names_no_node() -> None:
    one = lack()
    assert one.look(0.0, 1, ONE) == "the cluster can place 1 of 2 workers: waiting up to 100 s for room"
