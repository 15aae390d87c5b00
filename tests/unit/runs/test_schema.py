"""The tables of the records database: made, migrated forward once, and refused where they are newer."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
from commands import Told

from raytrain.errors import StorageError
from raytrain.runs import schema, tables
from raytrain.runs.records import open_records
from raytrain.storage import database
from raytrain.storage.database import exclusive, open_database

pytestmark = pytest.mark.whole

BEFORE_MIGRATIONS = """
CREATE TABLE raytrain_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE runs (
    id VARCHAR(200) NOT NULL PRIMARY KEY, kind VARCHAR(40) NOT NULL, name VARCHAR(200) NOT NULL,
    state VARCHAR(20) NOT NULL, config JSON NOT NULL, config_digest VARCHAR(80) NOT NULL, storage_uri TEXT,
    created_at DOUBLE PRECISION NOT NULL, started_at DOUBLE PRECISION, ended_at DOUBLE PRECISION,
    owner_host VARCHAR(255), owner_pid INTEGER, owner_process_started_at DOUBLE PRECISION,
    heartbeat_at DOUBLE PRECISION, num_claims INTEGER NOT NULL, exit_reason TEXT, error JSON,
    global_step BIGINT NOT NULL, max_steps BIGINT, stop_requested BOOLEAN NOT NULL);
CREATE TABLE metrics (
    run_id VARCHAR(200) NOT NULL REFERENCES runs (id), key TEXT NOT NULL, global_step BIGINT NOT NULL,
    value DOUBLE PRECISION, time DOUBLE PRECISION NOT NULL, PRIMARY KEY (run_id, key, global_step));
CREATE TABLE events (
    id INTEGER NOT NULL PRIMARY KEY, run_id VARCHAR(200) NOT NULL REFERENCES runs (id),
    time DOUBLE PRECISION NOT NULL, kind VARCHAR(40) NOT NULL, message TEXT NOT NULL, data JSON NOT NULL);
CREATE TABLE artifacts (
    digest VARCHAR(80) NOT NULL PRIMARY KEY, kind VARCHAR(40) NOT NULL, uri TEXT, parents JSON NOT NULL);
CREATE TABLE run_artifacts (
    run_id VARCHAR(200) NOT NULL REFERENCES runs (id), role VARCHAR(80) NOT NULL, direction VARCHAR(10) NOT NULL,
    digest VARCHAR(80) NOT NULL, kind VARCHAR(40) NOT NULL, uri TEXT, time DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (run_id, role, direction, digest));
INSERT INTO raytrain_schema VALUES (1, 1);
INSERT INTO runs VALUES ('old-1', 'train', 'old', 'succeeded', '{"train": {"seed": 7}}', 'sha256:00', NULL, 5.0,
    6.0, 9.0, 'here', 1, 1.0, 9.0, 1, NULL, 'null', 40, 40, FALSE);
