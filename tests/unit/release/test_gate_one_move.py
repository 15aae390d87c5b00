"""A record is for one move of one name. Whoever can write to the registry, and has no key, gets nothing by it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gates import WEAK, promoted, team_policy, wanted
from releases import Evidence, Trained, release

from raytrain.errors import RefusedError
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.gate.audit import audit
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.promote import Desk, Insisted, judge, promote
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)


@pytest.fixture
def two(desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path) -> Desk:
    """1.0.0 and then 1.1.0 came to production."""
    release(desk.registry, ring, tmp_path / "second", Trained(name="second"), "1.1.0")
    let_in(desk, evidence, "1.0.0", "1.1.0")
    return desk


def let_in(desk: Desk, evidence: Evidence, *versions: str, name: str = "sums") -> None:
    for version in versions:
        assert promoted(desk, wanted(evidence, WEAK, reference=f"{name}@{version}", evidence=())).moved


def back(desk: Desk, tell: Any = lambda _: None) -> str:
    hangar = Hangar(desk.registry, desk.ring, Location(f"{desk.registry.place}-cache"), tell)
    key = desk.ring.signing_key("release")
    return str(roll_back(hangar, "sums", key, RollbackOptions()).after)


def record_at(desk: Desk, number: int, name: str = "sums") -> str:
    return str(desk.registry.entries(name)[number - 1].details["decision"])


def faults(desk: Desk) -> list[str]:
    return [f"{one.thing}: {one.what}" for _, found in audit(desk.registry, desk.ring) for one in found]


def refusal(desk: Desk, reference: str = "sums@production", policies: set[str] | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        require_released(desk.registry, reference, desk.ring, policies=policies)
    return caught.value.why


def test_the_record_of_another_name_lets_nothing_in(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    release(desk.registry, ring, tmp_path / "legal", Trained(name="legal"), "1.0.0", name="legal")
    let_in(desk, evidence, "1.0.0")
    let_in(desk, evidence, "1.0.0", name="legal")
    registry, sums = desk.registry, desk.registry.find("sums@1.0.0")
    bundle = registry.store.open_bundle("sums", sums.digest[7:])
    public = tmp_path / "public"
    public.mkdir()
    shutil.copy(ring.folder / "ring.json", public)
    registry.register("legal", Version(1, 0, 1), bundle, KeyRing(public), made_from={}, why="x")
    theirs, ours = (Path(shelf_of(registry, one, "records").place) for one in ("sums", "legal"))
    shutil.copytree(theirs, ours, dirs_exist_ok=True)
    stolen = record_at(desk, 2)
    registry.move("legal", "production", Version(1, 0, 1), expected=V1, decision=stolen, why="x")
    assert "about another name: sums, not legal" in refusal(desk, "legal@production", {WEAK.digest})
    assert "record of entry 4" in faults(desk)[0] and "about another name" in faults(desk)[0]


def test_the_record_of_another_version_of_the_same_bundle_lets_it_not_in(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    let_in(desk, evidence, "1.0.0")
    desk.registry.register("sums", V2, tmp_path / "bundle", ring, made_from={}, why="x")
    desk.registry.move("sums", "production", V2, expected=V1, decision=record_at(desk, 2), why="x")
    assert "about another version: 1.0.0, not 1.1.0" in refusal(desk)


def test_a_record_is_used_once(two: Desk, evidence: Evidence) -> None:
    bad = record_at(two, 4)
    assert back(two) == "1.0.0"
    way_back = record_at(two, 5)
    require_released(two.registry, "sums@production", two.ring)
    assert faults(two) == []
    two.registry.move("sums", "production", V2, expected=V1, decision=bad, why="nobody signed this")
    assert "it is for another move" in refusal(two, policies={WEAK.digest})
    assert "is for another move" in refusal(two, "sums@1.1.0")
    (fault,) = faults(two)
    assert fault.startswith("record of entry 6: ") and "entry 4 names it already" in fault
    two.registry.move("sums", "production", V1, expected=V2, decision=way_back, why="nor this")
    assert "it is for another move" in refusal(two)
    assert len(faults(two)) == 2
    let_in(two, evidence, "1.1.0")
    require_released(two.registry, "sums@production", two.ring)
    assert back(two) == "1.0.0"
    require_released(two.registry, "sums@production", two.ring)


def test_a_record_that_came_too_late_is_not_used_later(
    desk: Desk, evidence: Evidence, tmp_path: Path
) -> None:
    release(desk.registry, desk.ring, tmp_path / "second", Trained(name="second"), "1.1.0")
    records = shelf_of(desk.registry, "sums", "records")

    def overtake(text: str) -> None:
        if text == "moving sums@production to 1.0.0":
            let_in(replace(desk, tell=lambda _: None), evidence, "1.1.0")

    with pytest.raises(RefusedError, match="was not moved"):
        let_in(replace(desk, tell=overtake), evidence, "1.0.0")
    (unused,) = set(records.store.bundles(records.name)) - {record_at(desk, 3)[7:]}
    desk.registry.move(
        "sums", "production", V1, expected=V2, decision=f"sha256:{unused}", why="nobody knows the state now"
    )
    assert "it is for another move, that after entry 1" in refusal(desk)


def test_an_alias_that_went_to_and_fro_meanwhile_was_moved(
    two: Desk, evidence: Evidence, tmp_path: Path
) -> None:
    """What was decided before it would count for nothing."""
    release(two.registry, two.ring, tmp_path / "third", Trained(name="third"), "1.2.0")

    def meddle(text: str) -> None:
        if text in ("moving sums@production to 1.2.0", "switch"):
            for to, there in ((V1, V2), (V2, V1)):
                two.registry.move("sums", "production", to, expected=there, decision=None, why="by hand")

    for act in (lambda: back(two, meddle), lambda: let_in(replace(two, tell=meddle), evidence, "1.2.0")):
        with pytest.raises(RefusedError, match="was not moved") as caught:
            act()
        assert "it is 1.1.0, again" in caught.value.why


def test_what_else_is_written_between_record_and_move_does_no_harm(
    desk: Desk, evidence: Evidence, tmp_path: Path
) -> None:
    def write_others(text: str) -> None:
        if text.startswith("moving"):
            desk.registry.tag("sums", V1, added={"golden"})
            release(desk.registry, desk.ring, tmp_path / "second", Trained(name="second"), "1.1.0")
            desk.registry.move("sums", "dev", V2, expected=None, decision=None, why="by hand")

    let_in(replace(desk, tell=write_others), evidence, "1.0.0")
    assert [one.action for one in desk.registry.entries("sums")] == [
        "register", "tag", "register", "move", "move"
    ]  # fmt: skip
    require_released(desk.registry, "sums@production", desk.ring)


def test_who_was_killed_before_the_move_finds_the_record_again(desk: Desk, evidence: Evidence) -> None:
    class Killed(BaseException):
        pass

    def kill(text: str) -> None:
        if text.startswith("moving"):
            raise Killed

    with pytest.raises(Killed):
        let_in(replace(desk, tell=kill), evidence, "1.0.0")
    desk.registry.tag("sums", V1, added={"golden"})
    let_in(desk, evidence, "1.0.0")
    records = shelf_of(desk.registry, "sums", "records")
    assert records.store.bundles(records.name) == [record_at(desk, 3)[7:]]
    require_released(desk.registry, "sums@production", desk.ring)
    again = promoted(desk, wanted(evidence, WEAK, evidence=()))
    assert not again.moved and again.record is not None and again.record.digest == record_at(desk, 3)


def test_a_record_of_another_registry_moves_nothing_here(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    """Records come along with a version from one registry to another."""
    let_in(desk, evidence, "1.0.0")
    plant = replace(desk, registry=Registry(tmp_path / "plant"))
    plant.registry.register("sums", V1, tmp_path / "bundle", ring, made_from={}, why="x")
    record = record_at(desk, 2)
    source = Path(shelf_of(desk.registry, "sums", "records").place) / record[7:]
    shelf_of(plant.registry, "sums", "records").keep(source, ring)
    plant.registry.move("sums", "production", V1, expected=None, decision=record, why="x")
    assert "it is for another move" in refusal(plant)


def test_a_policy_from_before_does_not_come_back_by_its_old_record(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    let_in(desk, evidence, "1.0.0")
    weak = record_at(desk, 2)
    asked = wanted(evidence, team_policy(), why="we are a team")
    assert promote(desk, asked, reviewers.signing_key("ada"), Insisted(change_policy_as="")).moved
    desk.registry.move("sums", "production", V1, expected=V1, decision=weak, why="nobody signed this")
    with pytest.raises(RefusedError, match="under another policy"):
        let_in(desk, evidence, "1.0.0")
    assert promote(desk, asked, reviewers.signing_key("mallory")).moved, "it is under the one of the team"


def aged(desk: Desk, number: int) -> str:
    """The record of an entry as an older raytrain wrote it, signed."""
    source = Path(shelf_of(desk.registry, "sums", "records").place) / record_at(desk, number)[7:]
    kind = json.loads((source / "manifest.json").read_text())["kind"]

    def write(place: Path) -> None:
        for one in source.iterdir():
            if one.name != "manifest.json":
                shutil.copy(one, place)
        told = json.loads((place / "record.json").read_text())
        del told["follows"]
        (place / "record.json").write_text(json.dumps(told))

    bundle = json.loads((source / "manifest.json").read_text())["parents"]["bundle"]
    shelf, key = shelf_of(desk.registry, "sums", "records"), desk.ring.signing_key("release")
    return shelf.put(kind, write, key, desk.ring, parents={"bundle": bundle}).digest


def test_an_older_record_is_told_as_one_and_made_anew(two: Desk, evidence: Evidence) -> None:
    registry = two.registry
    assert back(two) == "1.0.0"
    older = aged(two, 4)
    registry.move("sums", "production", V2, expected=V1, decision=older, why="with an older raytrain")
    with pytest.raises(RefusedError, match="may not be loaded") as caught:
        require_released(registry, "sums@production", two.ring)
    assert "written by an older raytrain" in caught.value.why
    assert caught.value.fix == "raytrain promote sums@1.1.0 --to production"
    assert "an older raytrain" in faults(two)[0]
    with pytest.raises(RefusedError, match="under another policy"):
        promoted(two, wanted(evidence, team_policy(), reference="sums@1.1.0"))
    let_in(two, evidence, "1.1.0")
    require_released(registry, "sums@production", two.ring)
    assert faults(two) == [], "what no alias stands on was in order when it was decided"
    registry.move("sums", "production", V1, expected=V2, decision=aged(two, 5), why="with an older raytrain")
    assert "written by an older raytrain" in refusal(two)


def test_an_approval_is_for_one_name(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    policy = team_policy(reports=[], documents=[], max_age_days=None, approvals=[{"role": "reviewer"}])
    desk.registry.register("legal", V1, tmp_path / "bundle", reviewers, made_from={}, why="x")
    key = reviewers.signing_key("ada")
    about = about_bundle(desk.registry.verified("sums@1.0.0", reviewers).artifact)
    statement = statement_of("sums", about, policy, "production", "reviewer", key, "fine for sums")
    shelf = shelf_of(desk.registry, "sums", "approvals")
    given = str(write_approval(shelf, statement, key, reviewers).path)
    asked = wanted(evidence, policy, evidence=(given,))
    assert judge(desk, asked).outcome.verdict == "GO"
    other = judge(desk, replace(asked, reference="legal@1.0.0"))
    assert other.outcome.verdict == "ESCALATE"
    assert "about another name: sums, not legal" in other.outcome.held_by[0].why


def test_an_approval_without_a_name_says_that_it_is_old(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    policy = team_policy(reports=[], documents=[], max_age_days=None, approvals=[{"role": "reviewer"}])
    key = reviewers.signing_key("ada")
    about = about_bundle(desk.registry.verified("sums@1.0.0", reviewers).artifact)
    told = vars(statement_of("sums", about, policy, "production", "reviewer", key, "")).copy()
    del told["name"]

    def write(place: Path) -> None:
        (place / "statement.json").write_text(json.dumps(told))

    shelf = shelf_of(desk.registry, "sums", "approvals")
    shelf.put("approval", write, key, reviewers, parents={"bundle": about.bundle, "subject": about.subject})
    (rule,) = judge(desk, wanted(evidence, policy, evidence=())).outcome.held_by
    assert rule.status == "pending" and "an older raytrain wrote it" in rule.why
