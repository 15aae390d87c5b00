"""Which replica is asked, as a table and over many requests."""

from __future__ import annotations

from collections import Counter

import pytest

from raytrain.serving.spreading import Seen, Sent, rank_replicas


def seen(*loads: int, holders: str = "") -> list[Seen]:
    """Replicas a, b, c, …, of which `holders` have the adapter."""
    names = "abcdefgh"[: len(loads)]
    return [Seen(name, load, name in holders) for name, load in zip(names, loads, strict=True)]


@pytest.mark.parametrize(
    ("loads", "holders", "first"),
    [
        ((0, 0, 0), "b", "b"),  # a cold adapter goes where it is
        ((0, 3, 0), "b", "b"),  # also where that one is a little busier
        ((0, 4, 1), "b", "a"),  # and to the least busy where it is much busier
        ((9, 9, 9), "b", "b"),  # being busy counts against others alone
        ((2, 1, 0), "abc", "cb"),  # all have it: the two least busy
        ((5, 1, 0), "ab", "b"),  # of those that have it, those that are not too busy
        ((2, 1, 0), "", "c"),  # nobody has it: one reads it, not two
    ],
)
def test_who_is_asked_first(loads: tuple[int, ...], holders: str, first: str) -> None:
    chosen, others = rank_replicas(seen(*loads, holders=holders), 4, turn=0, wants_adapter=True)
    assert chosen == list(first)
    assert sorted(chosen + others) == list("abc"), "and everybody where those have no room"


def test_what_no_adapter_is_asked_for_goes_to_the_least_busy() -> None:
    assert rank_replicas(seen(2, 1, 0), 4, turn=0, wants_adapter=False)[0] == ["c", "b"]
    assert rank_replicas([], 4, turn=0, wants_adapter=True) == ([], [])


def test_replicas_that_are_alike_take_turns() -> None:
    firsts = Counter(rank_replicas(seen(0, 0, 0), 4, turn, wants_adapter=True)[0][0] for turn in range(30))
    assert firsts == {"a": 10, "b": 10, "c": 10}


def simulated(
    requests: list[str], spread_at: int, ends_after: int
) -> tuple[dict[str, set[str]], Counter[str]]:
    """Requests one after another, each of which takes as long as `ends_after` others: who holds what, and how often an
    adapter was read."""
    held: dict[str, set[str]] = {name: set() for name in "abcd"}
    running: list[tuple[int, str]] = []
    reads: Counter[str] = Counter()
    for turn, model in enumerate(requests):
        running = [one for one in running if one[0] > turn]
        loads = Counter(name for _, name in running)
        replicas = [Seen(one, loads[one], model in held[one]) for one in held]
        chosen, _ = rank_replicas(replicas, spread_at, turn, wants_adapter=True)
        name = min(chosen, key=lambda one: loads[one])
        reads[model] += model not in held[name]
        held[name].add(model)
        running.append((turn + ends_after, name))
    return held, reads


def test_cold_adapters_are_read_once_and_lie_on_different_replicas() -> None:
    cold = [f"cold-{number % 8}" for number in range(400)]
    held, reads = simulated(cold, spread_at=4, ends_after=2)
    assert set(reads.values()) == {1}, "nobody reads what another has"
    assert [len(names) for names in held.values()] == [2, 2, 2, 2]


def test_a_hot_adapter_spreads_as_far_as_it_has_to() -> None:
    _, quiet = simulated(["hot"] * 200, spread_at=4, ends_after=3)
    _, busy = simulated(["hot"] * 200, spread_at=4, ends_after=40)
    assert quiet["hot"] == 1
    assert busy["hot"] == 4, "it is pinned to none"


def test_a_replica_that_was_asked_is_known_to_hold_it_before_it_says_so() -> None:
    sent = Sent(remembered_s=5.0)
    sent.note("a", "hot", now=100.0)
    assert sent.has("a", "hot", now=101.0) and not sent.has("b", "hot", now=101.0)
    assert not sent.has("a", "cold", now=101.0) and not sent.has("a", "hot", now=106.0)


def test_names_that_clients_invent_are_forgotten() -> None:
    sent = Sent(remembered_s=5.0, most=20)
    sent.note("a", "hot", now=100.0)
    for number in range(10):
        sent.note("a", f"invented-{number}", now=101.0)
    sent.note("a", "hot", now=104.0)
    assert len(sent) == 11 and sent.has("a", "hot", now=106.5)
    sent.note("b", "hot", now=106.5)
    assert len(sent) == 2 and sent.has("a", "hot", now=106.5), "the invented ones are gone"
    for number in range(100):
        sent.note("a", f"invented-{number}", now=107.0)
    assert len(sent) == 20 and sent.has("a", "invented-99", now=107.0), "of too many the newest stay"
