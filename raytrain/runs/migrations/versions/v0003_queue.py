"""Jobs that wait, the queues that they wait in, and the schedulers that start them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "queues",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("max_cpus", sa.Double),
        sa.Column("max_gpus", sa.Double),
        sa.Column("max_memory_bytes", sa.BigInteger),
        sa.Column("max_running", sa.Integer),
    )
    op.create_table(
        "queue_schedulers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
    )
    _create_jobs()


def _create_jobs() -> None:
    op.create_table(
        "queue_jobs",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("queue", sa.String(80), nullable=False),
        sa.Column("priority", sa.String(2), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("words", sa.JSON, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("backend", sa.String(20), nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("package", sa.Text),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("run_id", sa.String(200)),
        sa.Column("cpus", sa.Double, nullable=False),
        sa.Column("gpus", sa.Double, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("max_retries", sa.Integer, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ready_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("num_starts", sa.Integer, nullable=False),
        sa.Column("num_failures", sa.Integer, nullable=False),
        sa.Column("num_losses", sa.Integer, nullable=False),
        sa.Column("wish", sa.String(20)),
        sa.Column("wished_at", sa.Double),
        sa.Column("scheduler", sa.String(200)),
        sa.Column("owner_host", sa.String(255)),
        sa.Column("owner_pid", sa.Integer),
        sa.Column("owner_process_started_at", sa.Double),
        sa.Column("heartbeat_at", sa.Double),
        sa.Column("exit_code", sa.Integer),
        sa.Column("exit_reason", sa.Text),
        sa.Column("log_tail", sa.Text),
    )
    op.create_index("queue_jobs_by_state", "queue_jobs", ["state", "created_at"])
