"""What a version's entry says of evaluations: which there are, where they lie, and what they came to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raytrain.errors import RefusedError
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.release.registry.state import Released
from raytrain.storage.artifact import Artifact
from raytrain.storage.named_places import place_of_artifact


def subject_of(artifact: Artifact) -> str:
    """Digest of what was trained: evidence names it. An artifact that is no bundle stands for itself."""
    return artifact.manifest.parents.get("subject", artifact.digest)


def details_of(artifact: Artifact, evaluations: Iterable[str]) -> dict[str, Any]:
    """For the entry that releases it. Raises RefusedError where an evaluation is of another artifact."""
    subject = subject_of(artifact)
    opened = [evaluation_of(place, {"this artifact": subject}) for place in evaluations]
    return {
        "subject": subject,
        "evaluations": [
            {"digest": one.artifact.digest, "place": str(one.artifact.location)} for one in opened
        ],
        "metrics": {key: value for one in opened for key, value in metrics_of(one).items()},
    }


def evaluation_of(place: str, subjects: dict[str, str]) -> Evaluation:
    """An evaluation of one of these: what a person calls them to their digest. Raises RefusedError where it is not."""
    found = open_evaluation(place_of_artifact(place))
    if not set(found.artifact.manifest.parents.values()) & set(subjects.values()):
        theirs = ", ".join(f"{role} {digest}" for role, digest in found.artifact.manifest.parents.items())
        raise RefusedError(
            f"{place} is no evaluation of {' or '.join(subjects)}",
            why=f"it is of {theirs or 'nothing that it names'}; wanted: {', '.join(subjects.values())}",
            fix="evaluate what was trained, and name that evaluation",
        )
    return found


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """`suite/metric` to its value."""
    suites = evaluation.report.suites
    return {
        f"{name}/{key}": float(value) for name, one in suites.items() for key, value in one.metrics.items()
    }


def recorded_evaluations(released: Released) -> list[dict[str, str]]:
    """`digest` and `place` of each that was named when it was released."""
    found = released.entry.details.get("evaluations", [])
    return [{"digest": str(one["digest"]), "place": str(one["place"])} for one in found]
