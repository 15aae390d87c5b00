"""When a job that goes on has given its CPUs and GPUs back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("queue_jobs", sa.Column("gave_back_at", sa.Double))