INSERT INTO metrics VALUES ('old-1', 'train/loss', 1, 2.5, 6.5);
"""


def fill_as_before_migrations(url: str) -> None:
    engine = open_database(url)
    with engine.begin() as connection:
        for statement in BEFORE_MIGRATIONS.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    engine.dispose()


def test_the_newest_step_is_the_head() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_the_steps_make_the_tables_that_the_code_uses(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = open_records(database_url).engine
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, tables.metadata)
    beside = {schema.VERSION_TABLE, "raytrain_schema"}
    assert [one for one in differences if not (one[0] == "remove_table" and one[1].name in beside)] == []


def test_an_older_database_keeps_what_is_in_it(
    database_url: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_as_before_migrations(database_url)
    monkeypatch.setenv("RAYTRAIN_DATABASE", database_url)
    if database_url.startswith("postgresql"):
        with pytest.raises(StorageError, match="has schema 0001") as caught:
            open_records()
        assert "older raytrain" in caught.value.why and "`raytrain runs migrate`" in caught.value.fix
        assert told("runs", "migrate") == (0, {"before": "0001", "after": schema.HEAD, "searches": None})
    records = open_records()
    run = records.get_run("old-1")
    assert (run.state, run.global_step, run.error) == ("succeeded", 40, None)
    assert records.metrics("old-1")["train/loss"][0].value == 2.5
    assert told("runs", "migrate") == (0, {"before": schema.HEAD, "after": schema.HEAD, "searches": None})
    with records.engine.connect() as connection:
        seen = connection.exec_driver_sql("SELECT version FROM raytrain_schema").scalar()
    assert seen == 2, "the raytrain before migrations takes 1 alone"
    records.close()


def test_a_newer_database_is_refused_and_left_alone(
    database_url: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTRAIN_DATABASE", database_url)
    engine = open_records().engine
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    engine.dispose()
    for words in (["runs", "list"], ["runs", "migrate"]):
        code, found = told(*words)
        assert code == StorageError.exit_code
        assert "has schema 9999" in found["error"]["what"] and "newer raytrain" in found["error"]["why"]
        assert "install the newer raytrain" in found["error"]["fix"]


def test_a_step_that_fails_leaves_the_database_as_it_was(database_url: str) -> None:
    """Two tables are made before the third is found to be in the way."""
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE metrics (mine INTEGER)")
    with pytest.raises(StorageError, match="cannot be used"):
        open_records(database_url)
    assert sqlalchemy.inspect(engine).get_table_names() == ["metrics"]
    engine.dispose()


def _open_at_once(url: str, barrier: object, found: multiprocessing.Queue[str]) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]
    try:
        found.put(str(schema.migrate(open_database(url)).before))
    except BaseException as error:
        found.put(f"{type(error).__name__}: {error}")
        raise


@pytest.mark.slow
@pytest.mark.parametrize("is_old", [True, False], ids=["old", "empty"])
def test_of_processes_that_migrate_at_once_one_does_it(database_url: str, is_old: bool) -> None:
    if is_old:
        fill_as_before_migrations(database_url)
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open_at_once, args=(database_url, barrier, found)) for _ in range(4)]
    for one in processes:
        one.start()
    answers = sorted(found.get(timeout=120) for _ in processes)
    for one in processes:
        one.join(60)
    assert answers == sorted([*[schema.HEAD] * 3, "0001" if is_old else "None"])


HOLD = """
import sys, time, sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@pytest.mark.parametrize("held_s", [0.7, 60.0])
def test_a_locked_old_file_is_waited_for_and_then_its_holder_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, held_s: float
) -> None:
    fill_as_before_migrations(database.database_url())
    file = home / "raytrain.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, file, str(held_s)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 30.0 if held_s < 1 else 0.3)
        started = time.monotonic()
        if held_s < 1:
            assert open_records().get_run("old-1").state == "succeeded"
            return
        with pytest.raises(StorageError, match=r"stayed locked for 0\.3 s") as caught:
            open_records()
        assert time.monotonic() - started < 10
        assert f"process {holder.pid} (" in caught.value.why
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
def test_a_locked_server_names_the_session(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from postgres_server import new_database

    url = new_database(postgres, "locked")
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.3)
    holder = open_database(url)
    with (
        exclusive(holder, "schema"),
        pytest.raises(StorageError, match=r"stayed locked for 0\.3 s") as caught,
    ):
        open_records(url)
    assert "of raytrain (raytrain, process" in caught.value.why
    assert open_records(url).list_runs().total == 0
    holder.dispose()


def test_an_open_database_costs_no_alembic(home: Path) -> None:
    """It takes longer to import than the question takes."""
    open_records().close()
    script = (
        "import sys; from raytrain.runs.records import open_records; open_records(); "
        "print('alembic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_a_study_of_optuna_lives_in_the_same_database(home: Path) -> None:
    """It keeps its own version in the table of Alembic's default name."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    open_records().close()
    study = optuna.create_study(storage=database.database_url(), study_name="both")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert open_records().list_runs().total == 0
    assert len(optuna.load_study(storage=database.database_url(), study_name="both").trials) == 1
