"""`raytrain run`: a recipe from its rows to a decision. The same command goes on where it was stopped, at any step.

Each step has an artifact that its inputs name, so nothing is made twice: what is there is taken, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from raytrain.data.prepare import PrepareProgress, prepare_dataset
from raytrain.errors import RefusedError
from raytrain.evaluation.answering.settings import AnsweringSection, EvaluateSettings
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.record import decision_place, write_decision
from raytrain.evaluation.decision.refusal import refusal_of
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.work import EvaluateProgress
from raytrain.pipeline.section import PipelineRecipe
from raytrain.pipeline.steps import Stopped, searched
from raytrain.runs.carrying import carried
from raytrain.runs.records import Records, open_records
from raytrain.runs.run_ids import known_runs
from raytrain.runs.spent import MADE_OF
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME
from raytrain.training.checkpoint_store import folder_of
from raytrain.training.checks.pipeline import check_pipeline, find_report
from raytrain.training.finished import trained_before
from raytrain.training.observer import RunObserver
from raytrain.training.spec import RunSpec
from raytrain.training.trainer import train
from raytrain.tuning.outcome import TuneObserver
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import RUN_ID


@dataclass(frozen=True)
class StepResult:
    """`was_known`: made by an earlier command, of the same inputs."""

    name: str
    told: str
    was_known: bool
    place: str | None = None
    digest: str | None = None
    run_ids: tuple[str, ...] = ()
    """Of what was trained or asked in it."""


class PipelineView(Protocol):
    """Who looks on."""

    @property
    def training(self) -> RunObserver:
        """Of the run that is trained."""

    @property
    def tuning(self) -> TuneObserver:
        """Of the search."""

    def begin(self, name: str) -> None:
        """A step begins."""

    def done(self, step: StepResult) -> None:
        """It has ended."""

    def prepared(self, progress: PrepareProgress) -> None:
        """Where preparing stands."""

    def checked(self, text: str) -> None:
        """What a check is at."""

    def answered(self, progress: EvaluateProgress) -> None:
        """Where an evaluation stands."""


@dataclass(frozen=True)
class PipelineResult:
    """`refusal` says why what was trained may not follow the baseline; None where it may, or nothing was compared."""

    run_id: str
    state: str
    steps: list[StepResult]
    refusal: RefusedError | None = None
    stopped_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        refusal = {} if self.refusal is None else {"error": self.refusal.as_dict()}
        steps = [asdict(step) for step in self.steps]
        return {"run_id": self.run_id, "state": self.state, "steps": steps, **refusal}


def run_recipe(
    recipe: PipelineRecipe, view: PipelineView, *, address: str | None = None, verbose: bool = False
) -> PipelineResult:
    """Prepare, check, tune, train, evaluate, compare: what the recipe asks of these. Called in the main thread.

    Raises the PlatformError that ended it; the steps before it stay made.
    """
    records = open_records()
    run_id = recipe.run_id
    records.create_run(
        run_id,
        kind="pipeline",
        name=recipe.spec.name,
        config=recipe.to_dict(),
        config_digest=recipe.identity,
        storage_uri=str(folder_of(recipe.spec.storage.location, run_id)),
    )
    made = _Making(recipe, view, records, address, verbose)
    with carried(records, run_id, lambda: len(made.steps)):
        try:
            refusal = made.all_steps()
        except (Stopped, KeyboardInterrupt) as stop:
            by = str(stop.args[0]) if stop.args else "SIGINT"
            records.set_state(run_id, "cancelled", f"stopped by {by}", global_step=len(made.steps))
            return PipelineResult(run_id, "cancelled", made.steps, stopped_by=by)
        for step in made.steps:
            if step.place is not None and step.digest is not None:
                records.add_artifact(run_id, step.name, "read", step.name, step.digest, step.place)
        reason = None if refusal is None else f"{refusal.what} ({refusal.why})"
        records.set_state(run_id, "succeeded", reason, global_step=len(made.steps))
    return PipelineResult(run_id, "succeeded", made.steps, refusal)


@dataclass
class _Making:
    """One command's way through the steps."""

    recipe: PipelineRecipe
    view: PipelineView
    records: Records
    address: str | None
    verbose: bool
    steps: list[StepResult] = field(default_factory=list)

    def all_steps(self) -> RefusedError | None:
        """Why what was trained may not follow the baseline."""
        spec, section = self.recipe.spec, self.recipe.section
        self._step("prepare", lambda: self._prepare(spec))
        if section.check:
            self._step("check", lambda: self._check(spec))
        if self.recipe.search is not None:
            spec = self._tuned()
        trained = self._step("train", lambda: self._train(spec))
        if not self.recipe.suites:
            return None
        baseline = self._evaluated("baseline", section.baseline or spec.model.base_model, spec)
        candidate = self._evaluated("evaluate", str(trained.place), spec)
        return self._compared(baseline, candidate)

    def _step(self, name: str, make: Callable[[], StepResult]) -> StepResult:
        self.view.begin(name)
        step = make()
        self._done(step)
        return step

    def _done(self, step: StepResult) -> None:
        self.steps.append(step)
        told = f"{step.name}: {step.told}{' (known)' * step.was_known}"
        self._note(told, step.run_ids)
        self.view.done(step)

    def _note(self, text: str, run_ids: tuple[str, ...]) -> None:
        """run_ids: what these runs take is the pipeline's cost."""
        self.records.add_event(self.recipe.run_id, "note", text, {MADE_OF: list(run_ids)})

    def _prepare(self, spec: RunSpec) -> StepResult:
        phases: list[PrepareProgress] = []

        def look(progress: PrepareProgress) -> None:
            phases.append(progress)
            self.view.prepared(progress)

        dataset = prepare_dataset(spec.data, spec.storage.location, on_progress=look)
        last = phases[-1]
        return StepResult(
            "prepare", f"{last.num_rows} rows", last.phase == "cached", str(dataset.location), dataset.digest
        )

    def _check(self, spec: RunSpec) -> StepResult:
        known = find_report(spec)
        if known is not None:
            return StepResult("check", "it had passed", True, str(known.location), known.digest)
        verdict = check_pipeline(spec, self.view.checked)
        if (error := verdict.error()) is not None:
            raise error
        return StepResult("check", verdict.line, False, verdict.files["report"], verdict.files["digest"])

    def _tuned(self) -> RunSpec:
        """The best recipe that the search has found."""
        search = self.recipe.search
        assert search is not None, "asked before"
        self.view.begin("tune")
        before = self._studies(search)
        self._note(f"tune: search {search.run_id} begins", (search.run_id,))
        result = searched(search, self.view.tuning, address=self.address, verbose=self.verbose)
        best = result.best[0]
        values = ", ".join(f"{key} {value}" for key, value in best.view.values.items())
        told = f"best of {len(result.rows)} trials: {best.view.number}, {values}"
        runs = tuple(str(run_id) for row in result.rows if (run_id := row.view.attrs.get(RUN_ID)))
        was_known = result.digest in before  # equal trials give an equal artifact
        self._done(StepResult("tune", told, was_known, result.files.get("artifact"), result.digest, runs))
        return search.trial_spec(best.view.values)

    def _studies(self, search: TuneRecipe) -> set[str]:
        """Digests of what earlier commands of this search have left."""
        runs = known_runs(self.records, "tune", search.run_id, search.spec.name)
        return {use.digest for run in runs for use in self.records.artifacts(run.id) if use.role == "study"}

    def _train(self, spec: RunSpec) -> StepResult:
        known = trained_before(spec, self.records)
        if known is None:
            self._note(f"train: run {spec.run_id} begins", (spec.run_id,))
        result = known or train(spec, address=self.address, observer=self.view.training, verbose=self.verbose)
        if result.artifact is None:
            raise Stopped(result.stopped_by or "somebody")
        told = f"run {result.run_id}, {result.global_step} steps"
        runs = (result.run_id,)
        return StepResult("train", told, result.was_done_before, result.artifact, result.digest, runs)

    def _evaluated(self, name: str, model: str, spec: RunSpec) -> Evaluation:
        self.view.begin(name)
        answering = AnsweringSection(
            chat_template=spec.model.chat_template, batch_size=self.recipe.section.batch_size
        )
        settings = EvaluateSettings(answering=answering, storage=spec.storage)
        result = evaluate(
            model, self.recipe.suites, settings, address=self.address, on_progress=self.view.answered
        )
        if result.evaluation is None:
            raise Stopped(result.stopped_by or "somebody")
        artifact = result.evaluation.artifact
        told = f"{model}, run {result.run_id}"
        place, runs = str(artifact.location), (result.run_id,)
        self._done(StepResult(name, told, result.was_done_before, place, artifact.digest, runs))
        return result.evaluation

    def _compared(self, baseline: Evaluation, candidate: Evaluation) -> RefusedError | None:
        self.view.begin("compare")
        contract = self.recipe.contract
        place = decision_place(self.recipe.spec.storage.location, [baseline, candidate], contract)
        was_known = (place / MANIFEST_NAME).exists()
        comparison = decide(contract, baseline, [candidate])
        artifact = write_decision(place, comparison)
        refusal = refusal_of(comparison)
        told = "promoted: it may follow the baseline" if refusal is None else refusal.what
        self._done(StepResult("compare", told, was_known, str(artifact.location), artifact.digest))
        return refusal


def page_of(result: PipelineResult) -> Location | None:
    """The page of the decision."""
    places = [step.place for step in result.steps if step.name == "compare" and step.place]
    return Location.parse(places[0]) / "decision.html" if places else None
