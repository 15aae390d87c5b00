"""What a search leaves: the best recipe, the artifact, the page, TensorBoard's table."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest_search import RecipeMaker

from raytrain.runs.records import open_records
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.spec import load_spec
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.outcome import TrialRow, TuneResult
from raytrain.tuning.results import write_results
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.task import TrialTask

pytestmark = pytest.mark.whole


def searched(
    recipe: Any, num_trials: int = 6, objectives: Sequence[Sequence[float]] = ()
) -> tuple[TuneResult, StudyMemory]:
    records = open_records()
    records.create_run(recipe.run_id, kind="tune", name=recipe.spec.name, config=recipe.to_dict())
    memory = StudyMemory(recipe, recipe.run_id)
    chooser = Chooser(memory, print)
    for i in range(num_trials):
        task = chooser.next()
        assert isinstance(task, TrialTask)
        loss = abs(task.values["train.learning_rate"] - 0.01)
        if i == 2 and len(recipe.objectives) == 1:
            TrialMemory(recipe, recipe.run_id, task.number).report(loss, 5)
            memory.tell_pruned(task.number, "<b>others</b> were better")
            continue
        memory.tell_complete(
            task.number, objectives[i] if objectives else [loss, float(i)][: len(recipe.objectives)]
        )
    rows = [TrialRow(view, 40, 40, view.last_reported) for view in memory.trials()]
    best = [rows[one.number] for one in memory.best()]
    result = TuneResult(recipe.run_id, "succeeded", "all trials are made", recipe.metrics, best, rows)
    return write_results(result, recipe, memory, records), memory


def test_the_best_recipe_is_one_that_train_takes(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("search.scheduler=none")
    result, memory = searched(recipe)
    spec = load_spec(Path(result.files["best"]))
    (best,) = memory.best()
    assert spec == recipe.trial_spec(best.values)
    assert spec.train.learning_rate == best.values["train.learning_rate"]


def test_the_page_has_optunas_plots_and_asks_for_nothing(tune_recipe: RecipeMaker) -> None:
    result, _ = searched(tune_recipe("search.scheduler=none"))
    page = Path(result.files["page"]).read_text()
    for title in ("History", "What matters", "Parallel coordinates", "Slices", "On the way"):
        assert f"<h2>{title}</h2>" in page, title
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 5
    assert all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert "default-src 'none'" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert "&lt;b&gt;others&lt;/b&gt; were better" in page, "reasons are text"


def test_the_artifact_holds_every_trial_and_is_the_same_again(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("search.scheduler=none")
    result, memory = searched(recipe)
    artifact = open_artifact(Location(result.files["artifact"]), kind="study")
    study = json.loads((artifact.path / "study.json").read_text())
    assert [one["state"] for one in study["trials"]].count("pruned") == 1
    assert study["best"] == [memory.best()[0].number]
    again = write_results(result, recipe, memory, open_records())
    assert again.digest == result.digest == artifact.digest
    limited = tune_recipe("search.scheduler=none", "search.max_concurrent=1", "search.num_trials=6")
    assert write_results(result, limited, memory, open_records()).digest == result.digest


def test_tensorboard_shows_values_beside_objectives(tune_recipe: RecipeMaker, home: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    recipe = tune_recipe("search.scheduler=none")
    _, memory = searched(recipe)
    folders = sorted((home / "runs" / recipe.run_id / "tensorboard").iterdir())
    complete = [one for one in memory.trials() if one.state == "complete"]
    assert [one.name for one in folders] == [f"trial-{one.number:04d}" for one in complete]
    events = EventAccumulator(str(folders[0])).Reload()
    assert events.Scalars("eval/loss")[0].value == pytest.approx((complete[0].objectives or [0.0])[0])
    for folder, trial in zip(folders, complete, strict=True):
        metadata = EventAccumulator(str(folder)).Reload().summary_metadata
        content = metadata["_hparams_/session_start_info"].plugin_data.content
        hparams = HParamsPluginData.FromString(content).session_start_info.hparams
        shown = {key: getattr(value, value.WhichOneof("kind")) for key, value in hparams.items()}
        assert shown == trial.values, "what the trial was made with, by key"


def test_a_front_has_a_recipe_for_each_of_its_trials(tune_recipe: RecipeMaker) -> None:
    objectives = "[{metric: eval/loss}, {metric: result/bytes}]"
    result, memory = searched(tune_recipe(f"search.objectives={objectives}"), num_trials=8)
    front = memory.best()
    folder = Path(result.files["page"]).parent
    names = ["best.yaml", *(f"front-{i}.yaml" for i in range(2, len(front) + 1))]
    assert [load_spec(folder / name).train.learning_rate for name in names] == [
        one.values["train.learning_rate"] for one in front
    ]
    assert "<h2>Pareto front</h2>" in (folder / "page.html").read_text()


def test_a_front_of_loss_latency_and_adapter_size(tune_recipe: RecipeMaker) -> None:
    names = ["eval/loss", "eval/duration_s", "result/bytes"]
    objectives = f"[{', '.join(f'{{metric: {name}}}' for name in names)}]"
    recipe = tune_recipe(f"search.objectives={objectives}")
    found = [
        (0.5, 3.0, 400.0),  # of small loss
        (0.7, 1.0, 400.0),  # fast
        (0.9, 3.0, 100.0),  # small
        (0.9, 3.0, 400.0),  # no better than the first in anything
        (0.6, 2.0, 300.0),
    ]
    result, memory = searched(recipe, len(found), found)
    assert sorted(one.number for one in memory.best()) == [0, 1, 2, 4]
    assert [row.view.objectives for row in result.best] == [list(found[i]) for i in (0, 4, 1, 2)], "by loss"
    folder = Path(result.files["page"]).parent
    assert [one.name for one in sorted(folder.glob("*.yaml"))] == [
        "best.yaml", "front-2.yaml", "front-3.yaml", "front-4.yaml",
    ]  # fmt: skip
    assert "# Trial 4" in (folder / "front-2.yaml").read_text()
    page = (folder / "page.html").read_text()
    titles = re.findall(r'<img alt="([^"]+)" src="data:image/png', page)
    of_each = ("History", "What matters", "Parallel coordinates", "Slices")
    assert titles == ["Pareto front", *(f"{title}: {name}" for name in names for title in of_each)]
    assert "4 trials that no other is better than in everything" in page
