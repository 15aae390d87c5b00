"""What a search leaves: the best recipe, an artifact of all trials, a page, and TensorBoard's table of values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from raytrain.runs.folder import TENSORBOARD_FOLDER
from raytrain.runs.records import Records
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.home import run_folder
from raytrain.storage.location import write_atomically
from raytrain.storage.provenance import collect_provenance
from raytrain.training.checkpoint_store import folder_of
from raytrain.tuning.outcome import TrialRow, TuneResult
from raytrain.tuning.page import render_page
from raytrain.tuning.spec import IDENTITY_KEYS, TuneRecipe
from raytrain.tuning.study import RUN_ID, StudyMemory

STUDY_FILE, BEST_FILE, PAGE_FILE = "study.json", "best.yaml", "page.html"


def write_results(
    result: TuneResult, recipe: TuneRecipe, memory: StudyMemory, records: Records
) -> TuneResult:
    """Write everything, on storage as one artifact and in the run's folder to be looked at; the result with places."""
    files = {STUDY_FILE: json.dumps(_study(result, recipe), indent=1, sort_keys=True, default=str) + "\n"}
    for place, row in enumerate(result.best):
        name = BEST_FILE if place == 0 else f"front-{place + 1}.yaml"
        files[name] = _best_recipe(recipe, row)
    files[PAGE_FILE] = render_page(result, recipe, memory)
    folder = run_folder(result.run_id)
    for name, content in files.items():
        write_atomically(folder / name, content.encode())
    write_hparams(result, folder / TENSORBOARD_FOLDER)
    destination = folder_of(recipe.spec.storage.location, result.run_id) / "study"
    parents = _parents(result, records)
    with ArtifactWriter(destination, kind="study", parents=parents) as writer:
        for name in (STUDY_FILE, *(one for one in files if one.endswith(".yaml"))):
            (writer.path / name).write_text(files[name], encoding="utf-8")
        provenance = collect_provenance(
            config=recipe.to_dict(), seed=recipe.search.seed, run_id=result.run_id
        )
        artifact = writer.commit(provenance, replace=True)
    records.add_artifact(
        result.run_id, "study", "written", "study", artifact.digest, str(artifact.location), parents=parents
    )
    told = {"page": str(folder / PAGE_FILE), "artifact": str(artifact.location)}
    if result.best:
        told["best"] = str(folder / BEST_FILE)
    return replace(result, files=told, digest=artifact.digest)


def _study(result: TuneResult, recipe: TuneRecipe) -> dict[str, object]:
    """What was found, without times and limits, which the manifest has: the same trials give the same artifact."""
    trials = [{key: value for key, value in row.as_dict().items() if key != "spent_s"} for row in result.rows]
    return {
        "search": recipe.search.model_dump(mode="json", include=IDENTITY_KEYS),
        "recipe": recipe.spec.identity,
        "objectives": [one.model_dump(mode="json") for one in recipe.objectives],
        "best": [row.view.number for row in result.best],
        "trials": trials,
    }


def _best_recipe(recipe: TuneRecipe, row: TrialRow) -> str:
    spec = recipe.trial_spec(row.view.values)
    found = ", ".join(
        f"{metric} {value:.6g}"
        for metric, value in zip(recipe.metrics, row.view.objectives or [], strict=True)
    )
    head = f"# Trial {row.view.number} ({row.view.attrs.get(RUN_ID)}): {found}\n"
    if recipe.scheduler == "pbt":
        head += "# Its weights are those of a population, whose values changed on the way: see study.json.\n"
    return head + spec.to_yaml()


def _parents(result: TuneResult, records: Records) -> dict[str, str]:
    """The weights of the best trials."""
    parents = {}
    for place, row in enumerate(result.best):
        run_id = row.view.attrs.get(RUN_ID)
        written = [] if run_id is None else records.artifacts(run_id)
        for use in written:
            if use.direction == "written" and use.role == "model":
                parents["best" if place == 0 else f"front-{place + 1}"] = use.digest
    return parents


def write_hparams(result: TuneResult, folder: Path) -> None:
    """TensorBoard's HParams: each trial's values beside its objectives."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for row in result.rows:
        if not row.view.objectives:
            continue
        values = {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in row.view.values.items()
        }
        metrics = dict(zip(result.metrics, row.view.objectives, strict=True))
        place = folder / f"trial-{row.view.number:04d}"
        if place.is_dir():
            continue  # written by an earlier command
        with SummaryWriter(str(place)) as writer:
            for one in hparams(values, dict.fromkeys(metrics)):
                writer.file_writer.add_summary(one)
            for name, value in metrics.items():
                writer.add_scalar(name, value, row.global_step)
