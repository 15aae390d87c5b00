"""The records database: SQLite (WAL) under RAYTRAIN_HOME, or PostgreSQL where RAYTRAIN_DATABASE names one."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event

from raytrain.errors import StorageError
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import translated_errors
from raytrain.storage.lock_holders import lock_holders, told

LOCK_TIMEOUT_S = 30.0


class DamagedDatabaseError(StorageError):
    """The SQLite file is no database, or its pages do not agree with each other."""


def database_url() -> str:
    """`$RAYTRAIN_DATABASE` (an SQLAlchemy URL), or a SQLite file under RAYTRAIN_HOME."""
    return os.environ.get("RAYTRAIN_DATABASE") or f"sqlite:///{raytrain_home() / 'raytrain.db'}"


def open_database(url: str | None = None) -> sqlalchemy.Engine:
    """An engine whose SQLite connections use WAL and wait up to LOCK_TIMEOUT_S for a writer.

    A SQLite file that may not be written is opened to read. Raises StorageError where the database cannot be opened.
    """
    url = url or database_url()
    parsed = None
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() != "sqlite":
            # A session that is in others' way can be told from the rest.
            named = {"application_name": f"raytrain, process {os.getpid()} on {socket.gethostname()}"[:63]}
            options = named if parsed.get_driver_name() in ("psycopg", "psycopg2") else {}
            return sqlalchemy.create_engine(parsed, pool_pre_ping=True, connect_args=options)
        if parsed.database and not parsed.database.startswith((":memory:", "file:")):
            file = Path(parsed.database).absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
                return sqlalchemy.create_engine(parsed, creator=lambda: _connection_to_read(file))
        engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": LOCK_TIMEOUT_S})
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError, OSError) as error:
        # A URL may hold a password; one that cannot be parsed is not shown at all.
        place = "RAYTRAIN_DATABASE" if parsed is None else parsed.render_as_string(hide_password=True)
        raise StorageError(
            f"the records database {place} cannot be opened",
            why=type(error).__name__ if parsed is None else str(error),
            fix="set RAYTRAIN_DATABASE to an SQLAlchemy URL, or RAYTRAIN_HOME to a writable folder",
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _connection_to_read(file: Path) -> sqlite3.Connection:
    """SQLite reads a WAL database beside its log, or alone where nobody has it open to write."""
    is_open = file.with_name(f"{file.name}-wal").exists()
    uri = f"{file.as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    return sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S, check_same_thread=False)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch once. SQLite does not wait for its lock timeout here, so two first openers must take turns."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def exclusive(engine: sqlalchemy.Engine, name: str) -> Iterator[sqlalchemy.Connection]:
    """A transaction beside which no other of this name goes on, in any process; it waits LOCK_TIMEOUT_S for its turn.

    In SQLite no other transaction writes meanwhile, whatever its name.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S * 1000:.0f}ms'")
            key = zlib.crc32(f"raytrain {name}".encode())
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(key)))
        yield connection


@contextmanager
def translated_database_errors(engine: sqlalchemy.Engine) -> Iterator[None]:
    """Turn what the database driver raises inside the block into a StorageError with its remedy."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise _explained(engine, error) from error


def _explained(engine: sqlalchemy.Engine, error: sqlalchemy.exc.DBAPIError) -> StorageError:
    # A file is told by its path; a server's URL must not carry its password into a log.
    name = (
        engine.url.database
        if engine.dialect.name == "sqlite"
        else engine.url.render_as_string(hide_password=True)
    )
    why = " ".join(str(error.orig).split())
    what, fix = (
        f"the records database {name} cannot be used",
        "check that it is reachable, then run the command again",
    )
    if "file is not a database" in why or "malformed" in why:
        return DamagedDatabaseError(
            f"the records database {name} is damaged",
            why=why,
            fix="run `raytrain runs rebuild`: it moves the damaged file aside and fills a new one from "
            "the run folders and manifests",
        )
    if "locked" in why or "lock timeout" in why:
        holders = lock_holders(engine)
        what = f"the records database {name} stayed locked for {LOCK_TIMEOUT_S:g} s"
        if holders:
            has_it = "open in" if engine.dialect.name == "sqlite" else "locks are held by"
            why = f"{why}; {has_it} {told(holders)}"
        fix = "wait for that process, or end it, then run the command again; for several machines use PostgreSQL"
    elif "readonly" in why or "unable to open" in why:
        fix = "give this user the right to write the file and its folder, or set RAYTRAIN_HOME"
    elif "full" in why:
        fix = "free space there; what was recorded before is whole"
    elif engine.dialect.name != "sqlite":
        fix = "check RAYTRAIN_DATABASE, the server and the user's rights"
    return StorageError(what, why=why, fix=fix)


def check_database_whole(engine: sqlalchemy.Engine) -> None:
    """Raises DamagedDatabaseError where pages of a SQLite file do not agree with each other."""
    if engine.dialect.name != "sqlite":
        return
    with translated_database_errors(engine), engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise DamagedDatabaseError(
            f"the records database {engine.url.database} is damaged",
            why=str(found),
            fix="run `raytrain runs rebuild`",
        )


def set_database_aside() -> Path:
    """Move the SQLite file with its write-ahead log to a name with the time in it; returns the new place.

    Raises StorageError where the database is no file of ours to move.
    """
    url = sqlalchemy.make_url(database_url())
    if url.get_backend_name() != "sqlite" or not url.database:
        raise StorageError(
            "the records database cannot be moved aside",
            why="it is no SQLite file",
            fix="restore the server's database from its backup, or name an empty one in RAYTRAIN_DATABASE",
        )
    file = Path(url.database)
    aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    with translated_errors(file, "move aside"):
        file.rename(aside)
        log = file.with_name(f"{file.name}-wal")
        if log.exists():  # of what was committed last it may have the only copy
            log.rename(aside.with_name(f"{aside.name}-wal"))
        file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
    return aside
