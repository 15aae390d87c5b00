"""The decision, as a table: each rule that fails alone turns the verdict round, and says so by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raytrain.errors import ConfigError
from raytrain.evaluation.decision.contract import default_contract
from raytrain.release.gate.policy import Policy, PolicySection, default_policy, load_policy
from raytrain.release.gate.rules import Approval, Facts, Reading, Refused, Stray, decide

DAY = 86_400.0
NOW = 2_000_000_000.0
ADA, GRACE = "a" * 64, "b" * 64
REPORTS = ("pipeline_check", "evaluation", "contamination", "safety", "drift")
DOCUMENTS = ("export_check", "scan", "sbom", "provenance")


def policy(**changes: Any) -> Policy:
    target = {
        "to": "production",
        "signed_by": ["release"],
        "signed_evidence": True,
        "max_age_days": 7,
        "approvals": [{"role": "reviewer", "needed": 2}],
        **changes,
    }
    roles = [{"role": "reviewer", "keys": ["ada", "grace", "katherine"]}]
    return Policy(
        PolicySection.model_validate({"policy": "test", "roles": roles, "targets": [target]}),
        default_contract(),
    )


def reading(thing: str, **changes: Any) -> Reading:
    suites = ("sha256:sums",) if thing in ("evaluation", "contamination") else ()
    plain = Reading(
        thing,
        f"sha256:{thing}",
        "passed",
        "fine",
        "fine",
        "",
        "mend it",
        NOW - DAY,
        "yesterday",
        "release",
        suites,
    )
    return replace(plain, **changes)


def facts(**changes: Any) -> Facts:
    plain = Facts(
        name="sums",
        version="1.0.0",
        target="production",
        bundle="sha256:bundle",
        subject="sha256:subject",
        signer_id="c" * 64,
        signer_name="release",
        now=NOW,
        readings=tuple(map(reading, (*DOCUMENTS, *REPORTS))),
        approvals=(
            Approval("reviewer", ADA, "ada", "sha256:1"),
            Approval("reviewer", GRACE, "grace", "sha256:2"),
        ),
    )
    return replace(plain, **changes)


def with_reading(thing: str, **changes: Any) -> Facts:
    plain = facts()
    return replace(
        plain, readings=tuple(replace(o, **changes) if o.thing == thing else o for o in plain.readings)
    )


def without(thing: str) -> Facts:
    return replace(facts(), readings=tuple(one for one in facts().readings if one.thing != thing))


def approved_by(*approvals: tuple[str, str, str]) -> Facts:
    found = [Approval(role, key, name, f"sha256:{i}") for i, (role, key, name) in enumerate(approvals)]
    return facts(approvals=tuple(found))


def name_of(thing: str) -> str:
    return thing.replace("_", " ")


EVIDENCE = (*DOCUMENTS, *REPORTS)
PEOPLE, FRESH, SIGNED = "approval: reviewer", "fresh", "signed evidence"
ADAS = ("reviewer", ADA, "ada")
OTHERS = replace(approved_by(ADAS), refused_approvals=(Refused("x by grace", "it is about another bundle"),))

TABLE: list[tuple[str, Facts, str, str, str]] = [
    ("nobody signed", facts(signer_id=None, signer_name=None), "NO-GO", "signature", "no signature"),
    ("another key signed", facts(signer_name="intern"), "NO-GO", "signature", "may not sign"),
    ("a stray", facts(strays=(Stray("x", "sha256:x", "another's"),)), "NO-GO", "one subject", "another's"),
    *(
        (f"no {one}", without(one), "NO-GO", name_of(one), "none about")
        for one in EVIDENCE
        if one != "contamination"
    ),
    *(
        (f"{one} failed", with_reading(one, status="failed", why="bad"), "NO-GO", name_of(one), "bad")
        for one in EVIDENCE
    ),
    *(
        (
            f"{one} cannot tell",
            with_reading(one, status="pending", why="too few"),
            "ESCALATE",
            name_of(one),
            "too few",
        )
        for one in ("evaluation", "safety")
    ),
    *(
        (f"{one} is stale", with_reading(one, made=NOW - 8 * DAY), "NO-GO", FRESH, name_of(one))
        for one in REPORTS
    ),
    ("no time", with_reading("drift", made=None), "NO-GO", FRESH, "does not say when"),
    ("from tomorrow", with_reading("drift", made=NOW + DAY), "NO-GO", FRESH, "drift"),
    *(
        (f"{one} is unsigned", with_reading(one, signed_by=None), "NO-GO", SIGNED, name_of(one))
        for one in REPORTS
    ),
    (
        "a baseline is unsigned",
        with_reading("evaluation", rests_on=(("sha256:own", "release"), ("sha256:the baseline", None))),
        "NO-GO",
        SIGNED,
        "the baseline of evaluation",
    ),
    (
        "a suite not looked for",
        with_reading("contamination", suites=()),
        "NO-GO",
        "suites free of training rows",
        "sums",
    ),
    ("nobody approved", facts(approvals=()), "ESCALATE", PEOPLE, "ada, grace, katherine"),
    ("one approved", approved_by(ADAS), "ESCALATE", PEOPLE, "grace, katherine"),
    ("one approved twice", approved_by(ADAS, ADAS), "ESCALATE", PEOPLE, "grace"),
    (
        "one approved with a new key, too",
        approved_by(ADAS, ("reviewer", GRACE, "ada")),
        "ESCALATE",
        PEOPLE,
        "grace",
    ),
    ("a stranger approved", approved_by(ADAS, ("reviewer", GRACE, "mallory")), "ESCALATE", PEOPLE, "grace"),
    ("in another role", approved_by(ADAS, ("owner", GRACE, "grace")), "ESCALATE", PEOPLE, "grace"),
    ("a replay", OTHERS, "ESCALATE", PEOPLE, "another bundle"),
]


def test_where_all_is_in_order_it_is_go() -> None:
    outcome = decide(policy(), facts())
    assert outcome.verdict == "GO" and outcome.held_by == ()
    assert len(outcome.rules) == 2 + len(DOCUMENTS) + len(REPORTS) + 4
    assert all(one.evidence for one in outcome.rules)


@pytest.mark.parametrize(("case", "known", "verdict", "rule", "why"), TABLE, ids=[one[0] for one in TABLE])
def test_each_rule_alone_turns_it_round_and_names_itself(
    case: str, known: Facts, verdict: str, rule: str, why: str
) -> None:
    outcome = decide(policy(), known)
    assert outcome.verdict == verdict, outcome.held_by
    (held,) = outcome.held_by
    assert held.name == rule
    assert why in held.why
    assert held.change, "it says what would change it"


def test_without_a_contamination_report_nothing_is_known_of_the_suites() -> None:
    held = decide(policy(), without("contamination")).held_by
    assert [one.name for one in held] == ["contamination", "suites free of training rows"]


def test_failed_outweighs_pending_and_of_several_reports_all_count() -> None:
    known = replace(with_reading("evaluation", status="failed"), approvals=())
    outcome = decide(policy(), known)
    assert outcome.verdict == "NO-GO"
    assert [one.status for one in outcome.held_by] == ["failed", "pending"]
    twice = replace(
        facts(), readings=(*facts().readings, reading("safety", status="failed", digest="sha256:other"))
    )
    (held,) = decide(policy(), twice).held_by
    assert held.evidence == ("sha256:safety", "sha256:other") and "worst of 2" in held.why


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"signed_by": []}, facts(signer_name="intern")),
        ({"signed_by": ["c" * 12]}, facts(signer_name="renamed")),
        ({"signed_evidence": False}, with_reading("drift", signed_by=None)),
        ({"max_age_days": None}, with_reading("drift", made=None)),
        ({"approvals": []}, facts(approvals=())),
        ({"approvals": [{"role": "reviewer", "needed": 1}]}, approved_by(("reviewer", ADA, "ada"))),
        ({"reports": []}, facts(readings=tuple(map(reading, DOCUMENTS)))),
        ({"documents": []}, facts(readings=tuple(map(reading, REPORTS)))),
    ],
)
def test_what_is_not_asked_does_not_hold(changes: dict[str, Any], known: Facts) -> None:
    assert decide(policy(**changes), known).verdict == "GO"


def test_a_short_piece_of_an_id_is_no_key() -> None:
    assert decide(policy(signed_by=["c" * 11]), facts(signer_name="renamed")).verdict == "NO-GO"


def test_two_names_for_one_key_are_one_person() -> None:
    plain = policy(approvals=[{"role": "reviewer", "needed": 2}])
    both = plain.section.model_copy(
        update={"roles": [plain.section.roles[0].model_copy(update={"keys": ["ada", ADA[:12], GRACE[:12]]})]}
    )
    once = approved_by(ADAS, ("reviewer", GRACE, "ada"))
    assert decide(Policy(both, plain.contract), once).verdict == "ESCALATE"


def test_the_contract_s_approvals_are_asked_as_well() -> None:
    plain = policy()
    both = Policy(plain.section, default_contract().model_copy(update={"approvals": ["reviewer", "owner"]}))
    asked = both.approvals_of(both.target("production"))
    assert [(one.role, one.needed) for one in asked] == [("reviewer", 2), ("owner", 1)]


def test_the_digest_is_over_everything_that_is_asked() -> None:
    one = policy()
    described = one.section.model_copy(update={"description": "for people"})
    assert Policy(described, one.contract).digest == one.digest
    other = default_contract().model_copy(update={"version": "2"})
    assert len({one.digest, Policy(one.section, other).digest, policy(max_age_days=8).digest}) == 3


def write(folder: Path, text: str) -> Path:
    place = folder / "gate.yaml"
    place.write_text(text)
    return place


HEAD = "policy: test\nroles: [{role: reviewer, keys: [ada]}]\ntargets: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "[{to: produktion}]", "production"),
        (HEAD + "[{to: production, report: []}]", "reports"),
        (HEAD + "[{to: production}, {to: production}]", "two of one name"),
        (HEAD + "[{to: production, reports: [safety, safety]}]", "names one twice"),
        (HEAD + "[{to: production, approvals: [{role: owner}]}]", "the role owner"),
        (HEAD + "[{to: production, approvals: [{role: reviewer, needed: 2}]}]", "2 of reviewer"),
        (HEAD + "[{to: production, override_by: [owner]}]", "the role owner"),
        (HEAD + "[]", "at least 1"),
        ("contract: nowhere.yaml\n" + HEAD + "[{to: production}]", "no such contract file"),
    ],
)
def test_a_policy_with_a_fault_is_refused_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, text))
    assert words in str(caught.value)


def test_a_contract_s_approver_must_have_keys(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").write_text('contract: c\nsuites: [{suite: "*"}]\napprovals: [owner]\n')
    with pytest.raises(ConfigError, match="approval of 'owner'"):
        load_policy(write(tmp_path, "contract: contract.yaml\n" + HEAD + "[{to: production}]"))


def test_the_files_that_are_shipped(pytestconfig: pytest.Config) -> None:
    places = sorted((pytestconfig.rootpath / "jobs" / "gates").glob("*.yaml"))
    loaded = {place.stem: load_policy(place) for place in places}
    assert loaded.keys() == {"default", "small-team", "demo", "month"}
    assert loaded["default"].digest == default_policy().digest
    with pytest.raises(ConfigError, match="lets nothing into 'dev'"):
        loaded["small-team"].target("dev")
    assert loaded["demo"].target("production").override_by == ["release-lead"]
