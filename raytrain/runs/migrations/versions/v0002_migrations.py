"""From here on the steps are counted by Alembic; a raytrain from before must refuse the database."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # The raytrain before this one looks here and takes 1 alone; where the table is missing, it makes all anew.
    op.execute("UPDATE raytrain_schema SET version = 2 WHERE id = 1")
