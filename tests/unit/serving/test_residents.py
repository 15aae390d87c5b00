"""Who makes room for whom, with an engine that counts ranks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.residents import Residents, choose_evictions


@dataclass(frozen=True)
class Weights:
    rank: int


class Others(Weights):
    """Of the other engine."""


@dataclass
class Bank:
    """Room for eight ranks of each kind."""

    held: dict[str, Weights] = field(default_factory=dict)
    turns_to_leave: int = 0
    leaving: list[str] = field(default_factory=list)

    def load(self, digest: str, weights: Weights) -> None:
        self.turns_to_leave -= 1
        if self.turns_to_leave < 0:
            for one in self.leaving:
                del self.held[one]
            self.leaving.clear()
        alike = sum(one.rank for one in self.held.values() if type(one) is type(weights))
        if alike + weights.rank > 8:
            raise NoRoomError("full", why=f"{alike} of 8", fix="", digest=digest, left_ranks=8 - weights.rank)
        self.held[digest] = weights

    def unload(self, digest: str) -> None:
        self.leaving.append(digest)


class Reader:
    """Weights that count how often they were read."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.num_reads = weights, 0

    def __call__(self) -> Weights:
        self.num_reads += 1
        return self.weights


def filled(**ranks: int) -> Residents:
    residents = Residents(Bank())
    for digest, rank in ranks.items():
        residents.load(digest, Reader(Weights(rank)))
    return residents


@pytest.mark.parametrize(
    ("may_go", "left", "chosen"),
    [
        (["a", "b", "c"], 10, []),
        (["a", "b", "c"], 7, ["a"]),
        (["c", "a", "b"], 6, ["c"]),
        (["a", "b"], 5, ["a", "b"]),
        (["a", "b"], 4, None),
        ([], 9, None),
    ],
)
def test_the_fewest_go_and_none_where_it_is_not_enough(
    may_go: list[str], left: int, chosen: list[str] | None
) -> None:
    assert choose_evictions({"a": 3, "b": 2, "c": 5}, may_go, left) == chosen


def test_one_that_does_not_fit_throws_nobody_out_and_is_read_once() -> None:
    residents = filled(production=4, idle=3)
    residents.pin({"production"})
    large = Reader(Weights(5))
    for _ in range(3):
        with pytest.raises(NoRoomError) as full:
            residents.load("large", large, is_pinned=True)
        assert full.value.left_ranks == 3 and full.value.digest == "large"
        assert not residents.may_fit("large", is_pinned=True)
    assert residents.resident() == ["production", "idle"] and residents.evictions == 0
    assert large.num_reads == 1
    residents.pin(())
    assert residents.may_fit("large")
    residents.load("large", large)
    assert residents.resident() == ["idle", "large"] and large.num_reads == 2


def test_it_fits_once_an_answer_has_ended() -> None:
    residents = filled(busy=4, idle=3)
    large = Reader(Weights(5))
    assert residents.enter("busy")
    with pytest.raises(NoRoomError):
        residents.load("large", large)
    residents.leave("busy")
    residents.load("large", large)
    # The idle one was not used since it was loaded, and by itself would not have been enough.
    assert residents.resident() == ["large"]


def test_what_is_kept_goes_for_production_alone_and_only_where_that_is_enough() -> None:
    residents = filled(production=2, kept=4, idle=2)
    residents.pin({"production"})
    residents.keep({"kept"})
    with pytest.raises(NoRoomError):
        residents.load("large", Reader(Weights(4)))
    with pytest.raises(NoRoomError):
        residents.load("larger", Reader(Weights(7)), is_pinned=True)
    assert residents.resident() == ["production", "kept", "idle"]
    assert not residents.may_fit("large") and residents.may_fit("large", is_pinned=True)
    residents.load("large", Reader(Weights(4)), is_pinned=True)
    assert residents.resident() == ["production", "large"]


def test_one_kind_makes_no_room_for_the_other() -> None:
    residents = filled(text=8)
    residents.load("classifier", Reader(Others(8)))
    residents.load("another", Reader(Others(8)))
    assert residents.resident() == ["text", "another"]


def test_who_leaves_late_is_waited_for_and_nobody_goes_beside_him() -> None:
    bank = Bank()
    residents = Residents(bank)
    for digest in ("first", "second"):
        residents.load(digest, Reader(Weights(4)))
    bank.turns_to_leave = 3
    residents.load("third", Reader(Weights(4)))
    assert residents.resident() == ["second", "third"] and residents.evictions == 1


def test_those_that_come_at_once_do_not_take_each_other_s_room() -> None:
    residents = filled(idle=8)
    readers = [threading.Thread(target=residents.load, args=(f"{n}", Reader(Weights(4)))) for n in range(2)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    assert sorted(residents.resident()) == ["0", "1"] and residents.evictions == 1
