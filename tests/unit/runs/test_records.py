from __future__ import annotations

import math
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raytrain.errors import ConfigError, StorageError, TrainingError
from raytrain.runs.ownership import Owner, owner_is_alive
from raytrain.runs.records import Records, open_records
from raytrain.storage import database
from raytrain.storage.database import DamagedDatabaseError, check_database_whole

pytestmark = pytest.mark.whole


@pytest.fixture
def records() -> Records:
    return open_records()


def add_run(
    records: Records, run_id: str = "demo-1a2b", *, kind: str = "train", created_at: float | None = None
) -> str:
    name = run_id.rsplit("-", 1)[0]
    return records.create_run(
        run_id, kind=kind, name=name, config={"train": {"seed": 7}}, created_at=created_at
    ).id


def dead_owner() -> Owner:
    """A process of this machine that has ended."""
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return Owner(Owner.current().host, int(child.stdout), time.time())


@pytest.mark.parametrize(
    ("owner", "heartbeat_at", "start_time", "alive"),
    [
        (Owner("here", 7, 1000.0), None, 1000.0, True),
        (Owner("here", 7, 1000.0), 0.0, 1001.0, True),
        (Owner("here", 7, 1000.0), 9999.0, 1500.0, False),  # another process with the same id
        (Owner("here", 7, 1000.0), 9999.0, None, False),
        (Owner("there", 7, 1000.0), 9941.0, None, True),
        (Owner("there", 7, 1000.0), 9940.0, 1000.0, False),
        (Owner("there", 7, 1000.0), None, 1000.0, False),
    ],
)
def test_whether_an_owner_lives(
    owner: Owner, heartbeat_at: float | None, start_time: float | None, alive: bool
) -> None:
    assert owner_is_alive(owner, heartbeat_at, 10_000.0, "here", lambda pid: start_time) is alive


class TestLife:
    def test_from_queued_to_succeeded(self, records: Records, home: Path) -> None:
        run_id = add_run(records)
        assert records.get_run(run_id).state == "queued"
        owner = Owner.current()
        claimed = records.claim_run(run_id, owner, now=100.0)
        assert (claimed.state, claimed.owner, claimed.started_at) == ("running", owner, 100.0)
        assert records.heartbeat(run_id, owner, global_step=5, max_steps=10)
        records.set_state(run_id, "succeeded", now=130.0)
        done = records.get_run(run_id)
        assert (done.state, done.global_step, done.max_steps, done.ended_at) == ("succeeded", 5, 10, 130.0)
        assert [event.data["state"] for event in records.events(run_id)] == ["running", "succeeded"]
        assert (home / "runs" / run_id / "run.json").is_file()
        assert (home / "runs" / run_id / "events.jsonl").read_text().count("\n") == 2

    def test_creating_twice_keeps_the_first(self, records: Records) -> None:
        first = records.get_run(add_run(records))
        assert records.create_run(first.id, kind="tune", name="other", config={}) == first

    @pytest.mark.parametrize("run_id", ["", "../outside", "a/b", ".hidden", "x" * 201])
    def test_an_id_that_cannot_name_a_folder(self, records: Records, run_id: str) -> None:
        with pytest.raises(ConfigError, match="cannot name a run"):
            records.create_run(run_id, kind="train", name="x", config={})

    def test_a_dead_owner_leaves_a_resumable_run(self, records: Records) -> None:
        run_id = add_run(records)
        records.claim_run(run_id, dead_owner(), now=50.0)
        gone = records.get_run(run_id)
        assert (gone.state, gone.label, gone.is_resumable) == ("failed", "failed (owner gone)", True)
        assert records.claim_run(run_id, Owner.current()).state == "running"

    def test_the_same_process_may_claim_again(self, records: Records) -> None:
        run_id = add_run(records)
        records.claim_run(run_id, Owner.current())
        assert records.claim_run(run_id, Owner.current()).state == "running"

    def test_a_live_owner_on_another_machine_is_respected_until_it_falls_silent(
        self, records: Records
    ) -> None:
        run_id = add_run(records)
        other = Owner("another-machine", 7, 1000.0)
        records.claim_run(run_id, other, now=5000.0)
        with pytest.raises(TrainingError) as caught:
            records.claim_run(run_id, Owner.current(), now=5059.0)
        assert caught.value.exit_code == 4
        assert "process 7 on another-machine" in caught.value.why
        records.claim_run(run_id, Owner.current(), now=5060.0)
        assert not records.heartbeat(run_id, other), "the former owner must learn that it lost the run"

    def test_stopping(self, records: Records) -> None:
        run_id = add_run(records)
        assert not records.request_stop(run_id), "a queued run has nobody to ask"
        records.claim_run(run_id, Owner.current())
        assert not records.stop_requested(run_id)
        assert records.request_stop(run_id)
        assert records.stop_requested(run_id)
        records.set_state(run_id, "cancelled", "asked to stop")
        records.claim_run(run_id, Owner.current())
        assert not records.stop_requested(run_id), "a resumed run starts without the old request"

    def test_an_error_is_kept(self, records: Records) -> None:
        run_id = add_run(records)
        error = TrainingError("NaN in läyer 3", why="—", fix="→ lower the learning rate").as_dict()
        records.set_state(run_id, "failed", "bad gradients", error)
        assert records.get_run(run_id).error == error


