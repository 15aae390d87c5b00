"""The tables of the records database and their version. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from raytrain.errors import StorageError

SCHEMA_VERSION = 1

metadata = sqlalchemy.MetaData()

schema = Table(
    "raytrain_schema",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("config", JSON, nullable=False),
    Column("config_digest", String(80), nullable=False),
    Column("storage_uri", Text),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("owner_host", String(255)),
    Column("owner_pid", Integer),
    Column("owner_process_started_at", Double),
    Column("heartbeat_at", Double),
    Column("num_claims", Integer, nullable=False),  # a claim succeeds only over the number that it has seen
    Column("exit_reason", Text),
    Column("error", JSON(none_as_null=True)),
    Column("global_step", BigInteger, nullable=False),
    Column("max_steps", BigInteger),
    Column("stop_requested", Boolean, nullable=False),
    Index("runs_by_age", "created_at", "id"),
    Index("runs_by_state", "state"),
)

# The key allows one value a step and is the order in which a series is read; no row id beside it.
metrics = Table(
    "metrics",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("global_step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Double),  # NULL stands for NaN, which SQLite cannot hold
    Column("time", Double, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_by_run", "run_id", "id"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("uri", Text),
    Column("parents", JSON, nullable=False),
)

run_artifacts = Table(
    "run_artifacts",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("role", String(80), primary_key=True),
    Column("direction", String(10), primary_key=True),
    Column("digest", String(80), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("uri", Text),
    Column("time", Double, nullable=False),
    Index("run_artifacts_by_digest", "digest"),
)


def ensure_schema(engine: sqlalchemy.Engine) -> None:
    """Make the tables in a database that has none; StorageError where they are of another version."""
    version = _stored_version(engine)
    if version is None:
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    connection.execute(CreateIndex(index, if_not_exists=True))
            if connection.execute(sqlalchemy.select(schema.c.version)).scalar() is None:
                connection.execute(schema.insert().values(id=1, version=SCHEMA_VERSION))
        version = _stored_version(engine)
    if version != SCHEMA_VERSION:
        newer = version is not None and version > SCHEMA_VERSION
        raise StorageError(
            f"the records database has schema {version}, this raytrain reads {SCHEMA_VERSION}",
            why="it was written by a newer raytrain" if newer else "it was written by an older raytrain",
            fix="install the newer raytrain"
            if newer
            else "set the file aside and run `raytrain runs rebuild`",
        )


def _stored_version(engine: sqlalchemy.Engine) -> int | None:
    if not sqlalchemy.inspect(engine).has_table(schema.name):
        return None
    with engine.connect() as connection:
        return connection.execute(sqlalchemy.select(schema.c.version)).scalar()


def insert_into(table: Table, connection: sqlalchemy.Connection) -> Any:
    """An insert that takes ON CONFLICT, which SQLAlchemy keeps in the dialects of both databases."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
