"""A registry in MLflow: the contract against a real server, and requests that fail, one after the other."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")
pytest.importorskip("flask", reason="MLflow's server needs it")
pytest.importorskip("flask_cors", reason="MLflow's server needs it")

from mlflow_places import OnMlflow
from mlflow_server import mlflow_server
from object_server import Proxy, free_port
from registry_contract import V1, V2, RegistryContract, faults_of, move, release, state_told, states_of
from registry_outages import (
    FAILURES,
    check_gc,
    check_goes_on,
    check_old_or_new,
    check_tag_and_withdraw,
    first_steps,
)
from shelf_contract import ShelfContract
from two_writers import VERSIONS, at_once, claim, promote, register

from raytrain.cli.main import run
from raytrain.errors import ConfigError, StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.mlflow_store import MlflowStore
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.store import open_store
from raytrain.release.signing import sign
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex, read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(postgres: str) -> str:
    """Its URL at PostgreSQL."""
    from postgres_server import new_database

    return new_database(postgres, f"mlflow-{uuid.uuid4().hex}")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """On PostgreSQL with two processes, whose transactions do not wait for each other as SQLite's do."""
    more: dict[str, Any] = {}
    if request.param == "postgresql":
        more = {"database": request.getfixturevalue("database"), "workers": 2}
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), **more) as proxy:
        yield proxy


