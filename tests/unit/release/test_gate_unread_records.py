"""A record that a registry fails to hand out for a moment is not taken for one that is not there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from gates import WEAK, promoted, team_policy, wanted
from releases import Evidence, Trained, release

from raytrain.errors import RefusedError, StorageError
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.promote import Desk
from raytrain.release.gate.record import RECORD_FILE
from raytrain.release.keys import KeyRing
from raytrain.release.registry.folder_store import FolderStore
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

Act = Callable[[Registry], object]


class Faltering(FolderStore):
    """Some reads of records fail, counted from 1."""

    def __init__(self, folder: Path, failing: range) -> None:
        super().__init__(folder)
        self.failing = failing
        self.num_reads = self.num_failed = 0

    def open_bundle(self, name: str, digest: str, scratch: Path | None = None) -> Path:
        if name.startswith("_records."):
            self.num_reads += 1
            if self.num_reads in self.failing:
                self.num_failed += 1
                raise StorageError(f"cannot read {digest}", why="nobody answers", fix="try again")
        return super().open_bundle(name, digest, scratch)


@pytest.fixture
def three(desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path) -> Desk:
    """1.0.0, 1.1.0 and 1.2.0 came to production one after another."""
    for i in (1, 2):
        release(
            desk.registry, ring, tmp_path / f"bundle-{i}", Trained(dataset=f"sha256:rows {i}"), f"1.{i}.0"
        )
    for i in range(3):
        assert promoted(desk, wanted(evidence, WEAK, reference=f"sums@1.{i}.0", evidence=())).moved
    return desk


def hangar_of(registry: Registry, desk: Desk) -> Hangar:
    return Hangar(registry, desk.ring, Location(f"{desk.registry.place}-cache"))


def back(registry: Registry, desk: Desk) -> str:
    key = desk.ring.signing_key("release")
    return str(roll_back(hangar_of(registry, desk), "sums", key, RollbackOptions()).after)


def fail_at_each_read(desk: Desk, act: Act, times: int = 1) -> int:
    """Until it is through with no read failing; how many reads there were, each of which has stopped it once."""
    before = desk.registry.entries("sums")
    for first in count(1):
        store = Faltering(Path(desk.registry.place), range(first, first + times))
        try:
            act(Registry(store))
        except StorageError as error:
            assert error.exit_code == 4
            assert desk.registry.entries("sums") == before, f"read {first} failed, and something was moved"
        else:
            assert not store.num_failed, f"read {first} failed, and it went on"
            return first - 1
    raise AssertionError("it counts for ever")


def test_promotion_past_a_stricter_policy_is_refused_or_stops(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    assert promoted(desk, wanted(evidence, team_policy())).moved
    release(desk.registry, reviewers, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    laxer = wanted(evidence, WEAK, reference="sums@1.1.0", evidence=())

    def promote(registry: Registry) -> None:
        with pytest.raises(RefusedError, match="under another policy"):
            promoted(Desk(registry, desk.ring, desk.shelves), laxer)

    assert fail_at_each_read(desk, promote) >= 2


def test_a_promotion_that_cannot_be_read_is_not_taken_for_a_rollback(three: Desk, evidence: Evidence) -> None:
    assert promoted(three, wanted(evidence, WEAK, reference="sums@1.0.0", evidence=())).moved
    went: list[str] = []
    assert fail_at_each_read(three, lambda registry: went.append(back(registry, three))) >= 4
    assert went == ["1.2.0"], "what served until 1.0.0 was promoted again"


@pytest.mark.parametrize("times", [1, 2])
def test_who_loads_a_version_that_came_by_a_rollback_is_not_told_that_it_may_not(
    times: int, three: Desk
) -> None:
    assert back(three.registry, three) == "1.1.0"

    def load(registry: Registry) -> None:
        assert require_released(registry, "sums@production", three.ring).about.dataset == "sha256:rows 1"

    assert fail_at_each_read(three, load, times) >= 4


def test_a_disk_that_gives_no_file_of_a_record_stops_it_as_well(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system whose server is gone: what is there is known, and nothing of it comes."""
    assert promoted(desk, wanted(evidence, team_policy())).moved
    read_text, records = Path.read_text, shelf_of(desk.registry, "sums", "records").place

    def fails(file: Path, *given: str, **more: str) -> str:
        if file.name == RECORD_FILE and str(file).startswith(records):
            raise OSError(5, "Input/output error", str(file))
        return read_text(file, *given, **more)

    monkeypatch.setattr(Path, "read_text", fails)
    with pytest.raises(StorageError, match="cannot read") as caught:
        promoted(desk, wanted(evidence, WEAK, evidence=()))
    assert caught.value.why == "Input/output error"
