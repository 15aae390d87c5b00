"""Whether rules hold, and since when: events with hysteresis, windows in a row, and what is counted. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from raytrain.monitoring.triggers.section import DAYS, RuleSection, ScheduleCondition
from raytrain.monitoring.triggers.state import RuleState, Seen, State, Window

COUNTED = ("new_rows", "age")
"""Rules that go on to hold after an order, until it has come to something."""
EVENTFUL = ("drift", "drop", *COUNTED)
"""Rules whose event is remembered."""

Told = tuple[bool, str]
"""Whether it holds, and the sentence that says why."""


class RuleEyes:
    """One look at a tree of rules: with a window, which every rule of a metric takes in; or without, at what stands."""

    def __init__(self, state: State, seen: Seen, now: float, window: Window | None) -> None:
        self._state, self._seen, self._now, self._window = state, seen, now, window
        self.rules: dict[str, RuleState] = {}
        """As they are after this look."""
        self.told: list[str] = []
        """Of every leaf."""
        self.why: list[str] = []
        """Of those that hold and have not led to an order."""
        self.notes: list[str] = []
        self._looked_at: set[str] = set()
        self._true: set[str] = set()

    def is_true(self, rule: RuleSection) -> bool:
        """Of one that was looked at."""
        return rule.key in self._true

    def tripped_by(self, rule: RuleSection) -> int:
        """Number of the window from which on it holds, of one that was looked at; 0 where no window made it so."""
        if not self.is_true(rule):
            return 0
        if not rule.children or rule.for_windows > 1:
            return self.rules.get(rule.key, RuleState()).since
        found = [number for one in rule.children if (number := self.tripped_by(one))]
        return (min if rule.any else max)(found, default=0)

    def holds(self, rule: RuleSection) -> bool:
        if rule.children:
            # Each is looked at, also where the first decides.
            found = [self.holds(one) for one in rule.children]
            is_true = self._group(rule, any(found) if rule.any else all(found))
            if is_true:
                self._true.add(rule.key)
            return is_true
        if rule.key in self._looked_at:  # it stands twice in the tree; a window counts once
            return rule.key in self._true
        self._looked_at.add(rule.key)
        before = self._state.rules.get(rule.key, RuleState())
        if rule.name in ("drift", "drop"):
            after, told = self._metric(rule, before)
        else:
            is_so, told = _OTHERS[rule.name](self, rule)
            is_counted = rule.name in COUNTED  # what is not is consumed by its order
            used = before.used and is_so and is_counted
            after = RuleState(active=is_so, used=used, by_dry_run=before.by_dry_run and used)
        if rule.name in EVENTFUL:
            self.rules[rule.key] = after
        is_true = after.active and not after.used
        self.told.append(
            f"{'yes' if is_true else 'no'}: {told}" + (" (led to an order before)" if after.used else "")
        )
        if is_true:
            self._true.add(rule.key)
            self.why.append(told)
        return is_true

    def _group(self, rule: RuleSection, is_so: bool) -> bool:
        if rule.for_windows == 1:
            return is_so
        if rule.key in self.rules:
            return is_so and self.rules[rule.key].streak >= rule.for_windows
        before = self._state.rules.get(rule.key, RuleState())
        if self._window is not None:
            streak = before.streak + 1 if is_so else 0
            since = before.since if streak > rule.for_windows else self._window.number
            before = replace(before, streak=streak, since=since if streak >= rule.for_windows else 0)
        elif not is_so:
            before = replace(before, streak=0, since=0)
        self.rules[rule.key] = before
        return is_so and before.streak >= rule.for_windows

    def _metric(self, rule: RuleSection, before: RuleState) -> tuple[RuleState, str]:
        condition = rule.drift or rule.drop
        assert condition is not None, "a rule of a metric has one"
        after = before
        if self._window is not None:
            value = self._window.metrics.get(condition.metric, math.nan)
            if math.isnan(value):
                self.notes.append(
                    f"window {self._window.number} has no {condition.metric}: it does not count"
                )
            else:
                after = next_state(before, *_judged(rule, value), rule.for_windows)
                since = before.since if before.active else self._window.number
                after = replace(after, since=since if after.active else 0)
        limit = f"above {rule.drift.above:g}" if rule.drift else f"below {condition.below:g}"  # type: ignore[union-attr]
        in_a_row = f"{after.streak} of {rule.for_windows} windows in a row"
        began = f" since window {after.since}" if after.since else ""
        told = f"in an event{began}" if after.active else in_a_row
        return after, f"{condition.metric} {limit}: {told}"

    def _rows(self, rule: RuleSection) -> Told:
        assert rule.new_rows is not None, "asked of this rule alone"
        found, needed = self._seen.new_rows, rule.new_rows.at_least
        if found is None:
            return False, "nobody can say how many rows are unused"
        return found >= needed, f"{found} unused rows, {needed} are needed"

    def _age(self, rule: RuleSection) -> Told:
        assert rule.age is not None, "asked of this rule alone"
        if self._seen.trained_at is None:
            return False, "nobody can say when production was trained"
        days = (self._now - self._seen.trained_at) / 86400
        return (
            days > rule.age.days,
            f"production is {days:.1f} days old, more than {rule.age.days:g} is too old",
        )

    def _schedule(self, rule: RuleSection) -> Told:
        assert rule.schedule is not None, "asked of this rule alone"
        since = self._state.schedules.get(rule.key, self._now)
        last = last_time(rule.schedule, self._now)
        return last > since, f"the last time was {datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC"

    def _source(self, _: RuleSection) -> Told:
        fresh = sorted((self._seen.sources or frozenset()) - set(self._state.sources or ()))
        return bool(fresh), f"new sources: {', '.join(fresh) or 'none'}"

    def _manual(self, _: RuleSection) -> Told:
        asked = [f"{one.who}: {one.why}" for one in self._state.requests]
        return bool(asked), f"asked for by {'; '.join(asked) or 'nobody'}"

    def _loss(self, _: RuleSection) -> Told:
        fresh = sorted(self._seen.canary_losses - set(self._state.losses))
        return bool(fresh), f"lost trials: {', '.join(fresh) or 'none'}"


_OTHERS: dict[str, Callable[[RuleEyes, RuleSection], Told]] = {
    "new_rows": RuleEyes._rows,
    "age": RuleEyes._age,
    "schedule": RuleEyes._schedule,
    "new_source": RuleEyes._source,
    "manual": RuleEyes._manual,
    "canary_loss": RuleEyes._loss,
}


def _judged(rule: RuleSection, value: float) -> tuple[bool, bool]:
    """Whether it is in the event, and whether it is clear that it is not."""
    if rule.drift is not None:
        clear = rule.drift.above if rule.drift.clear_below is None else rule.drift.clear_below
        return value > rule.drift.above, value <= clear
    assert rule.drop is not None, "a rule of a metric has one"
    clear = rule.drop.below if rule.drop.clear_above is None else rule.drop.clear_above
    return value < rule.drop.below, value >= clear


def next_state(before: RuleState, is_in: bool, is_clear: bool, for_windows: int) -> RuleState:
    """After one more window: an event begins after so many windows in a row that are in it, and ends after as many that
    are clear of it."""
    streak = before.streak + 1 if is_in else 0
    clear_streak = before.clear_streak + 1 if is_clear else 0
    active, used = before.active, before.used
    if not active and streak >= for_windows:
        active, used = True, False
    elif active and clear_streak >= for_windows:
        active, used = False, False
    return RuleState(streak, clear_streak, active, used, before.by_dry_run and used)


def last_time(schedule: ScheduleCondition, now: float) -> float:
    """The last time of the schedule that is not after now."""
    zone = ZoneInfo(schedule.timezone)
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    for back in range(9):  # on one day a week; the first of nine days may lie ahead
        day = today - timedelta(days=back)
        moment = datetime.combine(day, schedule.hour, zone).timestamp()
        if DAYS[day.weekday()] in schedule.days and moment <= now:
            return moment
    raise AssertionError("every schedule has a time in nine days")
