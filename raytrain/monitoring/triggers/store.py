"""The state of triggers and their orders in the records database: of several who decide at once, one acts."""

from __future__ import annotations

import time as clock
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import and_, select

from raytrain.errors import ConfigError
from raytrain.monitoring.triggers.deciding import decide, settle
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import (
    Decision,
    Order,
    Outcome,
    Request,
    Seen,
    State,
    state_as_json,
    state_of_json,
)
from raytrain.runs import tables
from raytrain.storage.database import translated_database_errors

_STATES, _ORDERS = tables.trigger_states, tables.retrain_orders


@dataclass(frozen=True)
class Ordered:
    """An order as it stands; without an outcome it is open."""

    order: Order
    outcome: Outcome | None
    settled_at: float | None
    why: str | None

    @property
    def is_open(self) -> bool:
        return self.outcome is None and not self.order.dry_run


class TriggerStore:
    """Safe to share between threads. Every method raises StorageError where the database cannot be used."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine

    def state(self, triggers: str) -> State:
        return self._read(triggers)[0]

    def decide(self, section: TriggersSection, seen: Seen, now: float | None = None) -> Decision:
        """Decide, and keep the state with the order in one transaction. Where somebody else has decided meanwhile, it
        is decided anew on what he left: these windows are decided on then, and lead to nothing twice."""
        now = clock.time() if now is None else now
        while True:
            state, num_changes = self._read(section.triggers)
            decision = decide(section, state, seen, now)
            if decision.state == state and decision.order is None:
                return decision
            if self._change(section.triggers, num_changes, decision.state, now, order=decision.order):
                return decision

    def request(self, section: TriggersSection, who: str, why: str, now: float | None = None) -> Request:
        """Ask for a retraining by hand. Raises ConfigError where no rule listens to that."""
        if all(one.name != "manual" for one in section.when.leaves()):
            raise ConfigError(
                f"{section.triggers} takes no requests",
                why="none of its rules is `manual: true`",
                fix="write `any: [{manual: true}, …]` under `when`",
            )
        now = clock.time() if now is None else now
        asked = Request(uuid.uuid4().hex, who, why, now)
        self._until_kept(
            section.triggers, lambda state: replace(state, requests=(*state.requests, asked)), now
        )
        return asked

    def settle(
        self,
        section: TriggersSection,
        order_id: str,
        outcome: Outcome,
        why: str = "",
        now: float | None = None,
    ) -> Ordered:
        """Say what came of an order, once: the same again changes nothing. Raises ConfigError where it has another
        outcome, or there is no such order that is open."""
        now = clock.time() if now is None else now
        found = self.order(order_id)
        if found.outcome is None:
            done = {"outcome": outcome, "settled_at": now, "why": why}
            self._until_kept(
                section.triggers,
                lambda state: settle(section, state, order_id, outcome),
                now,
                settled=(order_id, done),
            )
            found = self.order(order_id)
        if found.outcome != outcome:
            raise ConfigError(
                f"the order {order_id} is done with",
                why=f"it {found.outcome}" + (f": {found.why}" if found.why else ""),
                fix="see `raytrain triggers orders`",
            )
        return found

    def order(self, order_id: str) -> Ordered:
        """Raises ConfigError where it is not there."""
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            row = connection.execute(select(_ORDERS).where(_ORDERS.c.id == order_id)).mappings().first()
        if row is None:
            raise ConfigError(
                f"there is no order {order_id}", why="no id is this one", fix="see `raytrain triggers orders`"
            )
        return _ordered(row)

    def orders(self, triggers: str | None = None, limit: int = 50) -> list[Ordered]:
        """The newest first."""
        wanted = [] if triggers is None else [_ORDERS.c.triggers == triggers]
        newest = select(_ORDERS).where(*wanted).order_by(_ORDERS.c.created_at.desc(), _ORDERS.c.id.desc())
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            return [_ordered(row) for row in connection.execute(newest.limit(limit)).mappings()]

    def _read(self, triggers: str) -> tuple[State, int]:
        """And how often it was changed; -1 where there is none yet."""
        query = select(_STATES.c.state, _STATES.c.num_changes).where(_STATES.c.triggers == triggers)
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            row = connection.execute(query).first()
        return (State(), -1) if row is None else (state_of_json(row[0]), int(row[1]))

    def _until_kept(
        self,
        triggers: str,
        change: Callable[[State], State],
        now: float,
        settled: tuple[str, Mapping[str, Any]] | None = None,
    ) -> None:
        while True:
            state, num_changes = self._read(triggers)
            if settled is not None and self.order(settled[0]).outcome is not None:
                return  # somebody else has said so meanwhile
            if self._change(triggers, num_changes, change(state), now, settled=settled):
                return

    def _change(
        self,
        triggers: str,
        num_changes: int,
        state: State,
        now: float,
        *,
        order: Order | None = None,
        settled: tuple[str, Mapping[str, Any]] | None = None,
    ) -> bool:
        """All of it, or nothing where somebody has changed the state since it was read."""
        values = {"state": state_as_json(state), "num_changes": num_changes + 1, "changed_at": now}
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            if num_changes < 0:
                insert = tables.insert_into(_STATES, connection).values(triggers=triggers, **values)
                # How many rows an insert made is not told by every driver; what it returns is.
                added = insert.on_conflict_do_nothing().returning(_STATES.c.triggers)
                is_changed = connection.execute(added).first() is not None
            else:
                unchanged = and_(_STATES.c.triggers == triggers, _STATES.c.num_changes == num_changes)
                is_changed = (
                    connection.execute(_STATES.update().where(unchanged).values(values)).rowcount == 1
                )
            if not is_changed:
                return False
            if order is not None:
                connection.execute(_ORDERS.insert().values(_values_of(order)))
            if settled is not None:
                connection.execute(
                    _ORDERS.update().where(_ORDERS.c.id == settled[0]).values(dict(settled[1]))
                )
            return True


def _values_of(order: Order) -> dict[str, Any]:
    values = {name: getattr(order, name) for name in Order.__dataclass_fields__ if name != "time"}
    return {**values, "created_at": order.time, "reasons": list(order.reasons)}


def _ordered(row: Mapping[Any, Any]) -> Ordered:
    order = Order(
        row["id"], row["triggers"], row["number"], row["created_at"], tuple(row["reasons"]), row["series"],
        row["window"], row["dry_run"],
    )  # fmt: skip
    return Ordered(order, row["outcome"], row["settled_at"], row["why"])
