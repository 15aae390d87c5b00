"""The records database: SQLite (WAL) under RAYTRAIN_HOME, or PostgreSQL where RAYTRAIN_DATABASE names one."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import sqlalchemy
from sqlalchemy import event

from raytrain.errors import StorageError
from raytrain.storage.home import raytrain_home


def database_url() -> str:
    """`$RAYTRAIN_DATABASE` (an SQLAlchemy URL), or a SQLite file under RAYTRAIN_HOME."""
    return os.environ.get("RAYTRAIN_DATABASE") or f"sqlite:///{raytrain_home() / 'raytrain.db'}"


def open_database(url: str | None = None) -> sqlalchemy.Engine:
    """An engine whose SQLite connections use WAL and wait up to 30 s for a writer.

    Raises StorageError where the database cannot be opened.
    """
    url = url or database_url()
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return sqlalchemy.create_engine(parsed, pool_pre_ping=True)
        if parsed.database and parsed.database != ":memory:":
            raytrain_home().mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": 30})
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError, OSError) as error:
        raise StorageError(
            f"the records database {url!r} cannot be opened",
            why=str(error),
            fix="set RAYTRAIN_DATABASE to an SQLAlchemy URL, or RAYTRAIN_HOME to a folder that can be written",
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine
