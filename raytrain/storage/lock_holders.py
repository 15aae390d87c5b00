"""Who keeps a database from being written, for the person who waits for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
import sqlalchemy

_MOST_TOLD = 3

# Sessions that hold a lock which another session waits for, or raytrain's own advisory locks.
_POSTGRESQL_HOLDERS = sqlalchemy.text(
    "SELECT DISTINCT a.pid, a.application_name, a.usename, host(a.client_addr) AS host FROM pg_locks l "
    "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND a.pid <> pg_backend_pid() "
    "AND a.datname = current_database() AND (l.locktype = 'advisory' OR l.mode LIKE '%ExclusiveLock') "
    "AND l.locktype <> 'virtualxid' AND l.locktype <> 'transactionid' ORDER BY a.pid"
)


def lock_holders(engine: sqlalchemy.Engine) -> list[str]:
    """Processes that have the SQLite file open, or sessions with locks on the server; empty where nobody is seen."""
    if engine.dialect.name == "sqlite":
        return _processes_with_open(Path(engine.url.database)) if engine.url.database else []
    with suppress(sqlalchemy.exc.SQLAlchemyError), engine.connect() as connection:
        rows = connection.execute(_POSTGRESQL_HOLDERS).all()
        return [
            f"session {row.pid} of {row.usename} ({row.application_name or 'unnamed'}"
            f"{f', from {row.host}' if row.host else ''})"
            for row in rows
        ]
    return []


def _processes_with_open(file: Path) -> list[str]:
    """Only those of this user can be looked into, on most systems."""
    wanted, found = str(file.resolve()), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(one.path == wanted for one in process.open_files()):
                command = " ".join(process.cmdline())
                found.append(f"process {process.pid} ({command[:120]})")
    return found


def told(holders: list[str]) -> str:
    more = f" and {len(holders) - _MOST_TOLD} more" if len(holders) > _MOST_TOLD else ""
    return "; ".join(holders[:_MOST_TOLD]) + more