def claim_when_told(barrier: object, run_id: str, answers: object) -> None:
    records = open_records()
    barrier.wait()  # type: ignore[attr-defined]
    try:
        records.claim_run(run_id, Owner.current())
        answers.put((os.getpid(), "won", ""))  # type: ignore[attr-defined]
        time.sleep(1.0)  # an owner that has ended would let the next one in
    except TrainingError as error:
        answers.put((os.getpid(), "lost", error.why))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("begins_with", ["a queued run", "a run of a dead owner"])
def test_of_processes_that_claim_at_once_one_wins(records: Records, home: Path, begins_with: str) -> None:
    run_id = add_run(records)
    if begins_with == "a run of a dead owner":
        records.claim_run(run_id, dead_owner())
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    contenders = [context.Process(target=claim_when_told, args=(barrier, run_id, answers)) for _ in range(2)]
    for contender in contenders:
        contender.start()
    outcomes = [answers.get(timeout=60) for _ in contenders]
    for contender in contenders:
        contender.join()
    winners = [pid for pid, outcome, _ in outcomes if outcome == "won"]
    assert len(winners) == 1, outcomes
    assert all(f"process {winners[0]} on" in why for _, outcome, why in outcomes if outcome == "lost")


def open_when_told(barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    add_run(open_records(), f"demo-{os.getpid()}")


@pytest.mark.slow
def test_processes_that_make_the_database_at_once(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    openers = [context.Process(target=open_when_told, args=(barrier,)) for _ in range(3)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert [opener.exitcode for opener in openers] == [0, 0, 0]
    assert open_records().list_runs().total == 3


class TestFinding:
    def test_pages_are_newest_first(self, records: Records) -> None:
        for i in range(25):
            add_run(records, f"demo-{i:03}", created_at=1000.0 + i)
        first, second, third = (records.list_runs(limit=10, offset=offset) for offset in (0, 10, 20))
        assert first.total == second.total == 25
        ids = [run.id for page in (first, second, third) for run in page.runs]
        assert ids == [f"demo-{i:03}" for i in reversed(range(25))]
        assert records.list_runs(offset=100).runs == []

    def test_filters(self, records: Records) -> None:
        add_run(records, "demo-1", created_at=1000.0)
        add_run(records, "other-2", kind="tune", created_at=2000.0)
        records.set_state("demo-1", "succeeded")

        def ids(**filters: object) -> list[str]:
            return [run.id for run in records.list_runs(**filters).runs]  # type: ignore[arg-type]

        assert ids(state="succeeded") == ["demo-1"]
        assert ids(kind="tune") == ["other-2"]
        assert ids(name="EMO") == ["demo-1"]
        assert ids(name="%") == []
        assert ids(since=1500.0) == ["other-2"]
        assert ids(state="queued", kind="train") == []

    def test_a_run_without_owner_counts_as_failed(self, records: Records) -> None:
        for run_id, owner in (("alive-1", Owner.current()), ("dead-2", dead_owner())):
            add_run(records, run_id)
            records.claim_run(run_id, owner)
        assert [run.id for run in records.list_runs(state="running").runs] == ["alive-1"]
        assert [run.label for run in records.list_runs(state="failed").runs] == ["failed (owner gone)"]

    def test_by_prefix(self, records: Records) -> None:
        for i, run_id in enumerate(("demo-1a2b", "demo-1f", "demo-1", "Demo-9")):
            add_run(records, run_id, created_at=1000.0 + i)
        assert records.run_with_prefix("demo-1a").id == "demo-1a2b"
        assert records.run_with_prefix("demo-1").id == "demo-1", "a whole id is not ambiguous"
        assert records.run_with_prefix("D").id == "Demo-9"
        assert records.run_with_prefix("latest").id == "Demo-9"
        with pytest.raises(ConfigError) as several:
            records.run_with_prefix("demo")
        assert "demo-1a2b" in several.value.why
        assert "demo-1f" in several.value.why
        with pytest.raises(ConfigError) as none:
            records.run_with_prefix("dmeo-1a2b")
        assert none.value.fix == "did you mean `demo-1a2b`?"

    def test_in_an_empty_database(self, records: Records) -> None:
        assert records.list_runs().total == 0
        for name in ("latest", "demo"):
            with pytest.raises(ConfigError, match="there is no"):
                records.run_with_prefix(name)


class TestMetrics:
    def test_series_and_latest(self, records: Records) -> None:
        run_id = add_run(records)
        records.add_metrics(
            run_id, [(2, 12.0, {"b": 2.0}), (1, 11.0, {"a": 1.0, "b": math.nan}), (3, 13.0, {"a": -math.inf})]
        )
        series = records.metrics(run_id)
        assert [point[:2] for point in series["a"]] == [(1, 1.0), (3, -math.inf)]
        assert [point.global_step for point in series["b"]] == [1, 2]
        assert math.isnan(series["b"][0].value)
        assert {key: point.global_step for key, point in records.latest_metrics(run_id).items()} == {
            "a": 3,
            "b": 2,
        }
        assert list(records.metrics(run_id, ["a", "absent"], since_step=2)) == ["a"]
        last = records.last_value(run_id, "b")
        assert last is not None
        assert last.value == 2.0

    def test_a_rewind_touches_this_run_alone(self, records: Records) -> None:
        for run_id in ("one-1", "two-2"):
            add_run(records, run_id)
            records.add_metrics(run_id, [(step, 0.0, {"a": 1.0}) for step in range(10)])
        records.forget_metrics_after("one-1", 4)
        assert len(records.metrics("one-1")["a"]) == 5
        assert len(records.metrics("two-2")["a"]) == 10

    @pytest.mark.slow
    def test_many_points(self, records: Records, capsys: pytest.CaptureFixture[str]) -> None:
        run_id = add_run(records)
        rows = [
            (step, 1.7e9 + step, {f"train/{i}": step / (i + 1) for i in range(10)}) for step in range(10_000)
        ]
        started = time.perf_counter()
        records.add_metrics(run_id, rows)
        written = time.perf_counter()
        series = records.metrics(run_id)
        read = time.perf_counter()
        for _ in range(10):
            records.latest_metrics(run_id)
        latest = time.perf_counter()
        assert sum(map(len, series.values())) == 100_000
        with capsys.disabled():
            sys.stdout.write(
                f"\n100,000 points: written in {written - started:.2f} s, read in {read - written:.2f} s, "
                f"latest in {(latest - read) * 100:.1f} ms\n"
            )


class TestArtifacts:
    def test_lineage_is_a_walk_over_parents(self, records: Records) -> None:
        prepare, train = add_run(records, "prepare-1"), add_run(records, "demo-2")
        records.add_artifact(prepare, "dataset", "written", "dataset", "sha256:dd11", "/data")
        records.add_artifact(train, "dataset", "read", "dataset", "sha256:dd11", "/data")
        records.add_artifact(train, "checkpoint", "written", "checkpoint", "sha256:cc22", "/step-1")
        parents = {"dataset": "sha256:dd11", "base_model": "sha256:bb33"}
        records.add_artifact(
            train, "model", "written", "adapter", "sha256:aa44", "s3://bucket/adapter", parents
        )
        tree = records.lineage("sha256:aa44")
        assert (tree.kind, tree.written_by) == ("adapter", train)
        assert [(node.role, node.kind, node.written_by) for node in tree.parents] == [
            ("base_model", None, None),
            ("dataset", "dataset", prepare),
        ]
        assert records.artifact_of(train) == "s3://bucket/adapter"
        assert records.artifact_of(prepare) is None
        found = records.find_artifact("dd")
        assert found is not None
        assert [(use.run_id, use.direction) for use in found.uses] == [(prepare, "written"), (train, "read")]
        assert records.find_artifact("ff") is None

    def test_the_same_artifact_twice_is_one_event(self, records: Records) -> None:
        run_id = add_run(records)
        for uri in ("/old", "/new"):
            records.add_artifact(run_id, "model", "written", "adapter", "sha256:aa", uri)
        assert len(records.artifacts(run_id)) == len(records.events(run_id)) == 1
        assert records.artifact_of(run_id) == "/new"

    def test_a_circle_ends(self, records: Records) -> None:
        run_id = add_run(records)
        records.add_artifact(run_id, "a", "written", "x", "sha256:aa", None, {"b": "sha256:bb"})
        records.add_artifact(run_id, "b", "written", "x", "sha256:bb", None, {"a": "sha256:aa"})
        assert records.lineage("aa").parents[0].parents == []

    def test_a_digest_that_fits_several(self, records: Records) -> None:
        run_id = add_run(records)
        for digest in ("sha256:aa1", "sha256:aa2"):
            records.add_artifact(run_id, "model", "written", "adapter", digest, None)
        with pytest.raises(ConfigError, match="fits several artifacts"):
            records.find_artifact("aa")


class TestDatabaseFaults:
    def test_a_damaged_file(self, home: Path) -> None:
        home.mkdir()
        (home / "raytrain.db").write_bytes(b"this is no database at all" * 100)
        with pytest.raises(DamagedDatabaseError) as caught:
            open_records()
        assert "raytrain runs rebuild" in caught.value.fix
        assert caught.value.exit_code == 4

    def test_damaged_pages(self, records: Records, home: Path) -> None:
        run_id = add_run(records)
        records.add_metrics(run_id, [(step, 0.0, {"train/loss": 1.0}) for step in range(20_000)])
        check_database_whole(records.engine)
        records.close()
        file = home / "raytrain.db"
        content = bytearray(file.read_bytes())
        content[40_000:-8192] = os.urandom(len(content) - 48_192)
        file.write_bytes(content)
        with pytest.raises(DamagedDatabaseError):
            check_database_whole(open_records().engine)

    def test_a_locked_database(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.2)
        records = open_records()
        run_id = add_run(records)
        holder = sqlite3.connect(home / "raytrain.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="stayed locked"):
            records.add_metrics(run_id, [(1, 0.0, {"a": 1.0})])
        assert records.get_run(run_id).state == "queued", "readers go on"
        holder.execute("ROLLBACK")
        records.add_metrics(run_id, [(1, 0.0, {"a": 1.0})])

    def test_a_home_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "file" / "home"))
        with pytest.raises(StorageError) as caught:
            open_records()
        assert "RAYTRAIN_HOME" in caught.value.fix

    @pytest.mark.parametrize("is_open", [False, True], ids=["nobody writes", "another process writes"])
    def test_a_read_only_home(self, home: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool) -> None:
        """It is read. Root may write anywhere, so that what the system says of a right is said here."""
        writer = open_records()
        add_run(writer)
        if not is_open:
            writer.close()
        assert (home / "raytrain.db-wal").exists() is is_open
        monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
        records = open_records()
        assert [run.id for run in records.list_runs().runs] == ["demo-1a2b"]
        with pytest.raises(StorageError) as caught:
            add_run(records, "demo-2b3c")
        assert "readonly" in caught.value.why
        assert "RAYTRAIN_HOME" in caught.value.fix
        assert (home / "raytrain.db-wal").exists() is is_open, "reading leaves nothing behind"

    def test_a_server_that_is_not_there_keeps_its_password_to_itself(self) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(StorageError) as caught:
            open_records("postgresql+psycopg://me:s3cret@127.0.0.1:1/raytrain")
        assert "s3cret" not in str(caught.value)

    def test_a_url_of_no_database(self) -> None:
        with pytest.raises(StorageError, match="RAYTRAIN_DATABASE cannot be opened"):
            open_records("nonsense")
