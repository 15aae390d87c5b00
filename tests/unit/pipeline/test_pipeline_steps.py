"""The steps of `raytrain run` in their order, ended in each, and what is then known; Ray is not started."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluations import evaluation_of, records_with
from suites import write_suite

from raytrain.data.prepare import prepare_dataset
from raytrain.errors import TrainingError
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.evaluate import EvaluateResult
from raytrain.evaluation.results import open_evaluation
from raytrain.pipeline import recipe as steps
from raytrain.pipeline.recipe import PipelineResult, StepResult, run_recipe
from raytrain.pipeline.section import load_pipeline
from raytrain.pipeline.steps import Stopped
from raytrain.runs.ownership import Owner
from raytrain.runs.records import open_records
from raytrain.runs.spent import parts_of, spent_with_parts
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.manifest import MANIFEST_NAME, digest_of
from raytrain.training.checks.pipeline import write_report
from raytrain.training.checks.verdict import Finding, Verdict
from raytrain.training.observer import Silent
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec
from raytrain.tuning.outcome import TrialRow, TuneResult, Unwatched
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import TrialView

pytestmark = pytest.mark.whole

NAMES = ["prepare", "check", "tune", "train", "baseline", "evaluate", "compare"]


@dataclass
class Steps:
    """In place of what takes Ray or long: they leave the artifacts and records that the real ones leave.

    `stopped` or `failing` names the step that does not come to its end.
    """

    base: str
    stopped: str | None = None
    failing: str | None = None
    made: list[str] = field(default_factory=list)

    def begin(self, name: str) -> None:
        if name == self.failing:
            raise TrainingError(f"{name} failed", why="it was asked to", fix="nothing")
        if name == self.stopped:
            raise Stopped("SIGTERM") if name == "tune" else KeyboardInterrupt

    def prepare(self, *given: Any, **options: Any) -> Any:
        self.begin("prepare")
        return prepare_dataset(*given, **options)

    def check(self, spec: RunSpec, tell: Any) -> Verdict:
        self.begin("check")
        self.made.append("check")
        verdict = Verdict("pipeline", spec.name, (Finding("loss", "passed", "as it should be"),), "")
        report = write_report(spec, verdict, [], Path("no plot"))
        return replace(verdict, files={"report": str(report.location), "digest": report.digest})

    def search(self, recipe: TuneRecipe, observer: Any, **options: Any) -> TuneResult:
        """Asked every time, it makes the trials that are missing; equal trials are an equal artifact."""
        self.begin("tune")
        count, run_id = recipe.search.num_trials, recipe.run_id
        views = [
            TrialView(
                i, "complete", {"train.learning_rate": 1e-3}, [1.0], 1.0, {"run_id": f"{run_id}-{i:04d}"}
            )
            for i in range(count)
        ]
        rows = [TrialRow(view, 4, 4, 1.0) for view in views]
        records, digest = open_records(), digest_of(count)
        records.create_run(run_id, kind="tune", name=recipe.spec.name, config=recipe.to_dict())
        for view in views:
            config = recipe.spec.to_dict()
            records.create_run(view.attrs["run_id"], kind="train", name=recipe.spec.name, config=config)
            records.claim_run(view.attrs["run_id"], Owner.current())
            records.set_state(view.attrs["run_id"], "succeeded")
        if digest not in {use.digest for use in records.artifacts(run_id)}:
            self.made.append("tune")
        records.add_artifact(run_id, "study", "written", "study", digest, "memory://study")
        records.set_state(run_id, "succeeded", global_step=count)
        return TuneResult(
            run_id, "succeeded", "all trials are made", ["eval/loss"], rows[:1], rows, digest=digest
        )

    def train(self, spec: RunSpec, **options: Any) -> TrainResult:
        if self.stopped == "train":
            return TrainResult(spec.run_id, "cancelled", None, None, 2, stopped_by="SIGTERM")
        self.begin("train")
        self.made.append("train")
        records, storage = open_records(), spec.storage.location
        records.create_run(
            spec.run_id, kind="train", name=spec.name, config=spec.to_dict(), config_digest=spec.identity
        )
        records.claim_run(spec.run_id, Owner.current())
        dataset = prepare_dataset(spec.data, storage)
        with ArtifactWriter(
            storage / "trained", kind="adapter", parents={"dataset": dataset.digest}
        ) as writer:
            (writer.path / "weights").write_text("1 2 3")
            artifact = writer.commit({})
        uri = str(artifact.location)
        records.add_artifact(spec.run_id, "model", "written", "adapter", artifact.digest, uri)
        records.set_state(spec.run_id, "succeeded", global_step=4)
        return TrainResult(spec.run_id, "succeeded", uri, artifact.digest, 4)

    def evaluate(self, model: str, suites: Any, settings: Any, **options: Any) -> EvaluateResult:
        name = "baseline" if model == self.base else "evaluate"
        place = settings.storage.location / "evaluations" / name
        if (place / MANIFEST_NAME).exists():
            return EvaluateResult(name, "succeeded", open_evaluation(place), was_done_before=True)
        if self.stopped == name:
            return EvaluateResult(name, "cancelled", None, "SIGTERM")
        self.begin(name)
        self.made.append(name)
        scores = [float(i % 4 == 0 or name == "evaluate") for i in range(80)]
        return EvaluateResult(
            name, "succeeded", evaluation_of(Path(str(place)), {"sums": records_with(scores)})
        )

    def decide(self, *given: Any) -> Any:
        self.begin("compare")
        return decide(*given)


@dataclass
class View:
    training: Silent = field(default_factory=Silent)
    tuning: Unwatched = field(default_factory=Unwatched)
    begun: list[str] = field(default_factory=list)
    told: list[StepResult] = field(default_factory=list)

    def begin(self, name: str) -> None:
        self.begun.append(name)

    def done(self, step: StepResult) -> None:
        self.told.append(step)

    def prepared(self, progress: Any) -> None:
        """Nothing to show."""

    checked = answered = prepared


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> Steps:
    found = Steps(str(tiny_llama))
    for name, step in {
        "prepare_dataset": found.prepare, "check_pipeline": found.check, "searched": found.search,
        "train": found.train, "evaluate": found.evaluate, "decide": found.decide,
    }.items():  # fmt: skip
        monkeypatch.setattr(steps, name, step)
    return found


@pytest.fixture
def recipe(tmp_path: Path, tiny_llama: Path, rows: list[dict[str, str]]) -> Path:
    write_suite(tmp_path, "sums")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": {"base_model": str(tiny_llama)},
        "data": {"sources": [str(tmp_path / "rows.jsonl")], "val_fraction": 0.15},
        "train": {"max_steps": 4},
        "search": {
            "space": {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}, "num_trials": 2
        },
        "pipeline": {"suites": ["sums.yaml"]},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "mine.yaml"


def run(recipe: Path, *overrides: str) -> tuple[PipelineResult, View]:
    view = View()
    return run_recipe(load_pipeline(recipe, list(overrides)), view), view


def known(view: View) -> dict[str, bool]:
    return {step.name: step.was_known for step in view.told}


def test_a_search_that_made_further_trials_was_not_known(recipe: Path, small: Steps) -> None:
    assert known(run(recipe)[1])["tune"] is False
    assert known(run(recipe)[1])["tune"] is True
    more = "search.num_trials=3"
    _, view = run(recipe, more)
    assert view.told[2].told.startswith("best of 3 trials")
    assert known(view) == {name: name != "tune" for name in NAMES}, "its best values are the same"
    assert known(run(recipe, more)[1])["tune"] is True


def test_its_cost_is_that_of_its_runs(recipe: Path, small: Steps) -> None:
    small.failing = "train"
    with pytest.raises(TrainingError):
        run(recipe)
    loaded, records = load_pipeline(recipe), open_records()
    assert loaded.search is not None
    trials = {f"{loaded.search.run_id}-{number:04d}" for number in range(2)}
    assert {one.id for one in parts_of(records, loaded.run_id)} == trials
    small.failing = None
    result, _ = run(recipe)
    (trained,) = next(step.run_ids for step in result.steps if step.name == "train")
    assert {one.id for one in parts_of(records, loaded.run_id)} == {*trials, trained}
    cost = spent_with_parts(records, loaded.run_id, time.time())
    assert cost is not None and (cost.num_runs, cost.num_unpriced) == (3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_what_ends_in_a_step_goes_on_there(recipe: Path, small: Steps, name: str) -> None:
    """It fails there, is stopped there, and comes to its end: what was made before is known, the rest is made once."""
    before, after = NAMES[: NAMES.index(name)], NAMES[NAMES.index(name) :]
    records, run_id = open_records(), load_pipeline(recipe).run_id
    small.failing = name
    with pytest.raises(TrainingError, match=f"{name} failed"):
        run(recipe)
    assert (records.get_run(run_id).state, records.get_run(run_id).exit_reason) == (
        "failed",
        f"{name} failed",
    )

    small.failing, small.stopped = None, name
    result, view = run(recipe)
    assert view.begun == [*before, name]
    assert known(view) == dict.fromkeys(before, True)
    assert (result.state, records.get_run(run_id).state) == ("cancelled", "cancelled")
    assert records.get_run(run_id).exit_reason == f"stopped by {result.stopped_by}"
    assert result.stopped_by == ("SIGTERM" if name in ("tune", "train", "baseline", "evaluate") else "SIGINT")

    small.stopped = None
    result, view = run(recipe)
    assert view.begun == NAMES
    assert known(view) == {**dict.fromkeys(before, True), **dict.fromkeys(after, False)}
    assert (result.state, records.get_run(run_id).state) == ("succeeded", "succeeded")
    assert small.made == ["check", "tune", "train", "baseline", "evaluate"], "each once"
    assert result.steps == view.told
    records.close()