@pytest.fixture
def place(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> OnMlflow:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    server.plan(None)
    place = OnMlflow(server.endpoint)
    place.clear()
    return place


@pytest.fixture
def direct(server: Proxy, place: OnMlflow) -> OnMlflow:
    """Past the proxy, which lets in one at a time."""
    return replace(place, endpoint=f"http://127.0.0.1:{server.moto_port}")


@pytest.mark.thorough
class TestMlflow(RegistryContract):
    start_method = "spawn"  # the client has threads


@pytest.mark.thorough
class TestShelfOnMlflow(ShelfContract):
    pass


class TestEssentials:
    """Of both contracts."""

    start_method = "spawn"
    registry = RegistryContract.registry
    shelf, several_machines = ShelfContract.shelf, ShelfContract.several_machines
    test_life = RegistryContract.test_it_goes_from_nothing_to_production_and_back
    test_refusals = RegistryContract.test_what_it_refuses_leaves_it_as_it_was
    test_promoters = RegistryContract.test_of_many_promoters_one_wins_and_the_others_are_told
    test_manifests = RegistryContract.test_of_two_manifests_of_one_digest_the_first_stays
    test_following = RegistryContract.test_whoever_looks_often_reads_what_is_new
    test_orphans = RegistryContract.test_orphans_are_found_and_nothing_else_is_deleted
    test_deleting = RegistryContract.test_what_is_registered_while_it_is_deleted_stays
    test_no_digest = RegistryContract.test_what_is_no_digest_becomes_no_path
    test_damaged_shelf = ShelfContract.test_what_is_damaged_is_put_anew


def test_of_two_who_claim_a_number_at_once_one_has_it(direct: OnMlflow) -> None:
    first, second = at_once(claim, direct.uri, 40)
    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 40, (first, second)
    written = [(b"a" if first[i] else b"b") + str(i + 1).encode() for i in range(40)]
    assert direct.open().entries("sums") == list(enumerate(written, 1))


@pytest.mark.thorough
def test_of_two_promoters_at_once_one_wins(direct: OnMlflow, ring: KeyRing, bundles: list[Path]) -> None:
    registry = Registry(direct.open())
    for version in VERSIONS:
        release(registry, ring, version, bundles[0])
    move(registry, V1, None)
    before = registry.entries("sums")
    first, second = at_once(promote, direct.uri, 20)
    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 20, (first, second)
    moves = registry.entries("sums")[len(before) :]
    assert [one.action for one in moves] == ["move"] * 20
    assert faults_of(registry, ring) == [] and registry.orphans() == []


@pytest.mark.thorough
def test_two_who_register_one_bundle_at_once_both_have_it(
    direct: OnMlflow, ring: KeyRing, bundles: list[Path]
) -> None:
    at_once(register, direct.uri, 5, bundles[0], ring.folder)
    registry = Registry(direct.open())
    assert {name: sorted(state.versions) for name, state in registry.states().items()} == {
        f"sums-{i}": [V1, V2] for i in range(5)
    }
    assert faults_of(registry, ring) == [] and registry.orphans() == []


@pytest.mark.thorough
@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_of_two_who_sign_a_bundle_at_once_both_are_through(place: OnMlflow, database: str) -> None:
    """The other has looked before we have written, and writes first."""
    import psycopg

    store, digest = place.open(), "0" * 64
    bundle = store.bundle_place("sums", digest)
    place.write(f"{bundle}/manifest.json", b"{")
    url = database.replace("+psycopg", "")
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as looking:
        other.execute(
            "INSERT INTO model_version_tags (workspace, name, version, key, value) "
            "VALUES ('default', '_bundles.sums', 1, 'raytrain.signature', 'theirs')"
        )
        with ThreadPoolExecutor(1) as pool:
            ours = pool.submit(store.put_signature, "sums", digest, b"ours")
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not ours.done() and looking.execute(waiting).fetchone() is None:
                time.sleep(0.01)
            assert not ours.done()
            other.commit()
            ours.result()
    assert place.read(f"{bundle}.sig") == b"ours"


def test_an_entry_whose_answer_was_lost_is_there_once(
    place: OnMlflow, server: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    store = place.open()
    assert store.create_entry("sums", 1, b"{}")
    server.plan(1, "lost answer")
    assert store.create_entry("sums", 2, b"{2}")
    server.plan(None)
    assert not store.create_entry("sums", 2, b"{another}")
    assert store.entries("sums") == [(1, b"{}"), (2, b"{2}")]
    assert len(place.client.search_model_versions("name = '_journal.sums'")) == 2


def test_a_claim_of_somebody_who_was_killed_before_he_looked_counts_for_nothing(place: OnMlflow) -> None:
    store = place.open()
    assert store.create_entry("sums", 1, b"{first}")
    tags = {"raytrain.entry": "1", "raytrain.content": "{second}"}
    place.client.create_model_version("_journal.sums", "x://y/z", tags=tags)
    assert store.entries("sums") == [(1, b"{first}")]
    assert store.create_entry("sums", 2, b"{third}") and store.has_entry("sums", 2)


def test_a_long_entry_is_there_whole(place: OnMlflow) -> None:
    store, long = place.open(), json.dumps({"why": "ü" * 50_000 + "x" * 100_001}).encode()
    assert store.create_entry("sums", 1, long)
    assert store.entries("sums") == [(1, long)]


def test_only_what_is_new_is_read(place: OnMlflow) -> None:
    store, entries = place.open(), [(1, b"1\n"), (2, b"2\n"), (3, b"3\n")]
    for number, content in entries[:2]:
        assert store.create_entry("sums", number, content)
    assert store.entries("sums") == entries[:2]
    assert store.create_entry("sums", *entries[2])
    place.write(store.entry_place("sums", 1), b"changed\n")
    assert store.entries("sums") == entries, "the first is not asked for again"
    assert store.entries("sums", fresh=True) == [(1, b"changed\n"), *entries[1:]]
    place.write(store.entry_place("sums", 3), b"changed\n")
    assert store.entries("sums") == [(1, b"changed\n"), entries[1], (3, b"changed\n")]


def test_one_fault_of_any_request_is_passed_over(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pass_over_faults(server, place, ring, bundles, monkeypatch, stride=8)


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_one_fault_of_each_request_is_passed_over(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pass_over_faults(server, place, ring, bundles, monkeypatch, stride=1)


def _pass_over_faults(
    server: Proxy,
    place: OnMlflow,
    ring: KeyRing,
    bundles: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    stride: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    expected, total = _expected(server, place, ring, bundles)
    for point in range(1, total + 1, stride):
        place.clear()
        registry = Registry(place.open())
        server.plan(point, FAILURES[point % 3])
        first_steps(registry, ring, bundles)
        server.plan(None)
        assert state_told(registry) == expected[1], f"request {point}, {FAILURES[point % 3]}"
        assert len(registry.entries("sums")) == 2


def test_a_server_that_goes_away_leaves_the_old_state_or_the_new(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path]
) -> None:
    _go_away(server, place, ring, bundles, stride=7)


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_a_server_that_goes_away_at_any_request_leaves_the_old_state_or_the_new(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path]
) -> None:
    _go_away(server, place, ring, bundles, stride=1)


def _go_away(server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path], stride: int) -> None:
    expected, total = _expected(server, place, ring, bundles)
    assert total >= 40
    for point in range(1, total + 1, stride):
        place.clear()
        registry = Registry(place.open())
        check_old_or_new(registry, ring, bundles, server, point, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_database_whose_connections_break_leaves_the_old_state_or_the_new(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path], postgres: str
) -> None:
    from postgres_server import broken_connections

    expected, total = _expected(server, place, ring, bundles)
    num_failed = 0
    for point in range(1, total + 1, 3):
        place.clear()
        registry = Registry(place.open())
        server.plan(None)
        with broken_connections(postgres, lambda point=point: server.count >= point):
            try:
                first_steps(registry, ring, bundles)
            except StorageError as error:
                num_failed += 1
                assert error.exit_code == 4 and "run" in error.fix, error
        check_goes_on(registry, ring, bundles, point, expected)
    assert num_failed > total / 6, "half of the times at least"


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_a_server_that_goes_away_during_a_tag_a_withdrawal_or_a_gc(
    server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path]
) -> None:
    def fresh() -> tuple[Registry, Registry]:
        server.plan(None)
        place.clear()
        return (registry := Registry(place.open())), registry

    assert check_tag_and_withdraw(fresh, server, ring, bundles) >= 4
    assert check_gc(fresh, server, ring, bundles, stride=3) >= 4


def _expected(server: Proxy, place: OnMlflow, ring: KeyRing, bundles: list[Path]) -> tuple[list[object], int]:
    """What is there after a version and after production, and how many requests both take."""
    expected = states_of(Registry(place.open()), ring, bundles)[:2]
    place.clear()
    registry = Registry(place.open())
    server.plan(None)
    first_steps(registry, ring, bundles)
    total = server.count
    server.plan(None)
    return expected, total


def test_whoever_deletes_what_is_written_and_whoever_writes_it_see_each_other(
    place: OnMlflow, bundles: list[Path]
) -> None:
    digest = digest_hex(read_manifest(Location(str(bundles[0]))).digest)
    store, other = place.open(), place.open()
    assert isinstance(store, MlflowStore)
    upload = store._files.upload

    def upload_and_be_deleted(run_id: str, bundle: Path) -> None:
        upload(run_id, bundle)
        assert other.delete_bundle("sums", digest, lambda _: False)

    store._files.upload = upload_and_be_deleted  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="was deleted while it was written"):
        store.put_bundle("sums", digest, bundles[0])
    assert store.bundles("sums") == [] and store.seal("sums", digest) == (None, None)
    store._files.upload = upload  # type: ignore[method-assign]
    assert store.put_bundle("sums", digest, bundles[0])
    run_id = place.claim("_bundles.sums", digest).run_id
    other.delete_stray("sums", f"{place.uri}/runs/{run_id}")  # it was one when they looked
    assert None not in store.seal("sums", digest) and store.strays("sums") == {}
    assert place.client.get_run(run_id).info.lifecycle_stage == "active"


