"""What Alembic runs to reach the database: `raytrain.runs.schema` hands it a transaction that is already open."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
with context.begin_transaction():
    context.run_migrations()
