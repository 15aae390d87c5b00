"""The whole story in one file, top to bottom: from a recipe to a version in production, and back.

Each step takes what the one before it left as an artifact, and may be called alone. Called again with the same inputs
it goes on where it was stopped, or finds what it has made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raytrain.evaluation.answering.settings import AnsweringSection, EvaluateSettings
from raytrain.evaluation.baseline import baseline_place, freeze
from raytrain.evaluation.decision.contract import ContractSection
from raytrain.evaluation.decision.decide import Comparison, decide
from raytrain.evaluation.decision.record import write_decision
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.items import Suite
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.work import OnProgress
from raytrain.release.bundle.export import ExportRequest, default_destination, export
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.section import ExportCheckSection, ExportSettings
from raytrain.release.bundle.subject import find_subject
from raytrain.release.gate.policy import Policy, Target
from raytrain.release.gate.promote import Desk, Insisted, Promotion, Wanted, promote
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.next_version import register_next
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Hangar, Rollback, RollbackOptions, roll_back
from raytrain.release.signing import sign, verify
from raytrain.serving import launch, stopping
from raytrain.serving.section import ServingSection
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME
from raytrain.storage.section import StorageSection
from raytrain.training.observer import RunObserver
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec
from raytrain.training.trainer import train
from raytrain.tuning.outcome import TuneObserver, TuneResult
from raytrain.tuning.search import tune
from raytrain.tuning.spec import TuneRecipe


class Stopped(Exception):
    """Asked to stop, by the signal or the command that it is made with."""


def searched(
    recipe: TuneRecipe,
    observer: TuneObserver | None = None,
    *,
    address: str | None = None,
    verbose: bool = False,
) -> TuneResult:
    """Ranges of some keys → the best values, those of `best[0]`. Raises Stopped, and what `tune` raises."""
    result = tune(recipe, address=address, observer=observer, verbose=verbose)
    if result.state != "succeeded":
        raise Stopped(result.stopped_by or result.ended_by)
    return result


def trained(spec: RunSpec, observer: RunObserver | None = None) -> TrainResult:
    """Rows → adapter or model. Raises Stopped, and what `train` raises."""
    result = train(spec, observer=observer)
    if result.artifact is None:
        raise Stopped(result.stopped_by)
    return result


def evaluated(
    model: str, spec: RunSpec, suite: Suite, on_progress: OnProgress, *, batch_size: int = 8
) -> Evaluation:
    """A model's answers, asked in the words of the recipe's chat template. Raises Stopped."""
    answering = AnsweringSection(chat_template=spec.model.chat_template, batch_size=batch_size)
    settings = EvaluateSettings(answering=answering, storage=spec.storage)
    result = evaluate(model, [suite], settings, on_progress=on_progress)
    if result.evaluation is None:
        raise Stopped(result.stopped_by)
    return result.evaluation


def frozen(evaluation: Evaluation, spec: RunSpec) -> Evaluation:
    """An evaluation as a baseline, which nothing changes any more."""
    place = baseline_place(spec.storage.location, evaluation.artifact.location.name)
    return open_evaluation(freeze(evaluation, place).location)


def decided(
    contract: ContractSection, baseline: Evaluation, candidate: Evaluation, place: Location
) -> tuple[Comparison, Artifact]:
    """Whether a candidate follows a baseline, and the record of it with its page."""
    comparison = decide(contract, baseline, [candidate])
    return comparison, write_decision(place, comparison)


@dataclass(frozen=True)
class Release:
    """What versions of one name are released with."""

    name: str
    desk: Desk
    key: SigningKey
    policy: Policy
    storage: Location
    export_check: ExportCheckSection = field(default_factory=ExportCheckSection)
    """How far a bundle may lie from what was trained."""

    @property
    def ring(self) -> KeyRing:
        return self.desk.ring


def released(
    release: Release, model: str, evaluation: Evaluation, prompts: list[Prompt], why: str
) -> Version:
    """Trained artifact → bundle, compared with what was trained, scanned and signed → version. One that is there is
    kept."""
    subject = find_subject(model, release.storage)
    storage = StorageSection(path=str(release.storage))
    settings = ExportSettings(export_check=release.export_check, storage=storage)
    place = default_destination(subject, settings)
    if not (place / MANIFEST_NAME).exists():
        wanted = ExportRequest([], place, prompts, [], [evaluation.artifact.location], settings)
        export(subject, wanted, release.desk.tell)
    release.desk.tell("signing it")
    sign(place.path, release.key)
    verify(place.path, release.ring)
    named = (str(evaluation.artifact.location),)
    return register_next(
        release.desk.registry, release.name, place.path, release.ring, why=why, evaluations=named
    )


def admitted(
    release: Release,
    version: Version,
    evidence: Sequence[Artifact],
    *,
    to: Target = PRODUCTION,
    override_as: str | None = None,
    why: str = "",
) -> Promotion:
    """The gate. override_as: role of who lets it through whatever the gate says."""
    reference, places = f"{release.name}@{version}", tuple(str(one.location) for one in evidence)
    wanted = Wanted(reference, to, release.policy, places, why)
    return promote(release.desk, wanted, release.key, Insisted(override_as))


def rolled_back(release: Release, why: str, expected: Version | None = None) -> Rollback:
    """Production → the good version before. expected: as in RollbackOptions."""
    hangar = Hangar(release.desk.registry, release.ring, release.storage, release.desk.tell)
    return roll_back(hangar, release.name, release.key, RollbackOptions(why=why, expected=expected))


@contextmanager
def served(
    release: Release, spec: RunSpec, port: int, *, request_log: Any = None, trials: Sequence[Any] = ()
) -> Iterator[str]:
    """The address at which production answers until the block ends, for this machine alone, on the Ray that training
    has started or on one of its own. What is promoted or rolled back meanwhile answers at once.

    request_log, trials: as a serving config has them.
    """
    desk = release.desk
    section = ServingSection.model_validate(
        {
            "base_model": spec.model.base_model,
            "releases": {
                "registry": desk.registry.place,
                "keys": str(desk.ring.folder),
                "names": [release.name],
            },
            "http": {"insecure": True, "port": port, "request_log": request_log or {}},
            "trials": list(trials),
            "storage": {"path": str(release.storage)},
        }
    )
    url = launch.start(section, None, desk.tell, verbose=False)
    try:
        yield url
    finally:
        stopping.end()