def test_a_run_of_who_came_second_is_a_stray(place: OnMlflow, bundles: list[Path]) -> None:
    store, digest = place.open(), digest_hex(read_manifest(Location(str(bundles[0]))).digest)
    assert store.put_bundle("sums", digest, bundles[0])
    used = place.claim("_bundles.sums", digest).run_id
    tags = {"raytrain.name": "sums", "raytrain.bundle": digest}
    experiment = place.client.get_run(used).info.experiment_id
    left = place.client.create_run(experiment, tags=tags).info.run_id
    assert list(store.strays("sums")) == [f"{place.uri}/runs/{left}"]
    for _ in range(2):
        store.delete_stray("sums", f"{place.uri}/runs/{left}")
    assert store.strays("sums") == {} and store.bundles("sums") == [digest]


def test_a_bundle_whose_run_was_deleted_in_mlflow_is_put_anew(
    place: OnMlflow, bundles: list[Path], ring: KeyRing
) -> None:
    registry = Registry(place.open())
    release(registry, ring, V1, bundles[0])
    digest = digest_hex(registry.find("sums@1.0.0").digest)
    place.client.delete_run(place.claim("_bundles.sums", digest).run_id)
    assert faults_of(registry, ring) == [], "MLflow keeps its files until `mlflow gc`"
    assert registry.store.put_bundle("sums", digest, bundles[0])
    assert faults_of(registry, ring) == [] and registry.orphans() == []


def test_a_tag_that_is_a_path_is_no_bundle(place: OnMlflow, home: Path) -> None:
    """Anybody may write one; the gate, which lists approvals, reads nothing by it and writes nothing."""
    odd = "../../../../victim"
    run_id = place.client.create_run("0", tags={"raytrain.name": "_approvals.sums", "raytrain.bundle": odd})
    model = "_bundles._approvals.sums"
    place.client.create_registered_model(model)
    tags = {"raytrain.bundle": odd, "raytrain.signature": "text"}
    place.client.create_model_version(model, "x://y/z", run_id.info.run_id, tags=tags)
    assert shelf_of(Registry(place.open()), "sums", "approvals").about("sha256:" + "0" * 64) == []
    assert not list(home.parent.rglob("victim*"))


