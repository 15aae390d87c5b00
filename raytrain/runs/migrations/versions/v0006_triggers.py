"""What triggers know between two decisions, and the retrainings that they ordered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "trigger_states",
        sa.Column("triggers", sa.String(80), primary_key=True),
        sa.Column("num_changes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
    )
    op.create_table(
        "retrain_orders",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("triggers", sa.String(80), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("series", sa.String(200), nullable=False),
        sa.Column("window", sa.BigInteger, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String(20)),
        sa.Column("settled_at", sa.Double),
        sa.Column("why", sa.Text),
    )
    op.create_index("retrain_orders_by_age", "retrain_orders", ["created_at"])
