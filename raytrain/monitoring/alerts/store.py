"""Alerts in the records database, which is the queue that outlives a kill: what is taken in, claimed, delivered.

Several processes and machines may take in and deliver. A delivery is claimed for some time before it is tried, by one
of them; where that one dies in it nobody knows whether it arrived, and after this time it is tried again, under the
same id, by which its reader can tell.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy
from sqlalchemy import and_, func, or_, select

from raytrain.errors import ConfigError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.routing import Route, Told
from raytrain.runs import tables
from raytrain.storage.database import exclusive, translated_database_errors
from raytrain.storage.manifest import digest_of

DeliveryState = Literal["waiting", "sending", "sent", "given_up"]
DELIVERY_STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)
CLAIM_S = 120.0
"""Longer than any try takes."""
_AT_ONCE = 0.0
"""When it is due if a person asks for it."""

_ALERTS, _DELIVERIES, _OBSERVERS = tables.alerts, tables.alert_deliveries, tables.alert_observers


@dataclass(frozen=True)
class Waiting:
    """A delivery that this process has claimed."""

    alert: Alert
    channel: str
    taken_at: float
    num_tries: int
    """With this one."""
    num_repeats: int
    """Of what was told before of the same, how often it was said again since without anybody being told."""
    is_asked_for: bool = False
    """A person wants it tried at once, whatever the hour."""


@dataclass(frozen=True)
class Stood:
    """A delivery as it stands."""

    channel: str
    state: DeliveryState
    due_at: float
    num_tries: int
    ended_at: float | None
    why: str | None


@dataclass(frozen=True)
class Kept:
    """An alert as it was taken in."""

    alert: Alert
    taken_at: float
    repeats: str | None
    deliveries: Sequence[Stood]


class AlertStore:
    """Safe to share between threads. Every method raises StorageError where the database cannot be used."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self.engine = engine

    def take_in(
        self, alert: Alert, decide: Callable[[Told | None], Route], now: float | None = None
    ) -> Route | None:
        """Keep an alert with the deliveries that `decide` gives it; None where it, or its event, is here already."""
        now = clock.time() if now is None else now
        event = _event_of(alert)
        with translated_database_errors(self.engine), exclusive(self.engine, "alerts") as connection:
            is_known = or_(_ALERTS.c.id == alert.id, *([_ALERTS.c.event == event] if event else []))
            if connection.execute(select(_ALERTS.c.id).where(is_known)).first() is not None:
                return None
            found = decide(_last_told(connection, alert))
            values = {**alert.as_dict(), "details": dict(alert.details), "event": event}
            values["state"] = _state_of(alert)
            connection.execute(_ALERTS.insert().values(**values, taken_at=now, repeats=found.repeats))
            for one in found.deliveries:
                connection.execute(
                    _DELIVERIES.insert().values(
                        alert_id=alert.id,
                        channel=one.channel,
                        state="waiting",
                        due_at=one.due_at,
                        num_tries=0,
                    )
                )
            return found

    def unknown(self, alerts: Sequence[Alert]) -> list[Alert]:
        """Those whose event nobody has taken in before."""
        events = {event: one for one in alerts if (event := _event_of(one)) is not None}
        query = select(_ALERTS.c.event).where(_ALERTS.c.event.in_(list(events)))
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            known = set(connection.execute(query).scalars()) if events else set()
        return [one for one in alerts if _event_of(one) not in known]

    def claim(self, channel: str, now: float) -> Waiting | None:
        """The oldest delivery of the channel that is due; it goes to one of all who ask at once."""
        with translated_database_errors(self.engine), exclusive(self.engine, "alerts") as connection:
            due = or_(
                and_(_DELIVERIES.c.state == "waiting", _DELIVERIES.c.due_at <= now),
                and_(_DELIVERIES.c.state == "sending", _DELIVERIES.c.claimed_until <= now),
            )
            query = select(_DELIVERIES.c.num_tries, _DELIVERIES.c.due_at, _ALERTS).join(_ALERTS)
            query = query.where(due, _DELIVERIES.c.channel == channel)
            query = query.order_by(_ALERTS.c.taken_at, _ALERTS.c.id).limit(1)
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            alert, num_tries = _alert_of(row), row["num_tries"] + 1
            this_one = and_(_DELIVERIES.c.alert_id == alert.id, _DELIVERIES.c.channel == channel)
            values = {"state": "sending", "claimed_until": now + CLAIM_S, "num_tries": num_tries}
            connection.execute(_DELIVERIES.update().where(this_one).values(values))
            taken_at = row["taken_at"]
            repeats = _repeats_before(connection, alert, taken_at)
            return Waiting(alert, channel, taken_at, num_tries, repeats, row["due_at"] == _AT_ONCE)

    def delivered(self, one: Waiting, now: float, why: str | None = None) -> bool:
        """why: what was wrong with it all the same. False where a later try has begun."""
        return self._ended(one, {"state": "sent", "ended_at": now, "why": why})

    def failed(self, one: Waiting, why: str, due_at: float | None, now: float) -> bool:
        """due_at: of the next try; None gives it up. False where a later try has begun."""
        if due_at is None:
            return self._ended(one, {"state": "given_up", "ended_at": now, "why": why})
        return self._ended(one, {"state": "waiting", "due_at": due_at, "why": why})

    def held_back(self, one: Waiting, due_at: float) -> bool:
        """Not tried, and so no try. False where a later one has begun."""
        return self._ended(one, {"state": "waiting", "due_at": due_at, "num_tries": one.num_tries - 1})

    def _ended(self, one: Waiting, values: Mapping[str, Any]) -> bool:
        this_try = and_(
            _DELIVERIES.c.alert_id == one.alert.id,
            _DELIVERIES.c.channel == one.channel,
            _DELIVERIES.c.state == "sending",
            _DELIVERIES.c.num_tries == one.num_tries,
        )
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            update = _DELIVERIES.update().where(this_try).values({**values, "claimed_until": None})
            return connection.execute(update).rowcount == 1

    def kept(
        self, *, state: DeliveryState | None = None, kind: str | None = None, limit: int = 50
    ) -> list[Kept]:
        """The newest first; `state`: those with a delivery that stands so."""
        wanted = [] if kind is None else [_ALERTS.c.kind == kind]
        if state is not None:
            standing = select(_DELIVERIES.c.alert_id).where(_DELIVERIES.c.state == state)
            wanted.append(_ALERTS.c.id.in_(standing))
        query = select(_ALERTS).where(*wanted).order_by(_ALERTS.c.taken_at.desc(), _ALERTS.c.id.desc())
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
            return [
                Kept(_alert_of(row), row["taken_at"], row["repeats"], _deliveries(connection, row["id"]))
                for row in rows
            ]

    def retry(self, alert_id: str) -> int:
        """Have tried at once, in quiet hours too, what waits or was given up of the alert whose id begins so; the
        number of its deliveries.

        Raises ConfigError where no alert, or more than one, has such an id.
        """
        with translated_database_errors(self.engine), exclusive(self.engine, "alerts") as connection:
            begins_so = _ALERTS.c.id.startswith(alert_id, autoescape=True)
            ids = connection.execute(select(_ALERTS.c.id).where(begins_so).limit(2)).scalars().all()
            if len(ids) != 1:
                raise ConfigError(
                    f"{alert_id!r} is not the id of one alert",
                    why="several ids begin so" if ids else "no id begins so",
                    fix="take one from `raytrain alerts list`",
                )
            open_ones = and_(
                _DELIVERIES.c.alert_id == ids[0], _DELIVERIES.c.state.in_(("waiting", "given_up"))
            )
            values = {"state": "waiting", "due_at": _AT_ONCE, "ended_at": None}
            return connection.execute(_DELIVERIES.update().where(open_ones).values(values)).rowcount

    def counts(self) -> dict[str, dict[str, int]]:
        """By channel, how many deliveries stand how."""
        query = select(_DELIVERIES.c.channel, _DELIVERIES.c.state, func.count()).group_by(
            _DELIVERIES.c.channel, _DELIVERIES.c.state
        )
        found: dict[str, dict[str, int]] = {}
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            for channel, state, count in connection.execute(query):
                found.setdefault(channel, {})[state] = count
        return found

    def forget_before(self, time: float) -> int:
        """Alerts that were taken in before, except those that something waits of; how many."""
        with translated_database_errors(self.engine), exclusive(self.engine, "alerts") as connection:
            waits = select(_DELIVERIES.c.alert_id).where(_DELIVERIES.c.state.in_(("waiting", "sending")))
            old = and_(_ALERTS.c.taken_at < time, _ALERTS.c.id.not_in(waits))
            gone = select(_ALERTS.c.id).where(old)
            connection.execute(_DELIVERIES.delete().where(_DELIVERIES.c.alert_id.in_(gone)))
            return connection.execute(_ALERTS.delete().where(old)).rowcount

    def seen(self, observer: str) -> tuple[Any, float | None]:
        """What `see` was last given, and when; None before the first look."""
        query = select(_OBSERVERS.c.seen, _OBSERVERS.c.looked_at).where(_OBSERVERS.c.name == observer)
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            row = connection.execute(query).first()
            return (None, None) if row is None else (row[0], row[1])

    def see(self, observer: str, seen: Any, now: float) -> None:
        """Call it when all that was found is raised: after a kill the same is found again, and known by its event."""
        values = {"seen": seen, "looked_at": now}
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            insert = tables.insert_into(_OBSERVERS, connection).values(name=observer, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))


