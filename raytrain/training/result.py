"""The result of a run as an artifact: an adapter that peft loads by itself, or a whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

import torch

from raytrain.data.tasks import CLASSIFICATION_TASKS
from raytrain.errors import TrainingError
from raytrain.models.adapter import save_trained
from raytrain.models.heads import class_labels
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.provenance import collect_provenance
from raytrain.training.checkpoint import TRAINED_FOLDER
from raytrain.training.checkpoint_store import CheckpointStore, folder_of
from raytrain.training.job import Job
from raytrain.training.setup import Assignment


def result_kind(assignment: Assignment) -> str:
    """`adapter`, or `model` where every parameter was trained."""
    return "model" if assignment.spec.adapter.method == "full" else "adapter"


def write_result(
    job: Job, assignment: Assignment, store: CheckpointStore, trained: Mapping[str, torch.Tensor]
) -> Artifact:
    """Write the run's result; on rank 0 alone. The same rows, base model and recipe give the same digest.

    `trained` are the weights of the last step, whole and on the CPU. With `train.result: best` the weights come from
    the checkpoint with the best monitored value instead.
    """
    spec = assignment.spec
    kind = result_kind(assignment)
    destination = folder_of(spec.storage.location, assignment.run_id) / kind
    belonging = job.saver.belonging
    parents = {
        "base_model": belonging.base_model_digest,
        "dataset": belonging.dataset_digest,
        "tokens": belonging.tokens_digest,
    }
    with ArtifactWriter(destination, kind=kind, parents=parents) as writer:
        step = job.state.global_step
        if spec.train.result == "best":
            best = store.best(spec.train.mode)
            if best is None:
                raise TrainingError(
                    "train.result is best, but no checkpoint was evaluated",
                    why=f"no checkpoint holds a value of {spec.train.monitor}",
                    fix="set eval_every and save_every to the same number of steps, or train.result: last",
                )
            shutil.copytree(best.path / TRAINED_FOLDER, writer.path, dirs_exist_ok=True)
            step = int(best.location.name.rpartition("-")[2])
        else:
            save_trained(job.model, trained, writer.path)
        job.tokenizer.save_pretrained(writer.path)
        training = {
            "base_model": assignment.base_model.reference,
            "base_digest": assignment.base_model.digest,
            "revision": spec.model.revision,
            "recipe": spec.identity,
            "global_step": step,
            "max_steps": job.max_steps,
            "eval": job.state.last_eval,
            "model": spec.model.model_dump(mode="json"),
            "adapter": spec.adapter.model_dump(mode="json"),
            "labels": list(class_labels(job.model)) if spec.model.task in CLASSIFICATION_TASKS else None,
        }
        (writer.path / "training.json").write_text(json.dumps(training, indent=1, sort_keys=True))
        provenance = collect_provenance(config=spec.to_dict(), seed=spec.train.seed, run_id=assignment.run_id)
        store.check_is_writer()
        return writer.commit(provenance, replace=True)
