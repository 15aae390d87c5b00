"""Interactions that models learn from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "interactions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("user", sa.String(64)),
        sa.Column("model", sa.Text),
        sa.Column("digest", sa.String(80)),
        sa.Column("prompt", sa.JSON(none_as_null=True)),
        sa.Column("target", sa.Text),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("collected_at", sa.Double, nullable=False),
        sa.Column("run_id", sa.String(200)),
    )
    op.create_index("interactions_by_state", "interactions", ["state", "at"])
    op.create_index("interactions_by_user", "interactions", ["user"])
    op.create_index("interactions_by_run", "interactions", ["run_id"])