def _event_of(alert: Alert) -> str | None:
    return None if alert.event is None else digest_of([alert.kind, alert.event])


def _state_of(alert: Alert) -> str | None:
    return None if alert.state is None else digest_of(alert.state)


def _last_told(connection: sqlalchemy.Connection, alert: Alert) -> Told | None:
    same = (_ALERTS.c.kind == alert.kind, _ALERTS.c.subject == alert.subject, _ALERTS.c.repeats.is_(None))
    query = select(_ALERTS.c.id, _ALERTS.c.time, _ALERTS.c.severity, _ALERTS.c.state).where(*same)
    row = connection.execute(query.order_by(_ALERTS.c.taken_at.desc(), _ALERTS.c.id).limit(1)).first()
    return None if row is None else Told(*row[:3], is_same=row[3] == _state_of(alert))


def _repeats_before(connection: sqlalchemy.Connection, alert: Alert, taken_at: float) -> int:
    """alert: as it is kept, so that its state is a digest."""
    same = (_ALERTS.c.kind == alert.kind, _ALERTS.c.subject == alert.subject)
    earlier = (*same, _ALERTS.c.repeats.is_(None), _ALERTS.c.taken_at < taken_at)
    query = select(_ALERTS.c.id, _ALERTS.c.state).where(*earlier)
    before = connection.execute(query.order_by(_ALERTS.c.taken_at.desc()).limit(1)).first()
    if before is None or before[1] != alert.state:
        return 0
    count = select(func.count()).select_from(_ALERTS).where(_ALERTS.c.repeats == before[0])
    return connection.execute(count).scalar() or 0


def _alert_of(row: Mapping[Any, Any]) -> Alert:
    return Alert(**{name: row[name] for name in Alert.__dataclass_fields__})


def _deliveries(connection: sqlalchemy.Connection, alert_id: str) -> list[Stood]:
    names = Stood.__dataclass_fields__
    query = select(*(_DELIVERIES.c[name] for name in names)).where(_DELIVERIES.c.alert_id == alert_id)
    return [Stood(*row) for row in connection.execute(query.order_by(_DELIVERIES.c.channel))]
