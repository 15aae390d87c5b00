"""A registry on S3: the contract against moto's server, and requests that fail, one after the other."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra raytrain[s3] is not installed")
pytest.importorskip("moto", reason="it is of the extra raytrain[dev]")

from object_server import CREDENTIALS, Proxy, object_server
from object_stores import Bucket
from registry_contract import (
    V1,
    RegistryContract,
    faults_of,
    release,
    state_told,
    states_of,
)
from registry_outages import FAILURES, check_gc, check_old_or_new, check_tag_and_withdraw, first_steps
from registry_places import OnDisk, Place
from shelf_contract import ShelfContract

from raytrain.cli.main import run
from raytrain.errors import ConfigError, StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.object_client import ObjectClient
from raytrain.release.registry.object_store import ObjectStore
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with object_server() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in CREDENTIALS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path) -> Bucket:
    proxy.plan(None)
    return Bucket(proxy.uri(f"{tmp_path.name}/registry"))


@pytest.mark.slow
class TestS3(RegistryContract):
    start_method = "spawn"  # the client has threads


@pytest.mark.slow
class TestShelfOnS3(ShelfContract):
    pass


@dataclass(frozen=True)
class ObjectsOnDisk(OnDisk):
    """obstore's own store in a folder: the same code without a server."""

    def open(self) -> ObjectStore:
        from obstore.store import LocalStore

        return ObjectStore(
            ObjectClient(LocalStore(self.path, mkdir=True, automatic_cleanup=True), str(self.path))
        )


class TestObjectsOnDisk(RegistryContract):
    start_method = "spawn"

    @pytest.mark.slow
    def test_of_many_promoters_one_wins_and_the_others_are_told(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        super().test_of_many_promoters_one_wins_and_the_others_are_told(registry, ring, bundles, place)

    @pytest.fixture
    def place(self, tmp_path: Path) -> ObjectsOnDisk:
        return ObjectsOnDisk(tmp_path / "objects")


class TestShelfOfObjectsOnDisk(ShelfContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> ObjectsOnDisk:
        return ObjectsOnDisk(tmp_path / "objects")


@pytest.mark.slow
@pytest.mark.thorough
def test_one_fault_of_any_request_is_passed_over(
    proxy: Proxy, place: Bucket, ring: KeyRing, bundles: list[Path], tmp_path: Path
) -> None:
    """An answer that is lost after the entry was written, above all: it must be found to be ours."""
    expected = states_of(Registry(place.open()), ring, bundles)[1]
    for point in range(1, _num_requests(proxy, ring, bundles, tmp_path) + 1):
        registry = Registry(open_store(proxy.uri(f"{tmp_path.name}/{point}")))
        proxy.plan(point, FAILURES[point % 3])
        first_steps(registry, ring, bundles)
        proxy.plan(None)
        assert state_told(registry) == expected, f"request {point}, {FAILURES[point % 3]}"
        assert len(registry.entries("sums")) == 2


@pytest.mark.slow
@pytest.mark.thorough
def test_a_service_that_goes_away_at_any_request_leaves_the_old_state_or_the_new(
    proxy: Proxy, place: Bucket, ring: KeyRing, bundles: list[Path], tmp_path: Path
) -> None:
    expected = states_of(Registry(place.open()), ring, bundles)[:2]
    total = _num_requests(proxy, ring, bundles, tmp_path)
    assert total >= 20
    for point in range(1, total + 1):
        registry = Registry(open_store(proxy.uri(f"{tmp_path.name}/{point}", timeout_s=0.2)))
        check_old_or_new(registry, ring, bundles, proxy, point, expected)


@pytest.mark.slow
def test_a_service_that_goes_away_at_any_request_of_a_tag_a_withdrawal_or_a_gc(
    proxy: Proxy, place: Bucket, ring: KeyRing, bundles: list[Path], tmp_path: Path
) -> None:
    numbers = itertools.count()

    def fresh() -> tuple[Registry, Registry]:
        place = f"{tmp_path.name}/late-{next(numbers)}"
        return Registry(open_store(proxy.uri(place))), Registry(open_store(proxy.uri(place, timeout_s=0.5)))

    assert check_tag_and_withdraw(fresh, proxy, ring, bundles) >= 4
    assert check_gc(fresh, proxy, ring, bundles) >= 8


def _num_requests(proxy: Proxy, ring: KeyRing, bundles: list[Path], tmp_path: Path) -> int:
    """Of the first two steps: a version, and production."""
    registry = Registry(open_store(proxy.uri(f"{tmp_path.name}/counted")))
    proxy.plan(None)
    first_steps(registry, ring, bundles)
    return proxy.count


def test_a_service_that_never_answers_is_told(
    proxy: Proxy, tmp_path: Path, ring: KeyRing, bundles: list[Path]
) -> None:
    registry = Registry(open_store(proxy.uri(f"{tmp_path.name}/silent", timeout_s=0.3)))
    proxy.plan(1, "silence", times=1_000_000)
    with pytest.raises(StorageError, match=proxy.endpoint) as told:
        release(registry, ring, V1, bundles[0])
    proxy.plan(None)
    assert told.value.exit_code == 4
    assert registry.names() == []


def test_nobody_listens_and_no_such_bucket(
    proxy: Proxy, tmp_path: Path, ring: KeyRing, bundles: list[Path]
) -> None:
    away = proxy.uri("x", timeout_s=0.3).replace(f":{proxy.port}", ":9")
    for uri, words in ((away, "127.0.0.1:9"), (proxy.uri("x").replace("//bucket", "//nobody"), "nobody")):
        with pytest.raises(StorageError, match=words):
            release(Registry(open_store(uri)), ring, V1, bundles[0])


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://", "bucket behind :// is missing"),
        ("s3://?region=x", "bucket behind :// is missing"),
        ("ftp://host/folder", "nothing is known of ftp"),
        ("hdfs://host/folder", "nothing is known of hdfs"),
        ("abfs://box@account/folder", "nothing is known of abfs"),
        ("s3://b/f?endpoint=x", "nothing is known of endpoint"),
        ("gs://b/f?region=x", "nothing is known of region"),
        ("s3://b/f?timeout_s=soon", "timeout_s=soon"),
        ("s3://b/f?timeout_s=nan", "timeout_s=nan"),
    ],
)
def test_what_is_no_place(uri: str, words: str) -> None:
    with pytest.raises(ConfigError) as told:
        open_store(uri)
    assert words in told.value.why


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError) as told:
        open_store("s3://bucket/folder")
    assert "raytrain[s3]" in told.value.fix


