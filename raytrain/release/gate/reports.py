"""What each kind of report says of a trained artifact, held against a policy's limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from raytrain.evaluation.contamination.report import REPORT_KIND as CONTAMINATION_KIND
from raytrain.evaluation.safety.findings import SEVERITIES
from raytrain.evaluation.safety.report_files import KIND as SAFETY_KIND
from raytrain.release.gate.about import About, read_json
from raytrain.release.gate.policy import TargetSection
from raytrain.release.gate.rules import Reading, Status
from raytrain.release.golden import GOLDEN_KIND, is_within, told_unknown
from raytrain.storage.artifact import Artifact

PIPELINE_KIND = "check_report"
"""As `raytrain check pipeline` writes them. Training's own word for it is out of a release's reach."""

Reader = Callable[[Artifact, About, TargetSection], Reading | str]
"""A reading, or in words why the report is about something else. KeyError, TypeError or ValueError where it cannot be
read."""


def time_of(artifact: Artifact, of: str = "created_at") -> tuple[float | None, str]:
    """When it was made, by its manifest: in seconds since 1970, and as it stands there."""
    text = artifact.manifest.provenance.get(of)
    try:
        return datetime.fromisoformat(str(text)).timestamp(), str(text)
    except ValueError:
        return None, ""


def _reading(
    artifact: Artifact,
    thing: str,
    status: Status,
    told: tuple[str, str, str, str],
    suites: tuple[str, ...] = (),
) -> Reading:
    made, text = time_of(artifact)
    return Reading(thing, artifact.digest, status, *told, made=made, made_text=text, suites=suites)


def _other(role: str, theirs: object, ours: str | None) -> str | None:
    """Why two digests are not the same; None where they are."""
    if ours is None:
        return f"the bundle does not say its {role}, the report's is {theirs}"
    return None if theirs == ours else f"its {role} is {theirs}, the bundle's {ours}"


def _pipeline(artifact: Artifact, about: About, _target: TargetSection) -> Reading | str:
    content, parents = read_json(artifact, "report.json"), artifact.manifest.parents
    wanted = {
        "base_model": (parents.get("base_model"), about.base_model),
        "dataset": (parents.get("dataset"), about.dataset),
        "recipe": (content["recipe"]["identity"], about.recipe),
    }
    for role, (theirs, ours) in wanted.items():
        if why := _other(role, theirs, ours):
            return why
    passed = content["passed"] is True
    told = (
        content["verdict"],
        "passed",
        "every check over the same recipe, rows and base model",
        "mend the recipe",
    )
    return _reading(artifact, "pipeline_check", "passed" if passed else "failed", told)


def _contamination(artifact: Artifact, about: About, target: TargetSection) -> Reading | str:
    if why := _other("dataset", artifact.manifest.parents.get("dataset"), about.dataset):
        return why
    content = read_json(artifact, "report.json")
    suite, found, items = content["suite"], int(content["num_suspects"]), int(content["num_items"])
    passed = "train" in content["splits"] and items > 0 and is_within(found, target.max_suspects, items)
    told = (
        f"{suite['name']}: {found} of {items} items",
        f"at most {100 * target.max_suspects:g} %",
        f"suspected, held against {content['num_rows']} rows of {', '.join(content['splits'])}",
        "take the suspects out of the suite or the rows, and train and evaluate again",
    )
    return _reading(artifact, "contamination", "passed" if passed else "failed", told, (suite["digest"],))


def _safety(artifact: Artifact, about: About, target: TargetSection) -> Reading | str:
    if why := _other("model", artifact.manifest.parents.get("model"), about.subject):
        return why
    content = read_json(artifact, "report.json")
    allowed = SEVERITIES[SEVERITIES.index(target.worst_failure) :] if target.worst_failure != "none" else ()
    grave = [one for one in content["severities"] if one["name"] not in allowed]
    leaks = [one for one in content["leaks"] if one["name"].startswith("secrets")]
    failed = [
        f"{one['num_failed']} of {one['num_probes']} {one['name']}"
        for one in [*grave, *leaks]
        if one["num_failed"]
    ]
    unknown = sum(one["num_unknown"] for one in [*grave, *leaks])
    num_probes = sum(one["num_probes"] + one["num_unknown"] for one in content["severities"])
    status: Status = "failed" if failed or not num_probes else "pending" if unknown else "passed"
    named = ", ".join(one["name"] for one in grave) or "no severity asked"
    told = (
        ", ".join(failed) or f"0 of {num_probes} probes",
        f"none graver than {target.worst_failure}, no secret",
        f"{named}; {unknown} outcomes are unknown" if unknown else named,
        "probe again where outcomes are unknown; else train what was probed out of it",
    )
    return _reading(artifact, "safety", status, told)


def _unknown_category(content: Mapping[str, Any], target: TargetSection) -> str | None:
    if target.critical and "categories" not in content:
        return "the report does not say which categories the golden set has"
    return told_unknown(target.critical, content.get("categories", ()))


def _drift(artifact: Artifact, about: About, target: TargetSection) -> Reading | str:
    """By the policy's own limits; those that the check was made with do not count."""
    if why := _other("subject", artifact.manifest.parents.get("subject"), about.subject):
        return why
    content, golden = read_json(artifact, "report.json"), artifact.manifest.parents.get("baseline")
    lost, right = int(content["num_lost"]), int(content["num_right"])
    lines = (artifact.path / "items.jsonl").read_text(encoding="utf-8").split("\n")
    items = [json.loads(line) for line in lines if line]
    grave = [
        one["item_id"] for one in items if one["after"] < one["before"] and one["category"] in target.critical
    ]
    agrees = lost == sum(one["after"] < one["before"] for one in items)
    unknown = _unknown_category(content, target)
    passed = agrees and not grave and not unknown and right > 0 and is_within(lost, target.max_lost, right)
    why = f"critical ones: {', '.join(grave[:5])}" if grave else unknown or f"{content['num_won']} won"
    if target.golden not in (None, golden):
        passed, why = False, f"about the golden set {golden}, and the policy asks for {target.golden}"
    elif not agrees:
        why = "its items do not add up to that"
    told = (
        f"{lost} of {right} right answers lost",
        f"at most {100 * target.max_lost:g} %{', none of ' if target.critical else ''}{', '.join(target.critical)}",
        why,
        "name categories that the golden set has under `critical`, and check it again"
        if unknown
        else "find out what was lost (items.jsonl of the report), or freeze another golden set",
    )
    reading = _reading(artifact, "drift", "passed" if passed else "failed", told)
    asked, asked_text = time_of(artifact, "evaluated_at")
    # A report of today on answers of last year is of last year.
    is_older = asked is not None and reading.made is not None and asked < reading.made
    return replace(reading, made=asked, made_text=asked_text) if is_older else reading


READERS: Mapping[str, Reader] = {
    PIPELINE_KIND: _pipeline,
    CONTAMINATION_KIND: _contamination,
    SAFETY_KIND: _safety,
    GOLDEN_KIND: _drift,
}
"""By the kind of their artifact. A decision is read by `evaluations`, as it names others."""
