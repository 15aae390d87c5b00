"""This machine's copies of bundles that lie elsewhere, with several who open them."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from registry_contract import of_another_day

from raytrain.release.keys import KeyRing
from raytrain.release.registry.bundle_copies import drop_copy, open_copy
from raytrain.release.registry.store import Seal
from raytrain.release.signing import sign, signature_place, verify
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_hex, read_manifest


@dataclass
class Elsewhere:
    """A bundle in a store, and how often it was fetched."""

    bundle: Path
    place: str = "s3://bucket/sums"
    started: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    num_fetched: int = 0

    def __post_init__(self) -> None:
        self.go_on.set()

    @property
    def seal(self) -> Seal:
        return (self.bundle / MANIFEST_NAME).read_bytes(), signature_place(self.bundle).read_bytes()

    def open(self) -> Path:
        digest = digest_hex(read_manifest(Location(str(self.bundle))).digest)
        return open_copy(self.place, digest, self.seal, None, self.fetch)

    def fetch(self, folder: Path) -> None:
        self.num_fetched += 1
        self.started.set()
        assert self.go_on.wait(60)
        shutil.copytree(self.bundle, folder, dirs_exist_ok=True)


@pytest.fixture
def there(bundles: list[Path]) -> Elsewhere:
    return Elsewhere(bundles[0])


def test_of_many_who_open_it_at_once_one_fetches_and_all_have_it(there: Elsewhere, ring: KeyRing) -> None:
    there.go_on.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(there.open)
        assert there.started.wait(60)
        others = [pool.submit(there.open) for _ in range(7)]
        there.go_on.set()
        places = {one.result() for one in [first, *others]}
    assert len(places) == 1 and there.num_fetched == 1
    assert verify(places.pop(), ring).key.name == "release"


def test_one_that_was_dropped_takes_no_other_with_it(there: Elsewhere, ring: KeyRing) -> None:
    """Two have found the same copy damaged, and the first has fetched another by the time the second drops it."""
    damaged = there.open()
    (damaged / "card.md").write_bytes(b"x" * (damaged / "card.md").stat().st_size)
    assert drop_copy(damaged)
    whole = there.open()
    assert drop_copy(damaged), "it is none any more"
    assert there.open() == whole and there.num_fetched == 2
    assert verify(whole, ring)
    assert not drop_copy(there.bundle)


def test_one_with_a_file_too_few_is_fetched_again(there: Elsewhere, ring: KeyRing) -> None:
    for name in ("card.md", MANIFEST_NAME):
        (there.open() / name).unlink()
        verify(there.open(), ring)
    signature_place(there.open()).write_bytes(b"{}")
    verify(there.open(), ring)
    assert there.num_fetched == 4


def test_what_is_sealed_otherwise_or_lies_elsewhere_is_another_copy(
    there: Elsewhere, ring: KeyRing, tmp_path: Path
) -> None:
    """As of two registries, one for trying out: neither changes what readers of the other one have open."""
    another = KeyRing(tmp_path / "keys of another")
    another.generate("another")
    first = there.open()
    resigned = Elsewhere(tmp_path / "resigned")
    shutil.copytree(there.bundle, resigned.bundle)
    sign(resigned.bundle, another.signing_key("another"))
    other_day = Elsewhere(of_another_day(there.bundle, tmp_path / "another day", ring))
    other_place = Elsewhere(there.bundle, "s3://bucket/another")
    places = {first, resigned.open(), other_day.open(), other_place.open()}
    assert len(places) == 4
    assert verify(first, ring) and verify(resigned.open(), another)
    assert (other_day.open() / MANIFEST_NAME).read_bytes() == other_day.seal[0]


def test_without_a_manifest_there_is_only_the_signature(there: Elsewhere, tmp_path: Path) -> None:
    for scratch in (None, tmp_path / "scratch"):
        place = open_copy(there.place, "0" * 64, (None, b"{}"), scratch, there.fetch)
        assert list(place.iterdir()) == [] and signature_place(place).read_bytes() == b"{}"
    assert there.num_fetched == 0
