"""Optuna's storage in the records database: opened, refused or brought up as the records' own tables are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy

from raytrain.errors import StorageError
from raytrain.runs.schema import Migrated
from raytrain.storage.database import (
    LOCK_TIMEOUT_S,
    database_url,
    open_database,
    translated_database_errors,
)

_VERSION_TABLE = "alembic_version"
"""Optuna makes it last, when all others are there."""


def open_storage(url: str | None = None) -> Any:
    """The storage, whose own calls raise StorageError where the database is locked or away.

    Raises StorageError where it cannot be had, and where its tables are another Optuna's.
    """
    engine = open_database(url)
    storage = _storage_of(engine, url)
    before, head = storage.get_current_version(), storage.get_head_version()
    if before != head:
        _refuse_newer(engine, storage, before)
        raise StorageError(
            f"the searches in {_told(engine)} have schema {before}, the Optuna of this raytrain works with {head}",
            why="they were written by an older Optuna",
            fix="`raytrain runs migrate` brings them up; an older one then refuses them, so let its searches end first",
        )
    if engine.dialect.name == "sqlite":

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def _as_the_records(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=NORMAL")

        storage.engine.dispose()
    engine.dispose()
    return storage


def upgrade_storage(url: str | None = None) -> Migrated | None:
    """Bring the tables to this Optuna's, forward only; None in a database without searches."""
    engine = open_database(url)
    with translated_database_errors(engine):
        if not sqlalchemy.inspect(engine).has_table(_VERSION_TABLE):
            return None
    storage = _storage_of(engine, url)
    before, head = storage.get_current_version(), storage.get_head_version()
    if before != head:
        _refuse_newer(engine, storage, before)
        # Alembic sets up the logging of the whole process where it finds none.
        logging.getLogger().addHandler(logging.NullHandler())
        with _translated(engine):
            storage.upgrade()
    engine.dispose()
    return Migrated(before, head)


def _storage_of(engine: sqlalchemy.Engine, url: str | None) -> Any:
    import optuna

    logging.getLogger("alembic").setLevel(logging.WARNING)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if engine.dialect.name == "sqlite":
        options = {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
    with _translated(engine):
        # The connection makes a SQLite file with the write-ahead log, which stays its mode.
        has_tables = sqlalchemy.inspect(engine).has_table(_VERSION_TABLE)
        storage = optuna.storages.RDBStorage(
            url or database_url(),
            engine_kwargs=options,
            skip_compatibility_check=True,
            skip_table_creation=has_tables,
        )

    @sqlalchemy.event.listens_for(storage.engine, "handle_error")
    def _explain(context: sqlalchemy.engine.ExceptionContext) -> None:
        """Before Optuna sees it, which tells of all errors as "invalid data", and waits for a lock five times over."""
        error = context.sqlalchemy_exception
        if error is not None and _is_outage(error) and not context.is_pre_ping:
            with translated_database_errors(engine):
                raise error

    return storage


def _is_outage(error: sqlalchemy.exc.StatementError) -> bool:
    """Not what Optuna itself mends: it tries again after a deadlock, and asks otherwise for very many trials."""
    if not isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
        return False
    return not any(word in str(error.orig) for word in ("deadlock", "too many SQL variables"))


@contextmanager
def _translated(engine: sqlalchemy.Engine) -> Iterator[None]:
    """StorageError for what the database raises, also where Optuna has packed it."""
    import optuna

    try:
        with translated_database_errors(engine):
            yield
    except optuna.exceptions.StorageInternalError as error:
        cause = error.__cause__
        if not isinstance(cause, sqlalchemy.exc.DBAPIError):
            raise
        with translated_database_errors(engine):
            raise cause from None


def _refuse_newer(engine: sqlalchemy.Engine, storage: Any, found: str) -> None:
    if found not in storage.get_all_versions():
        raise StorageError(
            f"the searches in {_told(engine)} have schema {found}, which the Optuna of this raytrain does not know",
            why="they were written by a newer Optuna, and are never changed back",
            fix="install the newer raytrain, or name another database in RAYTRAIN_DATABASE or RAYTRAIN_HOME",
        )


def _told(engine: sqlalchemy.Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
