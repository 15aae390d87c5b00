"""Optuna's tables in the records database: older, newer, locked and away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from conftest_search import RecipeMaker

from raytrain.errors import StorageError
from raytrain.runs.records import open_records
from raytrain.storage import database
from raytrain.storage.database import open_database
from raytrain.training.outcome import TrainResult
from raytrain.tuning import study_storage, trial
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.study_storage import open_storage, upgrade_storage
from raytrain.tuning.task import TrialTask
from raytrain.tuning.trial import TrialContext, TrialWatcher, carry_out

pytestmark = pytest.mark.whole

HEAD = "v3.2.0.a"
"""Of Optuna 5.0."""
BEFORE = "v3.0.0.d"
Told = Callable[..., tuple[int, dict[str, Any]]]


def make_older(url: str) -> None:
    """As an Optuna before 3.2 left it: without the index that its last step adds."""
    engine = open_database(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_trials_study_id")
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{BEFORE}'")
        connection.exec_driver_sql("UPDATE version_info SET library_version = '3.1.0'")
    engine.dispose()


def indexes(url: str) -> set[str | None]:
    engine = open_database(url)
    found = {one["name"] for one in sqlalchemy.inspect(engine).get_indexes("trials")}
    engine.dispose()
    return found


def test_older_tables_are_refused_and_migrate_brings_them_up(
    database_url: str, told: Told, tune_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTRAIN_DATABASE", database_url)
    open_records().close()
    assert told("runs", "migrate")[1]["searches"] is None, "nobody has searched yet, and no table is made"
    assert upgrade_storage() is None
    memory = StudyMemory(tune_recipe(), "s")
    number, values = memory.ask()
    memory.study._storage._backend.engine.dispose()
    make_older(database_url)
    with pytest.raises(StorageError) as caught:
        StudyMemory(tune_recipe(), "s")
    assert f"have schema {BEFORE}, the Optuna of this raytrain works with {HEAD}" in caught.value.what
    assert "`raytrain runs migrate`" in caught.value.fix
    for before in (BEFORE, HEAD):
        code, found = told("runs", "migrate")
        assert (code, found["searches"]) == (0, {"before": before, "after": HEAD})
    assert "trials_study_id_key" in indexes(database_url), "the step itself was made"
    after = StudyMemory(tune_recipe(), "s")
    assert after.trial(number).values == values


def test_newer_tables_are_refused_and_left_alone(home: Path, told: Told) -> None:
    open_records().close()
    open_storage()
    with open_database().begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    with pytest.raises(StorageError) as caught:
        open_storage()
    assert "have schema v9.0.0.a" in caught.value.what
    assert "install the newer raytrain" in caught.value.fix
    code, found = told("runs", "migrate")
    assert (code, found["error"]["what"]) == (StorageError.exit_code, caught.value.what)


@pytest.fixture
def held(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], sqlite3.Connection]:
    """Has another process write to the records database, from the call on."""
    for module in (database, study_storage):
        monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.2)

    def hold() -> sqlite3.Connection:
        holder = sqlite3.connect(home / "raytrain.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        return holder

    return hold


def test_a_locked_database_is_told_as_that_of_the_records(
    tune_recipe: RecipeMaker, held: Callable[[], sqlite3.Connection]
) -> None:
    open_records()
    recipe = tune_recipe()
    memory = StudyMemory(recipe, "s")
    number, _ = memory.ask()
    trial_memory = TrialMemory(recipe, "s", number)
    holder = held()
    writes: list[Callable[[], Any]] = [
        memory.ask,
        lambda: memory.note(number, {"a": 1}),
        lambda: memory.keep("a", 1),
        lambda: memory.tell_complete(number, [1.0]),
        lambda: memory.tell_failed(number, "why"),
        lambda: trial_memory.report(1.0, 5),
        lambda: StudyMemory(recipe, "another"),
    ]
    for write in writes:
        with pytest.raises(StorageError, match=r"stayed locked for 0\.2 s"):
            write()
    assert memory.trial(number).state == "running", "readers go on"
    holder.execute("ROLLBACK")
    memory.tell_complete(number, [1.0])
    assert memory.trial(number).objectives == [1.0]


def test_a_trial_that_meets_a_locked_database_is_interrupted_and_has_not_failed(
    tune_recipe: RecipeMaker, held: Callable[[], sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_records()
    recipe = tune_recipe()
    task = Chooser(StudyMemory(recipe, "s"), print).next()
    assert isinstance(task, TrialTask)
    holders: list[sqlite3.Connection] = []

    def training(_spec: Any, *, run_id: str, observer: TrialWatcher, verbose: bool) -> TrainResult:
        observer.plan(max_steps=40)
        holders.append(held())
        observer.metrics(5, {"eval/loss": 1.0})
        raise AssertionError(f"{run_id} was told with nobody to hear it: {verbose}")

    monkeypatch.setattr(trial, "train", training)
    ended = carry_out(task, TrialContext(recipe, "s", {}, "."), lambda _told: None)
    assert (ended.state, ended.global_step) == ("outage", 5)
    assert "stayed locked" in (ended.reason or "")
    assert ended.fix is not None


def test_a_trial_that_cannot_open_the_database_is_interrupted(
    tune_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tune_recipe()
    task = Chooser(StudyMemory(recipe, "s"), print).next()
    assert isinstance(task, TrialTask)

    def away() -> Any:
        raise StorageError("it cannot be used", why="nobody answers", fix="start it")

    monkeypatch.setattr(trial, "open_records", away)
    ended = carry_out(task, TrialContext(recipe, "s", {}, "."), lambda _told: None)
    assert (ended.state, ended.reason, ended.fix) == (
        "outage", "it cannot be used: nobody answers", "start it",
    )  # fmt: skip


@pytest.mark.slow
def test_a_server_that_ends_the_connection_is_an_outage_and_the_next_call_goes_on(
    postgres: str, tune_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import new_database

    url = new_database(postgres, "searches-away")
    monkeypatch.setenv("RAYTRAIN_DATABASE", url)
    open_records().close()
    memory = StudyMemory(tune_recipe(), "s")
    number, _ = memory.ask()
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(database="postgres"))
    others = "FROM pg_stat_activity WHERE datname = 'searches-away' AND pid <> pg_backend_pid()"

    @sqlalchemy.event.listens_for(memory.study._storage._backend.engine, "before_cursor_execute", once=True)
    def _end(*_: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {others}")

    with pytest.raises(StorageError, match="cannot be used") as caught:
        memory.keep("a", 1)
    assert "check RAYTRAIN_DATABASE" in caught.value.fix
    memory.keep("a", 2)
    assert memory.kept("a") == 2
    assert memory.trial(number).state == "running"
    engine.dispose()
