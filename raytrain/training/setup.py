"""From a spec to a Job on one rank: tokens, model, optimizer, and the newest checkpoint that is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import raytrain
from raytrain.cluster.installed import check_driver
from raytrain.data.encoders import load_task_examples, prepare_task_examples
from raytrain.data.examples import dropped_rows, read_labels
from raytrain.errors import IntegrityError, PlatformError
from raytrain.models.base import ResolvedModel, resolve_base_model
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance
from raytrain.training.batching import choose_batching
from raytrain.training.channel import Channel
from raytrain.training.checkpoint import (
    Belonging,
    belonging_of,
    check_belonging,
    check_progress,
    read_random,
    read_state,
    restore_weights,
)
from raytrain.training.checkpoint_store import CheckpointStore, checkpoint_folder
from raytrain.training.compiling import compile_feed_forward
from raytrain.training.gradients import GradientCheck
from raytrain.training.hooks import build_hooks
from raytrain.training.job import Job
from raytrain.training.losses.base import Objective
from raytrain.training.optimizer import (
    build_optimizer,
    learning_rate_at,
    trainable_parameters,
    whole_shape,
)
from raytrain.training.parts import (
    build_evaluator,
    build_loss,
    build_model,
    build_planner,
    check_adapter,
    load_processor,
)
from raytrain.training.precision import build_scaler, note_on
from raytrain.training.random_state import restore_random_state, seed_everything
from raytrain.training.saving import Saver
from raytrain.training.spec import RunSpec
from raytrain.training.state import TrainingState
from raytrain.training.strategies.base import Strategy

T = TypeVar("T")


@dataclass(frozen=True)
class Assignment:
    """What the driver hands to every worker of a run. Picklable."""

    run_id: str
    spec: RunSpec
    dataset: Location
    base_model: ResolvedModel
    raytrain_version: str = field(default_factory=lambda: raytrain.__version__)
    """The driver's."""


def together(strategy: Strategy, action: Callable[[], T]) -> T:
    """*Collective.* Run `action` on every rank; what fails on one is raised on all, so that none waits for ever."""
    result: T | None = None
    error: PlatformError | None = None
    try:
        result = action()
    except PlatformError as raised:
        error = raised
    errors = strategy.gather_on_rank_zero(error)
    first = next((one for one in errors if one is not None), None) if errors is not None else None
    first = strategy.broadcast_from_rank_zero(first)
    if first is not None:
        raise first
    return result  # type: ignore[return-value]  # without an error there is a result


def build_job(assignment: Assignment, strategy: Strategy, channel: Channel) -> Job:
    """*Collective.* Load, attach and resume. Raises on all ranks what any of them meets."""
    together(strategy, lambda: check_driver(assignment.raytrain_version))
    spec = assignment.spec
    timed = _Phases(channel)
    with timed("reading tokens"):
        base_model = together(strategy, lambda: _find_base_model(assignment))
        processor = together(strategy, lambda: load_processor(base_model, spec))
        tokens = _find_tokens(assignment, processor, strategy)
        labels = tuple(read_labels(tokens) or ())
        train_table = load_task_examples(spec.model.task, tokens, "train")
        validation_table = load_task_examples(spec.model.task, tokens, "val")
    with timed("loading the model"):
        seed_everything(spec.train.seed, strategy.world_rank)
        note = partial(_note, channel)
        slow = note_on(strategy.device, spec.train.precision)
        if slow is not None:
            note(slow)
        model = together(
            strategy, lambda: build_model(spec, base_model, strategy.device, labels, processor, note)
        )
        batching = together(strategy, lambda: choose_batching(model, spec, processor, note=note))
        if spec.train.compile:
            num_compiled = together(strategy, lambda: compile_feed_forward(model))
            note(f"{num_compiled} feed-forward layers are compiled")
        loss = together(
            strategy,
            lambda: build_loss(spec, model, labels, train_table, batching.collate, strategy, note),
        )
        together(strategy, lambda: check_adapter(spec, model, loss, batching, train_table, note))
        optimizer = strategy.wrap(Objective(model, loss), lambda _: build_optimizer(model, spec.train))
    trainable = trainable_parameters(model)
    job = Job(
        section=spec.train,
        max_steps=spec.train.num_steps(len(train_table)),
        strategy=strategy,
        channel=channel,
        model=model,
        optimizer=optimizer,
        scaler=build_scaler(strategy.device, spec.train.precision),
        gradients=GradientCheck(list(trainable.items()), spec.train.max_grad_norm, strategy),
        planner=build_planner(spec, train_table, batching, loss, strategy.world_size),
        collate=batching.collate,
        validation=build_evaluator(spec, validation_table, batching, loss),
        tokenizer=processor,
        state=TrainingState(),
        saver=_build_saver(assignment, strategy, channel, tokens),
        hooks=together(strategy, lambda: build_hooks(spec.train.hooks)),
    )
    with timed("looking for a checkpoint"):
        resume(job)
    _tell_plan(job, tokens)
    return job


