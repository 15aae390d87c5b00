"""Back to the version before: which one that is."""

from __future__ import annotations

from pathlib import Path

import pytest
from gates import promoted, team_policy, wanted
from releases import Evidence, Trained, release

from raytrain.errors import RefusedError
from raytrain.release.gate.promote import Desk, Insisted, promote
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
from raytrain.release.rollback_target import choose_target, good_versions
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


def moves(*versions: str) -> list[Entry]:
    """Of production, with what else may happen between. `1.0.0 again` = promoted once more."""
    found = [Entry(0, "", "", "", "move", {"alias": "staging", "version": "7.0.0"}, "")]
    for version in versions:
        number, _, how = version.partition(" ")
        found.append(Entry(0, "", "", "", "register", {"version": number}, ""))
        found.append(Entry(0, "", "", "", "move", {"alias": "production", "version": number}, how))
    return found


def is_promotion(move: Entry) -> bool:
    return move.why == "again"


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ([], []),
        (["1.0.0"], ["1.0.0"]),
        (["1.0.0", "1.1.0", "1.2.0"], ["1.0.0", "1.1.0", "1.2.0"]),
        (["1.0.0", "1.1.0", "1.2.0", "1.1.0"], ["1.0.0", "1.1.0"]),
        (["1.0.0", "1.1.0", "1.2.0", "1.1.0", "1.0.0"], ["1.0.0"]),
        (["1.0.0", "1.1.0", "1.0.0", "1.2.0"], ["1.0.0", "1.2.0"]),
        (["1.0.0", "1.1.0", "1.0.0", "1.1.0"], ["1.0.0", "1.1.0"]),
        (["1.0.0", "1.1.0", "1.0.0 again"], ["1.1.0", "1.0.0"]),
        (["1.0.0", "1.1.0", "1.0.0 again", "1.1.0"], ["1.1.0"]),
        (["1.0.0", "1.1.0", "1.1.0 again"], ["1.0.0", "1.1.0"]),
        (["1.0.0", "1.1.0", "1.2.0", "1.0.0 again", "1.2.0"], ["1.1.0", "1.2.0"]),
    ],
)
def test_going_back_takes_what_was_left_off_the_list(history: list[str], left: list[str]) -> None:
    assert [str(one) for one in good_versions(moves(*history), is_promotion)] == left


HISTORY = ["1.0.0", "1.1.0", "1.2.0"]


@pytest.mark.parametrize(
    ("history", "forced", "to", "now", "goal", "passed_over"),
    [
        (HISTORY, [], None, "1.2.0", "1.1.0", []),
        ([*HISTORY, "1.1.0"], [], None, "1.1.0", "1.0.0", []),
        ([*HISTORY, "1.1.0"], [], "1.2.0", "1.1.0", "1.2.0", []),
        (HISTORY, ["1.1.0"], None, "1.2.0", "1.0.0", ["1.1.0"]),
        (HISTORY, ["1.1.0"], "1.1.0", "1.2.0", "1.1.0", []),
        (HISTORY, ["1.2.0"], None, "1.2.0", "1.1.0", []),
        ([*HISTORY, "1.3.0"], ["1.1.0", "1.2.0"], None, "1.3.0", "1.0.0", ["1.2.0", "1.1.0"]),
    ],
)
def test_it_goes_to_the_nearest_that_nobody_had_to_force_unless_another_is_named(
    history: list[str], forced: list[str], to: str | None, now: str, goal: str, passed_over: list[str]
) -> None:
    wanted = None if to is None else Version.parse(to)
    way = choose_target(moves(*history), "sums", wanted, is_promotion, lambda one: str(one) in forced)
    assert [str(one) for one in (way.now, way.to)] == [now, goal]
    assert [str(one) for one in way.passed_over] == passed_over


def test_who_has_nothing_to_go_back_to_is_told_why() -> None:
    for known, to, kind, words in (
        (moves(), None, RefusedError, "nothing in production"),
        (moves("1.0.0"), None, RefusedError, "no version before 1.0.0"),
        (moves(*HISTORY, "1.1.0", "1.0.0"), None, RefusedError, "no version before 1.0.0"),
        (moves("0.1.0", "0.2.0", "1.0.0"), None, RefusedError, "an override of the gate: 0.2.0, 0.1.0"),
        (moves(*HISTORY), Version(7, 0, 0), RefusedError, "in production were besides: 1.1.0, 1.0.0"),
    ):
        with pytest.raises(kind) as caught:
            choose_target(known, "sums", to, is_promotion, lambda one: one.major == 0)
        assert words in str(caught.value)


def test_a_version_that_the_gate_had_refused_is_gone_back_to_by_name_alone(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    policy, ada = team_policy(reports=[], documents=["sbom"]), reviewers.signing_key("ada")
    for version, documents in (("1.1.0", {"sbom.cdx.json": None}), ("1.2.0", {})):
        trained = Trained(dataset=f"sha256:{version}")
        release(desk.registry, reviewers, tmp_path / version, trained, version, documents=documents)
    for version, verdict in (("1.0.0", "GO"), ("1.1.0", "NO-GO"), ("1.2.0", "GO")):
        asked = wanted(evidence, policy, reference=f"sums@{version}", evidence=(), why="x")
        done = promote(desk, asked, ada, Insisted(override_as="on-call"))
        assert (done.moved, done.judged.outcome.verdict) == (True, verdict)
    hangar = Hangar(desk.registry, reviewers, Location(str(tmp_path / "cache")))
    done_back = roll_back(hangar, "sums", ada, RollbackOptions())
    assert str(done_back.after) == "1.0.0"
    assert done_back.notes == ["1.1.0 was passed over: an override of the gate let it in"]
    done_back = roll_back(hangar, "sums", ada, RollbackOptions(to=Version(1, 1, 0)))
    assert str(done_back.after) == "1.1.0"
    assert done_back.notes == ["1.1.0 was let in by an override of the gate"]
    assert promoted(desk, wanted(evidence, policy, reference="sums@1.2.0", evidence=())).moved
    assert str(roll_back(hangar, "sums", ada, RollbackOptions(rehearse=True)).after) == "1.0.0"
