"""Rows that are kept for runs, used by their success, and forgotten."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine, text

from raytrain.errors import ConfigError, RefusedError
from raytrain.monitoring.learning.forgetting import descendants, forget
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.release.registry.registry import Registry
from raytrain.runs.records import Records
from raytrain.runs.schema import ensure_schema
from raytrain.storage.database import open_database


def row(number: int, **changes: Any) -> PooledRow:
    plain = PooledRow(
        f"i{number:03d}", float(number), f"u{number % 3}", "helper@1.0.0", "d",
        ({"role": "user", "content": f"q{number}"},), f"a{number}", "correction", 1.0, "ready",
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def pool(records: Records) -> InteractionPool:
    return InteractionPool(open_database())


def new_run(records: Records, run_id: str, state: str = "running") -> str:
    records.create_run(run_id, kind="train", name="n", config={}, config_digest="c", storage_uri=None)
    records.set_state(run_id, state)  # type: ignore[arg-type]
    return run_id


def test_a_row_is_used_at_the_moment_at_which_its_run_succeeds(
    records: Records, pool: InteractionPool
) -> None:
    assert pool.add([row(i) for i in range(6)]) == 6
    assert pool.add([row(i) for i in range(8)]) == 2, "those that are there stay as they are"
    run_id = new_run(records, "first")
    taken = pool.take(run_id, 5)
    assert [one.id for one in taken] == ["i000", "i001", "i002", "i003", "i004"], "the oldest first"
    assert pool.counts() == {"free": 3, "kept": 5, "used": 0, "quarantined": 0, "refused": 0, "forgotten": 0}
    records.set_state(run_id, "succeeded")
    assert pool.counts()["used"] == 5 and pool.counts()["kept"] == 0
    with pytest.raises(RefusedError, match="takes no more rows"):
        pool.take(run_id)
    with pytest.raises(RefusedError, match="cannot be given back"):
        pool.release(run_id)


def test_a_run_that_goes_on_has_the_rows_that_it_had(records: Records, pool: InteractionPool) -> None:
    pool.add([row(i) for i in range(6)])
    first, second = new_run(records, "first"), new_run(records, "second")
    had = pool.take(first, 4)
    records.set_state(first, "failed")
    assert [one.id for one in pool.take(second)] == ["i004", "i005"], (
        "what a failed run had is not taken from it"
    )
    assert pool.take(first, 4) == had
    assert pool.release(first) == 4
    assert len(pool.take(second)) == 6


def test_a_run_must_be_recorded(pool: InteractionPool) -> None:
    with pytest.raises(ConfigError, match="there is no run nobody"):
        pool.take("nobody")


def test_what_is_set_aside_waits_for_a_word(records: Records, pool: InteractionPool) -> None:
    pool.add(
        [row(0, state="quarantined", reason="flood"), row(1, state="quarantined", reason="flood"), row(2)]
    )
    run_id = new_run(records, "first")
    assert [one.id for one in pool.take(run_id)] == ["i002"]
    assert pool.judge(["i000"], "ready", "looked at") == 1
    assert pool.judge(["i001"], "refused", "looked at") == 1
    assert pool.judge(["i002"], "refused", "poison that was found when a run had it") == 1
    assert [one.id for one in pool.take(run_id)] == ["i000"]
    assert pool.counts()["refused"] == 2
    assert pool.judge(["i002"], "ready", "it was none") == 1
    assert [one.id for one in pool.take(run_id)] == ["i000", "i002"], "it has stayed with its run"
    assert pool.take(new_run(records, "second")) == []
    pool.forget("u2")
    assert pool.judge(["i002"], "ready", "") == 0, "what is forgotten stays so"
    with pytest.raises(ConfigError, match="no interaction i9"):
        pool.judge(["i9"], "ready", "")
    assert [(one.id, one.reason) for one in pool.rows("refused")] == [("i001", "looked at")]


def test_a_user_is_forgotten_and_what_learned_from_it_is_told(
    records: Records, pool: InteractionPool, tmp_path: Path
) -> None:
    pool.add([row(i) for i in range(6)])
    run_id = new_run(records, "first")
    pool.take(run_id)
    records.add_artifact(run_id, "dataset", "read", "dataset", "sha256:da", "file:///d")
    records.add_artifact(
        run_id, "model", "written", "adapter", "sha256:ad", "file:///a", parents={"dataset": "sha256:da"}
    )
    other = new_run(records, "evaluation")
    records.add_artifact(
        other, "report", "written", "evaluation", "sha256:ev", "x", parents={"model": "sha256:ad"}
    )
    records.add_artifact(other, "base", "read", "model", "sha256:ba", "x")
    records.set_state(run_id, "succeeded")
    told = forget(["u1"], pool, Registry(tmp_path / "registry"))
    assert (told.num_rows, told.run_ids) == (2, ["first"])
    assert told.artifacts == {"dataset": ["sha256:da"], "adapter": ["sha256:ad"], "evaluation": ["sha256:ev"]}
    assert told.versions == []
    assert pool.counts()["forgotten"] == 2
    assert all(one.prompt is None and one.target is None for one in pool.rows("forgotten"))
    assert forget(["u1"], pool, Registry(tmp_path / "registry")) == told
    assert forget(["nobody"], pool, Registry(tmp_path / "registry")).num_rows == 0
    assert pool.add([row(1)]) == 0 and pool.rows("forgotten")[-1].target is None, (
        "read again it stays forgotten"
    )


def test_descendants_are_all_that_was_made_from_what_was() -> None:
    parents = {"b": {"x": "a"}, "c": {"x": "b", "y": "z"}, "d": {"x": "q"}, "a": {}}
    assert descendants(["a"], parents) == {"b", "c"}
    assert descendants([], parents) == set()
    assert descendants(["a"], {"a": {"x": "a"}}) == {"a"}, "a circle, which honest digests cannot form, ends"


def _take(url: str, run_id: str, start: Any, told: Any) -> None:
    engine = create_engine(url, connect_args={"timeout": 60} if url.startswith("sqlite") else {})
    start.wait()
    told.put((run_id, [one.id for one in InteractionPool(engine).take(run_id, 7)]))


@pytest.mark.slow
def test_runs_that_take_at_once_never_share_a_row(records: Records, pool: InteractionPool) -> None:
    pool.add([row(i) for i in range(20)])
    processes = multiprocessing.get_context("spawn")
    start, told = processes.Event(), processes.Queue()
    url = pool.engine.url.render_as_string(hide_password=False)
    names = [new_run(records, f"run{i}") for i in range(4)]
    takers = [processes.Process(target=_take, args=(url, name, start, told)) for name in names]
    for one in takers:
        one.start()
    start.set()
    found = dict(told.get(timeout=120) for _ in takers)
    for one in takers:
        one.join()
    counts = Counter(name for ids in found.values() for name in ids)
    assert set(counts.values()) == {1} and len(counts) == 20
    assert sorted(len(ids) for ids in found.values())[-2:] == [7, 7]


@pytest.mark.slow
def test_the_table_is_that_of_the_migrations(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    ensure_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from interactions")).scalar() == 0
    assert sqlalchemy.inspect(engine).has_table("interactions")