@pytest.mark.slow
def test_the_commands_take_a_uri(
    place: Bucket, bundles: list[Path], ring: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a bucket over a file to a folder."""
    keys, file = ("--ring", str(ring.folder)), str(tmp_path / "sums.tar")
    there, here = ("--registry", place.uri), ("--registry", str(tmp_path / "folder"))
    for command in (
        ["add", "sums", str(bundles[0]), "--why", "first", *there, *keys],
        ["add", "sums", str(bundles[1]), "--why", "second", *there, *keys],
        ["tag", "sums@1.0.0", "+golden", *there],
        ["diff", "sums@1.0.0", "sums@1.0.1", *there, *keys],
        ["export", "sums@1.0.0", file, *there, *keys],
        ["import", file, *here, *keys],
        *(["audit", *one, *keys] for one in (there, here)),
        ["gc", *there],
    ):
        assert run(["registry", *command]) == 0, (command, capsys.readouterr())
    capsys.readouterr()
    assert run(["registry", "list", "--json", *there]) == 0
    (told,) = json.loads(capsys.readouterr().out)["names"]
    assert [one["version"] for one in told["versions"]] == ["1.0.1", "1.0.0"]
    assert faults_of(Registry(tmp_path / "folder"), ring) == []


@pytest.mark.slow
def test_only_what_is_new_is_fetched(proxy: Proxy, place: Bucket, ring: KeyRing, bundles: list[Path]) -> None:
    registry = Registry(place.open())
    release(registry, ring, V1, bundles[0])
    for i in range(20):
        registry.tag("sums", V1, added={str(i)})
    registry.entries("sums")
    proxy.plan(None)
    assert len(registry.entries("sums")) == 21
    assert proxy.count == 2, "a list, and the last entry"
