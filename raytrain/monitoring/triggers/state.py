"""What is known between two decisions, what is seen at one, and what comes of it: values that can be stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raytrain.monitoring.spending import Spending


@dataclass(frozen=True)
class Window:
    """What a watch found in one window."""

    number: int
    """In one series they rise."""
    ended_at: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """What is seen at a decision; None = nobody can say."""

    series: str = ""
    """Whose windows these are: another reference begins another series, in which no event has begun."""
    windows: tuple[Window, ...] = ()
    """In any order; those of earlier decisions may be among them."""
    new_rows: int | None = None
    """That no run has used."""
    trained_at: float | None = None
    """When what is in production was trained."""
    sources: frozenset[str] | None = None
    """That rows come from."""
    canary_losses: frozenset[str] = frozenset()
    """Trials that a candidate lost, by what they are known by: of an order's own candidate by the order's id."""
    spending: Spending | None = None
    """Of this month."""
    notes: tuple[str, ...] = ()
    """Why something cannot be said, or not exactly."""


@dataclass(frozen=True)
class RuleState:
    """Of one rule. An event begins when it is active, and ends when it is not."""

    streak: int = 0
    """Windows in a row in which it held."""
    clear_streak: int = 0
    """Windows in a row in which it was clear that it does not hold."""
    active: bool = False
    used: bool = False
    """An order was made in this event; there is no second."""
    by_dry_run: bool = False
    """It was none: once `dry_run` is taken out the same event may lead to one."""
    since: int = 0
    """Number of the window at which the event began, or from which on a group holds; 0 = none did."""


@dataclass(frozen=True)
class Request:
    """Somebody asked for a retraining."""

    id: str
    who: str
    why: str
    time: float


@dataclass(frozen=True)
class State:
    """Of one file of triggers."""

    series: str = ""
    last_window: int = 0
    """The last that was decided on."""
    rules: Mapping[str, RuleState] = field(default_factory=dict)
    """By `RuleSection.key`."""
    requests: tuple[Request, ...] = ()
    losses: tuple[str, ...] = ()
    """Trials that order nothing any more: those that led to an order, and those of orders that are done with."""
    sources: tuple[str, ...] | None = None
    """That are not new."""
    schedules: Mapping[str, float] = field(default_factory=dict)
    """By a rule's key, up to when its times are dealt with."""
    num_orders: int = 0
    ordered_at: tuple[float, ...] = ()
    """Times of the orders that may still count, the last of them last."""
    before_order_since: float | None = None
    """Time of the first look that was earlier than the last order, while looks are: of two clocks one is wrong, and the
    order counts as one of that look."""
    open_order: str | None = None
    num_fruitless: int = 0
    """Orders in a row that came to no gain or failed."""


def order_times(state: State) -> tuple[float, ...]:
    """As far as now knows of them."""
    since = state.before_order_since
    return state.ordered_at if since is None else tuple(min(one, since) for one in state.ordered_at)


def state_as_json(state: State) -> dict[str, Any]:
    return asdict(state)


def state_of_json(values: Mapping[str, Any]) -> State:
    plain = dict(values)
    return State(
        **{
            **plain,
            "rules": {key: RuleState(**one) for key, one in plain["rules"].items()},
            "requests": tuple(Request(**one) for one in plain["requests"]),
            "losses": tuple(plain["losses"]),
            "sources": None if plain["sources"] is None else tuple(plain["sources"]),
            "ordered_at": tuple(plain["ordered_at"]),
        }
    )


Outcome = Literal["succeeded", "no_gain", "failed"]


@dataclass(frozen=True)
class Order:
    """One retraining that is to be carried out, once: whoever does so names his job and his run by its id."""

    id: str
    triggers: str
    number: int
    time: float
    reasons: tuple[str, ...]
    series: str
    window: int
    """That tripped the rule, however much later the order could be made; where none did, as by hand, the last that was
    decided on."""
    dry_run: bool


@dataclass(frozen=True)
class Decision:
    """What came of a look."""

    state: State
    order: Order | None
    reasons: tuple[str, ...]
    """Rule by rule, why it holds or not."""
    blocked: tuple[str, ...] = ()
    """Why nothing is ordered although the rule holds."""
    notes: tuple[str, ...] = ()
    """What could not be taken into account."""
