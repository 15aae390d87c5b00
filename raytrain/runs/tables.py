"""The tables of the records database. Times are seconds since the epoch (UTC).

A change here needs a step in migrations/versions/, which is what makes and changes them; a test holds both together.
"""

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

metadata = sqlalchemy.MetaData()

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


queues = Table(
    "queues",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("max_cpus", Double),
    Column("max_gpus", Double),
    Column("max_memory_bytes", BigInteger),
    Column("max_running", Integer),
)

queue_jobs = Table(
    "queue_jobs",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("queue", String(80), nullable=False),
    Column("priority", String(2), nullable=False),
    Column("user", String(200), nullable=False),
    Column("words", JSON, nullable=False),
    Column("folder", Text, nullable=False),
    Column("backend", String(20), nullable=False),
    Column("address", Text),
    Column("package", Text),
    Column("environment", JSON, nullable=False),
    Column("run_id", String(200)),
    Column("cpus", Double, nullable=False),
    Column("gpus", Double, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("gave_back_at", Double),
    Column("num_starts", Integer, nullable=False),  # the fence: what is told of an earlier start is not heard
    Column("num_failures", Integer, nullable=False),
    Column("num_losses", Integer, nullable=False),
    Column("wish", String(20)),
    Column("wished_at", Double),
    Column("scheduler", String(200)),
    Column("owner_host", String(255)),
    Column("owner_pid", Integer),
    Column("owner_process_started_at", Double),
    Column("heartbeat_at", Double),
    Column("exit_code", Integer),
    Column("exit_reason", Text),
    Column("log_tail", Text),
    Index("queue_jobs_by_state", "state", "created_at"),
)

queue_schedulers = Table(
    "queue_schedulers",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)

# What somebody asked, was answered and said of it, to be learned from. A person's rows can be taken out again.
interactions = Table(
    "interactions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Double, nullable=False),
    Column("user", String(64)),  # a pseudonym
    Column("model", Text),
    Column("digest", String(80)),
    Column("prompt", JSON(none_as_null=True)),  # NULL, as the target, once it is forgotten
    Column("target", Text),
    Column("source", String(20), nullable=False),
    Column("score", Double, nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Text),
    Column("collected_at", Double, nullable=False),
    Column("run_id", String(200)),  # the run that it is kept for; it is used once that has succeeded
    Index("interactions_by_state", "state", "at"),
    Index("interactions_by_user", "user"),
    Index("interactions_by_run", "run_id"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", String(20), nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("time", Double, nullable=False),
    Column("event", String(80), unique=True),  # a digest: what is found twice is one event
    Column("state", String(80)),  # a digest: what is told again of the subject, or what is new of it
    Column("taken_at", Double, nullable=False),
    Column("repeats", String(64)),
    Index("alerts_by_age", "taken_at"),
    Index("alerts_by_subject", "kind", "subject", "taken_at"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", ForeignKey("alerts.id"), primary_key=True),
    Column("channel", String(80), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("due_at", Double, nullable=False),
    Column("num_tries", Integer, nullable=False),  # the fence: what is told of an earlier try is not heard
    Column("claimed_until", Double),
    Column("ended_at", Double),
    Column("why", Text),
    Index("alert_deliveries_by_state", "state", "due_at"),
)

# Where each observer stood after its last look.
alert_observers = Table(
    "alert_observers",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("seen", JSON, nullable=False),
    Column("looked_at", Double, nullable=False),
)

# What is known between two decisions; whoever changes it has seen the number of changes.
trigger_states = Table(
    "trigger_states",
    metadata,
    Column("triggers", String(80), primary_key=True),
    Column("num_changes", BigInteger, nullable=False),
    Column("state", JSON, nullable=False),
    Column("changed_at", Double, nullable=False),
)

retrain_orders = Table(
    "retrain_orders",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("triggers", String(80), nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("series", String(200), nullable=False),
    Column("window", BigInteger, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("outcome", String(20)),
    Column("settled_at", Double),
    Column("why", Text),
    Index("retrain_orders_by_age", "created_at"),
)


def insert_into(table: Table, connection: sqlalchemy.Connection) -> Any:
    """An insert that takes ON CONFLICT, which SQLAlchemy keeps in the dialects of both databases."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
