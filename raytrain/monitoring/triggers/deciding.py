"""Whether a new run is to start now. Pure: the same policy, state, observations and time give the same decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from raytrain.errors import ConfigError
from raytrain.monitoring.triggers.limits import blocks
from raytrain.monitoring.triggers.rules import COUNTED, RuleEyes
from raytrain.monitoring.triggers.section import RuleSection, TriggersSection
from raytrain.monitoring.triggers.state import (
    Decision,
    Order,
    Outcome,
    RuleState,
    Seen,
    State,
    Window,
    order_times,
)

_CLOCKS_DIFFER_S = 300.0
"""A window that ends later than this after now is of a clock that is wrong."""
_MOST_LOSSES = 1_000


def decide(section: TriggersSection, state: State, seen: Seen, now: float) -> Decision:
    """At most one order. Windows that were decided on before change nothing."""
    state, notes = _in_series(_in_time(state, now), seen)
    if not section.dry_run:
        state = replace(state, rules={key: _not_dry(one) for key, one in state.rules.items()})
    fresh, told = _fresh(state, seen.windows, now)
    notes += [*seen.notes, *told]
    state = replace(state, sources=_sources(state, seen), schedules=_schedules(section, state, now))
    for window in fresh:
        eyes = RuleEyes(state, seen, now, window)
        eyes.holds(section.when)
        state = replace(state, rules={**state.rules, **eyes.rules}, last_window=window.number)
        notes += eyes.notes
    eyes = RuleEyes(state, seen, now, None)
    holds = eyes.holds(section.when)
    state = replace(state, rules={**state.rules, **eyes.rules})
    reasons = tuple(eyes.told)
    if not holds:
        return Decision(state, None, reasons, notes=tuple(notes))
    in_the_way = blocks(section, state, seen, now, by_hand=_is_by_hand(section.when, eyes))
    if in_the_way:
        return Decision(state, None, reasons, tuple(in_the_way), tuple(notes))
    order = _order(section, state, eyes, now)
    return Decision(_after(section, state, seen, order, now), order, reasons, notes=tuple(notes))


def settle(section: TriggersSection, state: State, order_id: str, outcome: Outcome) -> State:
    """What becomes of the state when an order is done with.

    An event of a metric stays used whatever came of its order: a drift starts one retraining at most. A trial that the
    order's own candidate lost is its outcome, and orders no other. What is counted, rows and age, may lead to the next
    one after the cool-down. Raises ConfigError where that order is not open.
    """
    if state.open_order != order_id:
        raise ConfigError(
            f"the order {order_id} of {section.triggers} is not open",
            why=f"open is {state.open_order}" if state.open_order else "none is open",
            fix="see `raytrain triggers orders`",
        )
    counted = {one.key for one in section.when.leaves() if one.name in COUNTED}
    rules = {key: replace(one, used=False) if key in counted else one for key, one in state.rules.items()}
    num_fruitless = 0 if outcome == "succeeded" else state.num_fruitless + 1
    losses = _with_losses(state, order_id)
    return replace(state, open_order=None, num_fruitless=num_fruitless, rules=rules, losses=losses)


def _in_series(state: State, seen: Seen) -> tuple[State, list[str]]:
    """In another series the windows begin anew, and no event has begun in them."""
    if not seen.series or seen.series == state.series:
        return state, []
    rules = {key: one for key, one in state.rules.items() if key.partition("-")[0] in COUNTED}
    told = [f"the windows are of {seen.series} now"] if state.series else []
    return replace(state, series=seen.series, last_window=0, rules=rules), told


def _in_time(state: State, now: float) -> State:
    """It is noted since when now is before the last order: that one's clock was ahead, or this one is behind."""
    if not state.ordered_at or now >= state.ordered_at[-1]:
        return replace(state, before_order_since=None)
    since = now if state.before_order_since is None else min(state.before_order_since, now)
    return replace(state, before_order_since=since)


def _not_dry(rule: RuleState) -> RuleState:
    """An event that led to what was no order may lead to one."""
    return replace(rule, used=False, by_dry_run=False) if rule.by_dry_run else rule


def _fresh(state: State, windows: Sequence[Window], now: float) -> tuple[list[Window], list[str]]:
    """Those to decide on, in order, and what is to be said of others, which end in the future."""
    unknown = sorted((one for one in windows if one.number > state.last_window), key=lambda one: one.number)
    fresh = [one for one in unknown if one.ended_at <= now + _CLOCKS_DIFFER_S]
    last = max((one.number for one in fresh), default=0)
    return fresh, [
        f"window {one.number} ends in the future, and is left {'out' if one.number < last else 'for later'}: "
        "a clock is wrong"
        for one in unknown
        if one not in fresh
    ]


def _sources(state: State, seen: Seen) -> tuple[str, ...] | None:
    """Those of the first look are not new."""
    if state.sources is None and seen.sources is not None:
        return tuple(sorted(seen.sources))
    return state.sources


def _schedules(section: TriggersSection, state: State, now: float) -> dict[str, float]:
    """A schedule begins when it is first looked at: times before that are not made up for."""
    keys = [one.key for one in section.when.leaves() if one.name == "schedule"]
    return {key: state.schedules.get(key, now) for key in keys}


def _is_by_hand(rule: RuleSection, eyes: RuleEyes) -> bool:
    return any(one.name == "manual" and eyes.is_true(one) for one in rule.leaves())


def _order(section: TriggersSection, state: State, eyes: RuleEyes, now: float) -> Order:
    number, window = state.num_orders + 1, eyes.tripped_by(section.when) or state.last_window
    return Order(
        f"{section.triggers}-{number:06d}", section.triggers, number, now, tuple(eyes.why), state.series,
        window, section.dry_run,
    )  # fmt: skip


def _after(section: TriggersSection, state: State, seen: Seen, order: Order, now: float) -> State:
    """Everything that holds now is answered by this order."""
    rules: dict[str, RuleState] = {
        key: replace(one, used=True, by_dry_run=order.dry_run) if one.active else one
        for key, one in state.rules.items()
    }
    changed: dict[str, Any] = {
        "rules": rules,
        "requests": (),
        "losses": _with_losses(state, *sorted(seen.canary_losses)),
        "sources": None if seen.sources is None and state.sources is None
        else tuple(sorted({*(state.sources or ()), *(seen.sources or ())})),
        "schedules": dict.fromkeys(state.schedules, now),
        "num_orders": order.number,
        "ordered_at": (*order_times(state), now)[-section.most.orders :],
        "before_order_since": None,
        "open_order": None if order.dry_run else order.id,
    }  # fmt: skip
    return replace(state, **changed)


def _with_losses(state: State, *fresh: str) -> tuple[str, ...]:
    """Those that order nothing any more, the newest last."""
    return tuple(dict.fromkeys((*state.losses, *fresh)))[-_MOST_LOSSES:]
