"""A registry on Google Cloud Storage: the contract through obstore's own client of its XML interface. No emulator of
that comes from a package index; behind GoogleProxy stands moto's S3 server, which speaks the rest of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra raytrain[s3] is not installed")
pytest.importorskip("moto", reason="it is of the extra raytrain[dev]")

from object_server import CREDENTIALS, GOOGLE_CREDENTIALS, GoogleProxy, Proxy, object_server
from object_stores import Bucket
from registry_contract import RegistryContract
from shelf_contract import ShelfContract

from raytrain.release.registry.object_store import ObjectStore

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with object_server(GoogleProxy) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in CREDENTIALS:
        monkeypatch.delenv(key, raising=False)
    for key, value in GOOGLE_CREDENTIALS.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path) -> Bucket:
    proxy.plan(None)
    return Bucket(proxy.uri(f"{tmp_path.name}/registry"))


class TestGoogle(RegistryContract):
    start_method = "spawn"  # the client has threads


class TestShelfOnGoogle(ShelfContract):
    pass


def test_an_entry_whose_answer_was_lost_is_there_once(proxy: Proxy, place: Bucket) -> None:
    store = place.open()
    assert isinstance(store, ObjectStore)
    proxy.plan(1, "lost answer")
    assert store.create_entry("assistant", 1, b"{}")
    assert not store.create_entry("assistant", 1, b"{1}")
    assert store.entries("assistant") == [(1, b"{}")]
