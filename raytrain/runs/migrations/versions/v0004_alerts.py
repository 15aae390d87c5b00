"""Alerts, their deliveries, and how far what is watched has been looked at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("severity", sa.String(20), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("event", sa.String(80), unique=True),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("repeats", sa.String(64)),
    )
    op.create_index("alerts_by_age", "alerts", ["taken_at"])
    op.create_index("alerts_by_subject", "alerts", ["kind", "subject", "taken_at"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.String(64), sa.ForeignKey("alerts.id"), primary_key=True),
        sa.Column("channel", sa.String(80), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("num_tries", sa.Integer, nullable=False),
        sa.Column("claimed_until", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("why", sa.Text),
    )
    op.create_index("alert_deliveries_by_state", "alert_deliveries", ["state", "due_at"])
    op.create_table(
        "alert_observers",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("seen", sa.JSON, nullable=False),
        sa.Column("looked_at", sa.Double, nullable=False),
    )
