"""Rows of the pool that no run has yet, looked at again beside what came since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from raytrain.monitoring.learning.interaction import Interaction
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.runs.tables import interactions
from raytrain.storage.database import exclusive, translated_database_errors

_C = interactions.c
_MOST = 5_000


def earlier_rows(pool: InteractionPool, name: str | None) -> list[PooledRow]:
    """Beside which new ones are suspicious or not, the oldest first: those that no run has, and those that were set
    aside. What a person has let through counts no more."""
    ready = [one for one in pool.rows("ready", _MOST) if one.run_id is None and one.reason is None]
    rows = [*ready, *pool.rows("quarantined", _MOST), *pool.rows("refused", _MOST)]
    own = (one for one in rows if name is None or (one.model or "").partition("@")[0] == name)
    return sorted(own, key=lambda one: (one.at, one.id))


def as_interaction(row: PooledRow) -> Interaction:
    """As far as suspicions look at it."""
    assert row.prompt is not None and row.target is not None, "not forgotten"
    correction = row.target if row.source == "correction" else None
    return Interaction(
        row.id, row.at, "", row.user, True, row.model, row.digest, row.prompt, row.target, "stop", None, correction
    )  # fmt: skip


def set_aside(pool: InteractionPool, reasons: Mapping[str, str]) -> set[str]:
    """Rows that may be learned from, and that no run has by now: until a person says a word."""
    done: set[str] = set()
    with translated_database_errors(pool.engine), exclusive(pool.engine, "interactions") as connection:
        for name, reason in reasons.items():
            free = (_C.id == name) & (_C.state == "ready") & _C.run_id.is_(None)
            change = interactions.update().where(free).values(state="quarantined", reason=reason)
            if connection.execute(change).rowcount:
                done.add(name)
    return done


def take_back(pool: InteractionPool, ids: Sequence[str]) -> set[str]:
    """Answers that somebody liked and somebody has contradicted since, while no run has them: they are judged anew."""
    done: set[str] = set()
    if not ids:
        return done
    with translated_database_errors(pool.engine), exclusive(pool.engine, "interactions") as connection:
        for part in _parts(ids):
            free = _C.id.in_(part) & (_C.state == "ready") & _C.run_id.is_(None)
            liked = (_C.source == "answer") & (_C.score > 0) & _C.reason.is_(None)
            gone = interactions.delete().where(free & liked).returning(_C.id)
            done |= set(connection.execute(gone).scalars())
    return done


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(ids), 500):
        yield ids[begin : begin + 500]
