"""Runs, their metrics and events, and the artifacts that they read and wrote."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("raytrain_schema"):
        return  # made by raytrain before it had migrations; the tables are these
    op.create_table(
        "raytrain_schema",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO raytrain_schema (id, version) VALUES (1, 1)")
    _create_runs()
    _create_what_belongs_to_a_run()


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("config_digest", sa.String(80), nullable=False),
        sa.Column("storage_uri", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("owner_host", sa.String(255)),
        sa.Column("owner_pid", sa.Integer),
        sa.Column("owner_process_started_at", sa.Double),
        sa.Column("heartbeat_at", sa.Double),
        sa.Column("num_claims", sa.Integer, nullable=False),
        sa.Column("exit_reason", sa.Text),
        sa.Column("error", sa.JSON),
        sa.Column("global_step", sa.BigInteger, nullable=False),
        sa.Column("max_steps", sa.BigInteger),
        sa.Column("stop_requested", sa.Boolean, nullable=False),
    )
    op.create_index("runs_by_age", "runs", ["created_at", "id"])
    op.create_index("runs_by_state", "runs", ["state"])


def _create_what_belongs_to_a_run() -> None:
    op.create_table(
        "metrics",
        sa.Column("run_id", sa.String(200), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("global_step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Double),
        sa.Column("time", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("run_id", sa.String(200), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("events_by_run", "events", ["run_id", "id"])
    op.create_table(
        "artifacts",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("uri", sa.Text),
        sa.Column("parents", sa.JSON, nullable=False),
    )
    op.create_table(
        "run_artifacts",
        sa.Column("run_id", sa.String(200), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("role", sa.String(80), primary_key=True),
        sa.Column("direction", sa.String(10), primary_key=True),
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("uri", sa.Text),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_index("run_artifacts_by_digest", "run_artifacts", ["digest"])
