"""The version of the tables in the records database: made, migrated forward, or refused, when it is opened.

A SQLite file belongs to one machine and is migrated by the first raytrain that opens it. A PostgreSQL database is
shared: a newer raytrain that changed it in passing would shut out all older ones at work, so there a person says when.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from sqlalchemy import column, select, table

from raytrain.errors import StorageError
from raytrain.storage.database import exclusive, translated_database_errors

HEAD = "0008"
"""The newest file in migrations/versions/."""

VERSION_TABLE = "raytrain_migrations"
"""Not Alembic's own default: Optuna keeps its studies in the same database and uses that one."""

_BEFORE_MIGRATIONS = "raytrain_schema"


@dataclass(frozen=True)
class Migrated:
    """`before` is None where the database was empty."""

    before: str | None
    after: str


def ensure_schema(engine: sqlalchemy.Engine) -> None:
    """Make the tables in a database that has none, and bring an older SQLite file to the present ones.

    Raises StorageError where the database is newer than the code, or older and shared with other machines.
    """
    with engine.connect() as connection:
        found = revision_in(connection)
    if found == HEAD:
        return
    _refuse_newer(engine, found)
    if found is not None and engine.dialect.name != "sqlite":
        raise StorageError(
            f"the records database has schema {found}, this raytrain works with {HEAD}",
            why="it was written by an older raytrain, and others may be at work with it now",
            fix="`raytrain runs migrate` brings it up; an older raytrain then refuses it, so let its runs end first",
        )
    migrate(engine)


def migrate(engine: sqlalchemy.Engine) -> Migrated:
    """Bring the database to HEAD, in one transaction; of several processes that try at once, one does it."""
    from alembic import command
    from alembic.config import Config

    with translated_database_errors(engine), exclusive(engine, "schema") as connection:
        before = revision_in(connection)  # again: another may have done it while this one waited
        _refuse_newer(engine, before)
        if before != HEAD:
            config = Config()
            folder = Path(__file__).parent / "migrations"
            config.set_main_option("script_location", str(folder).replace("%", "%%"))
            config.attributes.update(connection=connection, version_table=VERSION_TABLE)
            command.upgrade(config, HEAD)
    return Migrated(before, HEAD)


def revision_in(connection: sqlalchemy.Connection) -> str | None:
    """None in a database without our tables."""
    inspector = sqlalchemy.inspect(connection)
    if inspector.has_table(VERSION_TABLE):
        found: str | None = connection.execute(
            select(column("version_num")).select_from(table(VERSION_TABLE))
        ).scalar()
        return found
    return "0001" if inspector.has_table(_BEFORE_MIGRATIONS) else None


def _refuse_newer(engine: sqlalchemy.Engine, found: str | None) -> None:
    if found is not None and found > HEAD:
        name = engine.url.render_as_string(hide_password=True)
        raise StorageError(
            f"the records database {name} has schema {found}, this raytrain works with {HEAD}",
            why="it was written by a newer raytrain, and is never changed back",
            fix="install the newer raytrain, or name another database in RAYTRAIN_DATABASE or RAYTRAIN_HOME",
        )