@pytest.mark.parametrize("odd", ["a b", "50%", "a+b", "ü'&=", "x..y", "sub/a#b", "a?b", "a%20b"])
def test_a_file_keeps_its_name_or_is_refused(
    place: OnMlflow, ring: KeyRing, tmp_path: Path, odd: str
) -> None:
    """MLflow's client writes a name into a URL as it is."""
    with ArtifactWriter(Location(str(tmp_path / "odd")), kind="adapter", parents={}) as writer:
        (writer.path / odd).parent.mkdir(exist_ok=True)
        (writer.path / odd).write_text("odd")
        writer.commit({})
    sign(tmp_path / "odd", ring.signing_key("release"))
    registry = Registry(place.open())
    if odd in ("sub/a#b", "a?b", "a%20b"):
        with pytest.raises(ConfigError, match="cannot keep") as told:
            release(registry, ring, V1, tmp_path / "odd")
        assert odd in told.value.why and registry.store.bundles("sums") == []
    else:
        release(registry, ring, V1, tmp_path / "odd")
        assert (registry.verified("sums@1.0.0", ring).artifact.path / odd).read_text() == "odd"


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, ring: KeyRing, bundles: list[Path]) -> None:
    for key in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(key, raising=False)
    port = free_port()
    registry = Registry(open_store(f"mlflow+http://127.0.0.1:{port}"))
    begun = time.monotonic()
    with pytest.raises(StorageError, match=f"127.0.0.1:{port}") as told:
        release(registry, ring, V1, bundles[0])
    assert told.value.exit_code == 4 and time.monotonic() - begun < 15


@pytest.mark.thorough
def test_a_server_whose_clients_are_to_write_files_themselves_is_refused(
    tmp_path: Path, ring: KeyRing, bundles: list[Path]
) -> None:
    options = ("--no-serve-artifacts", "--default-artifact-root", str(tmp_path / "there"))
    with mlflow_server(tmp_path, *options) as proxy:
        registry = Registry(open_store(f"mlflow+{proxy.endpoint}"))
        with pytest.raises(StorageError, match="cannot keep a bundle") as told:
            release(registry, ring, V1, bundles[0])
        assert "--serve-artifacts" in told.value.fix
        assert not (tmp_path / "there").exists() and registry.names() == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow+http://", "host behind :// is missing"),
        ("mlflow+https:///models", "host behind :// is missing"),
        ("mlflow+http://ada:secret@host:5000", "would stand in logs"),
        ("mlflow+http://host:5000?timeout_s=1", "follows a ? or #"),
        ("mlflow+sqlite:///x.db", "nothing is known of mlflow+sqlite"),
        ("mlflow://host", "nothing is known of mlflow://"),
    ],
)
def test_what_is_no_place(uri: str, words: str) -> None:
    with pytest.raises(ConfigError) as told:
        open_store(uri)
    assert words in told.value.why and "secret" not in str(told.value)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(ConfigError) as told:
        open_store("mlflow+http://host:5000")
    assert "raytrain[mlflow]" in told.value.fix


def test_it_is_shown_in_the_pages_of_its_own_server(
    place: OnMlflow, ring: KeyRing, bundles: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Under NAME, beside the models that hold it; neither is in the other's way."""
    there, keys = ("--registry", place.uri), ("--ring", str(ring.folder))
    for command in (
        ["add", "sums", str(bundles[0]), "--why", "first", *there, *keys],
        ["publish", *there],
        ["tag", "sums@1.0.0", "+golden", *there],
        ["publish", "sums", *there],
        ["doctor", "--mlflow", place.endpoint, *there],
        ["audit", *there, *keys],
    ):
        assert run(["registry", *command]) == 0, (command, capsys.readouterr())
    registry = Registry(place.open())
    move(registry, V1, None)
    assert run(["registry", "publish", *there]) == 0
    assert registry.names() == ["sums"] and faults_of(registry, ring) == [] and registry.orphans() == []
    capsys.readouterr()
    assert run(["registry", "doctor", "--json", "--mlflow", place.endpoint, *there]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["drift"] == [] and told["orphans"] == []
    model = place.client.get_registered_model("sums")
    assert {key: str(version) for key, version in model.aliases.items()} == {"production": "1"}
    (version,) = place.client.search_model_versions("name = 'sums'")
    assert version.tags["raytrain.tags"] == "golden"
    assert version.tags["raytrain.place"].startswith(f"{place.uri}/_bundles.sums/")