def _build_saver(assignment: Assignment, strategy: Strategy, channel: Channel, tokens: Artifact) -> Saver:
    spec = assignment.spec
    store = CheckpointStore(
        checkpoint_folder(spec.storage.location, assignment.run_id),
        _mirror(spec, assignment.run_id),
        monitor=spec.train.monitor,
    )
    return Saver(
        section=spec.train,
        strategy=strategy,
        channel=channel,
        store=store,
        belonging=_belonging(assignment, tokens),
        provenance=collect_provenance(config=spec.to_dict(), seed=spec.train.seed),
        run_id=assignment.run_id,
    )


def _tell_plan(job: Job, tokens: Artifact) -> None:
    trainable = trainable_parameters(job.model)
    job.channel.send(
        "plan",
        max_steps=job.max_steps,
        num_rows=len(job.planner.table),
        num_validation_rows=len(job.validation.table),
        num_trainable=sum(whole_shape(parameter).numel() for parameter in trainable.values()),
        global_step=job.state.global_step,
        told_before=list(job.saver.told.points),
        tokens={"digest": tokens.digest, "uri": str(tokens.location), "parents": tokens.manifest.parents},
        dropped=dropped_rows(tokens),
    )


def _note(channel: Channel, text: str) -> None:
    channel.send("note", text=text)


def _find_tokens(assignment: Assignment, processor: Any, strategy: Strategy) -> Artifact:
    """*Collective.* The tokens artifact, made by rank 0 where it is not there yet."""
    spec = assignment.spec

    def prepare() -> str | None:
        if strategy.world_rank != 0:
            return None
        dataset = open_artifact(assignment.dataset, kind="dataset")
        storage = spec.storage.location
        return str(prepare_task_examples(spec.model.task, dataset, processor, spec.data, storage).location)

    place = strategy.broadcast_from_rank_zero(together(strategy, prepare))
    return together(strategy, lambda: open_artifact(Location(place), kind="tokens", verify=False))


def _belonging(assignment: Assignment, tokens: Artifact) -> Belonging:
    return Belonging(
        run_id=assignment.run_id,
        base_model_digest=assignment.base_model.digest,
        dataset_digest=tokens.manifest.parents["dataset"],
        tokens_digest=tokens.digest,
        adapter=assignment.spec.adapter.model_dump(mode="json"),
    )


def _find_base_model(assignment: Assignment) -> ResolvedModel:
    """The base model on this worker's machine, which may be another than the driver's."""
    driver, section = assignment.base_model, assignment.spec.model
    if Path(driver.path).is_dir():
        section = section.model_copy(update={"base_model": driver.path})
    found = replace(resolve_base_model(section, assignment.spec.storage.location), reference=driver.reference)
    if found.digest != driver.digest:
        raise IntegrityError(
            f"{found.reference} is another model on this worker than on the driver",
            why=f"here {found.digest}, there {driver.digest}",
            fix="put the same files on every node, or pin model.revision",
        )
    return found


def _mirror(spec: RunSpec, run_id: str) -> Location | None:
    return checkpoint_folder(Location.parse(spec.storage.mirror), run_id) if spec.storage.mirror else None


def resume(job: Job) -> None:
    """*Collective.* Continue from the newest checkpoint that verifies; a fresh start where there is none.

    Raises IntegrityError where that checkpoint belongs to something else or contradicts itself.
    """
    strategy, store = job.strategy, job.saver.store

    def choose() -> str | None:
        if strategy.world_rank != 0:
            return None
        store.take_over()
        found = store.newest_whole(on_skip=lambda text: job.channel.send("note", text=text))
        return str(found.location) if found is not None else None

    place = strategy.broadcast_from_rank_zero(together(strategy, choose))
    if place is None:
        return

    def restore() -> Artifact:
        artifact = open_artifact(Location(place), kind="checkpoint", verify=False)  # rank 0 has verified it
        state = read_state(artifact)
        check_belonging(belonging_of(state), job.saver.belonging, place)
        restore_weights(artifact, job.model, job.optimizer, strategy)
        training = TrainingState.from_json(state["training"])
        entries: dict[str, Any] = next(iter(job.optimizer.state.values()), {})
        steps = entries.get("step")
        check_progress(
            state,
            learning_rate_now=learning_rate_at(training.global_step, job.section, job.max_steps),
            optimizer_steps=None if steps is None else int(steps),
            place=place,
        )
        job.state = training
        job.gradients.load_state_dict(state["gradients"])
        if job.scaler.is_enabled():
            job.scaler.load_state_dict(state["scaler"])
        for name, hook in job.hooks.items():
            if name in state["hooks"]:
                hook.load_state_dict(state["hooks"][name])
        # Ranks that the checkpoint does not know keep the generators that the seed gave them.
        ranks = read_random(artifact)
        if strategy.world_rank < len(ranks):
            restore_random_state(ranks[strategy.world_rank])
        return artifact

    artifact = together(strategy, restore)
    job.saver.last_saved_step = job.state.global_step
    job.saver.told.resume(job.state.global_step, artifact.manifest.provenance.get("told"))
    job.channel.send("resumed", global_step=job.state.global_step, uri=place, digest=artifact.digest)


class _Phases:
    """Names what the start-up is doing, and tells how long each part took."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        started = time.perf_counter()
        self._channel.send("phase", text=text, seconds=None)
        yield
        self._channel.send("phase", text=text, seconds=time.perf_counter() - started)
