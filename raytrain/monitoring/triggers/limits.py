"""What keeps a rule that holds from ordering anything: an open order, the cool-down, the rate, the budget. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from raytrain.monitoring.triggers.section import SpendingSection, TriggersSection
from raytrain.monitoring.triggers.state import Seen, State, order_times

_HOUR_S, _DAY_S = 3600.0, 86400.0


def blocks(section: TriggersSection, state: State, seen: Seen, now: float, *, by_hand: bool) -> list[str]:
    """Sentences; none where nothing is in the way. by_hand: somebody asked, for whom the cool-down does not count."""
    found = [f"the order {state.open_order} is not done with"] if state.open_order else []
    if not by_hand:
        found += _cooling(section, state, now)
    found += _too_many(section, state, now)
    if section.budget is not None:
        found += _spent(section.budget, seen)
    return found


def back_off_s(section: TriggersSection, state: State) -> float:
    """The cool-down, after what came to nothing so far."""
    hours = section.cooldown_hours * 2.0 ** min(state.num_fruitless, 60)
    return _HOUR_S * min(hours, section.longest_cooldown_hours)


def _cooling(section: TriggersSection, state: State, now: float) -> Iterator[str]:
    times = order_times(state)
    if not times:
        return
    since_s = max(0.0, now - times[-1])
    left_s = back_off_s(section, state) - since_s
    if left_s > 0:
        after = f" after {state.num_fruitless} that came to nothing" if state.num_fruitless else ""
        ago = f"the last order was {since_s / _HOUR_S:.1f} ago{after}"
        yield f"cooling down for {left_s / _HOUR_S:.1f} more hours: {ago}"


def _too_many(section: TriggersSection, state: State, now: float) -> Iterator[str]:
    since = now - section.most.days * _DAY_S
    num_recent = sum(one > since for one in order_times(state))
    if num_recent >= section.most.orders:
        yield f"{num_recent} orders in {section.most.days:g} days; at most {section.most.orders} are allowed"


def _spent(budget: SpendingSection, seen: Seen) -> Iterator[str]:
    if seen.spending is None:
        yield "nobody can say what this month has cost, and there is a budget"
        return
    money, gpu_hours = seen.spending.money.get(budget.currency, 0.0), seen.spending.gpu_hours
    for used, needed, limit, unit in (
        (money, budget.next_money, budget.money, budget.currency),
        (gpu_hours, budget.next_gpu_hours, budget.gpu_hours, "GPU hours"),
    ):
        if limit is not None and (used >= limit or used + needed > limit):
            then = f", and the next is expected to take {needed:g}" if needed else ""
            yield f"{used:.2f} of the month's {limit:g} {unit} are used{then}"
