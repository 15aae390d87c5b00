"""Hands the loop to Ray Train's TorchTrainer, and keeps the run's records while it works."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raytrain.cluster.connection import check_capacity, connect
from raytrain.cluster.head import HeadWatch
from raytrain.data.prepare import prepare_dataset
from raytrain.errors import ClusterError, PlatformError, TrainingError
from raytrain.models.base import resolve_base_model
from raytrain.runs.folder import RECIPE_FILE
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import RunState
from raytrain.runs.records import open_records
from raytrain.runs.run_ids import choose_run_id, known_runs
from raytrain.runs.signals import SignalWatch
from raytrain.runs.sinks.build import build_sinks
from raytrain.storage.artifact import remove_stale_staging
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location, storage_error, write_atomically
from raytrain.training.checkpoint_store import checkpoint_folder, folder_of
from raytrain.training.finished import finished_before
from raytrain.training.ledger import Ledger
from raytrain.training.observer import RunObserver, Silent
from raytrain.training.outcome import TrainResult
from raytrain.training.parcels import Message
from raytrain.training.setup import Assignment
from raytrain.training.spec import RunSpec

_POLL_S = 0.2
_RAY_CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"


def train(
    spec: RunSpec,
    *,
    address: str | None = None,
    fresh: bool = False,
    run_id: str | None = None,
    observer: RunObserver | None = None,
    verbose: bool = False,
) -> TrainResult:
    """Run a spec to its end on Ray; called in the main thread of the driver, whose signals then save and stop the run.

    The same spec resumes its run, and a finished one is answered from the records; `fresh` begins another.
    Raises the PlatformError that ended the run.
    """
    observer = observer or Silent()
    records = open_records()
    base_id = spec.run_id if run_id is None else run_id
    known = known_runs(records, "train", base_id, spec.name if run_id is None else None)
    chosen = choose_run_id(known, base_id, fresh=fresh)
    for earlier in known:
        if earlier.id == chosen and (done := finished_before(spec, records, earlier)):
            return done
    records.create_run(
        chosen,
        kind="train",
        name=spec.name,
        config=spec.to_dict(),
        config_digest=spec.identity,
        storage_uri=str(folder_of(spec.storage.location, chosen)),
    )
    owner = Owner.current()
    run = records.claim_run(chosen, owner)
    state: RunState = "failed"
    sinks = build_sinks(spec.tracking, run, records, warn=observer.note)
    ledger = Ledger(chosen, owner, records, sinks, observer)
    try:
        sinks.open()
        with SignalWatch() as watch:
            _execute(spec, ledger, watch, address=address, verbose=verbose)
        state = "succeeded" if ledger.result and ledger.result["artifact"] else "cancelled"
    except PlatformError as error:
        records.set_state(chosen, state, error.what, error.as_dict(), global_step=ledger.global_step)
        raise
    except BaseException as error:
        records.set_state(chosen, state, f"{type(error).__name__}: {error}", global_step=ledger.global_step)
        raise
    finally:
        sinks.close(state)
    return _conclude(ledger, state, watch.signal_name)


def _execute(
    spec: RunSpec, ledger: Ledger, watch: SignalWatch, *, address: str | None, verbose: bool
) -> None:
    storage = spec.storage.location
    write_atomically(run_folder(ledger.run_id) / RECIPE_FILE, spec.to_yaml().encode())
    with _timed(ledger, "starting Ray"):
        # torch takes 2 s to import and Ray 2.5 s to start, mostly waiting for its processes: side by side.
        threading.Thread(target=importlib.import_module, args=("ray.train.torch",), daemon=True).start()
        with watch.kept_through():  # Ray puts its own handler of SIGTERM, which exits at once, over ours
            connect(address, verbose=verbose)
        if watch.signal_name is not None:
            return
        check_capacity(spec.scaling)
    with _timed(ledger, "preparing rows"):
        dataset = prepare_dataset(spec.data, storage, on_progress=ledger.rows_progress)
        ledger.records.add_artifact(
            ledger.run_id, "dataset", "read", "dataset", dataset.digest, str(dataset.location), parents={}
        )
    with _timed(ledger, "finding the base model"):
        base_model = resolve_base_model(spec.model, storage)
        ledger.records.add_artifact(
            ledger.run_id, "base_model", "read", "base_model", base_model.digest, base_model.path
        )
    if watch.signal_name is not None:
        return
    # What a kill left of the run's result; checkpoints are cleaned by the worker that writes them.
    remove_stale_staging(folder_of(storage, ledger.run_id))
    # Ray refuses to start over its own list where a checkpoint in it is gone, as retention or a lost disk has it; which
    # checkpoint a run resumes from is decided in setup.py, so Ray begins a new list.
    (folder_of(storage, ledger.run_id) / _RAY_CHECKPOINT_LIST).delete()
    for_workers = spec.model_copy(update={"storage": spec.storage.resolved()})
    _run_workers(Assignment(ledger.run_id, for_workers, dataset.location, base_model), ledger, watch)


def _run_workers(assignment: Assignment, ledger: Ledger, watch: SignalWatch) -> None:
    """Start the workers and follow them: Ray's `fit` blocks in a thread of its own, this one keeps the book."""
    import ray

    from raytrain.training.mailbox import open_mailbox

    head = HeadWatch.of_cluster(f"run {ledger.run_id}")
    mailbox = open_mailbox()
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            _build_trainer(assignment, mailbox).fit()
        except BaseException as error:  # noqa: BLE001 - judged by the thread that follows
            failure.append(error)

    thread = threading.Thread(target=fit, name="ray-train-fit", daemon=True)
    started = time.perf_counter()
    ledger.phase("starting workers", None)
    thread.start()
    has_workers = asked_to_stop = False
    try:
        while True:
            is_over = not thread.is_alive()
            for kind, content in _taken(mailbox, head):
                if kind == "worker" and not has_workers:
                    has_workers = True
                    ledger.phase("starting workers", time.perf_counter() - started)
                ledger.take(kind, content)
            ledger.beat()
            if not asked_to_stop and (watch.signal_name is not None or ledger.stop_was_asked()):
                asked_to_stop = True
                ledger.note("asked to stop: saving, then ending; the same command goes on from there")
                ray.get(mailbox.request_stop.remote())
            if is_over:
                break
            thread.join(_POLL_S)
        ray.kill(mailbox)
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"run {ledger.run_id}: the Ray cluster went away",
            why=str(error).strip().splitlines()[0],
            fix="start the cluster again; the same command goes on from the last checkpoint",
        ) from error
    if ledger.error is not None:
        raise ledger.error
    if failure:
        raise explain_failure(
            failure[0], ledger.run_id, folder_of(assignment.spec.storage.location, ledger.run_id)
        )


def _taken(mailbox: Any, head: HeadWatch) -> list[Message]:
    """What the workers have sent since the last call. Raises ClusterError where the cluster has gone meanwhile."""
    import ray

    answer = mailbox.take.remote()
    while not ray.wait([answer], timeout=_POLL_S)[0]:
        head.look()
    head.look()
    messages: list[Message] = ray.get(answer)
    return messages


def _build_trainer(assignment: Assignment, mailbox: Any) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from raytrain.training.regrouping import NoticeBeforeEnd, SaveBeforeResize
    from raytrain.training.room import WaitForRoom
    from raytrain.training.worker import train_worker

    scaling = assignment.spec.scaling
    storage = assignment.spec.storage.location
    # Ray learns late of a dead node. Until then it may ask for a place there; it then counts anew, and so do we.
    longest_s = 10.0 if scaling.is_elastic else min(60.0, max(10.0, scaling.max_wait_for_nodes_s))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{longest_s:g}")
    return TorchTrainer(
        train_worker,
        train_loop_config={"assignment": assignment, "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.num_workers,
            elastic_resize_monitor_interval_s=scaling.elastic_resize_monitor_interval_s,
            use_gpu=scaling.use_gpu,
            resources_per_worker=scaling.worker_resources,
            placement_strategy=scaling.placement_strategy,
        ),
        run_config=ray.train.RunConfig(
            # Checkpoints lie inside Ray's own folder of the run, so that Ray takes them for its own.
            name=assignment.run_id,
            storage_path=str(checkpoint_folder(storage, assignment.run_id).parent.parent),
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
            callbacks=[
                NoticeBeforeEnd(),
                SaveBeforeResize(mailbox),
                WaitForRoom(mailbox, assignment.run_id, scaling),
            ],
        ),
    )


def explain_failure(error: BaseException, run_id: str, storage: Location) -> PlatformError:
    """What Ray raised, in the words of the person who has to deal with it. `storage` is the run's folder there."""
    import ray.train

    if isinstance(error, PlatformError):
        return error
    cause = error.controller_failure if isinstance(error, ray.train.ControllerError) else None
    if isinstance(cause, PlatformError):
        return cause
    if isinstance(cause, OSError) and not isinstance(cause, (ConnectionError, TimeoutError)):
        # Ray writes its own list of checkpoints beside ours, and may meet a full disk before a checkpoint does.
        return storage_error(cause, storage, "write")
    text = str(error).strip()
    last_line = next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), type(error).__name__
    )
    if isinstance(error, ray.train.ControllerError):
        return ClusterError(
            f"run {run_id}: Ray could not keep the workers running",
            why=last_line,
            fix="see `ray status` for what the cluster can give; the same command goes on from the last checkpoint",
        )
    return TrainingError(
        f"run {run_id}: workers failed more often than scaling.max_failures allows",
        why=last_line,
        fix="run with -v for the workers' logs; memory is the usual cause of a killed worker: lower "
        "train.micro_batch_size. The same command goes on from the last checkpoint",
    )


def _conclude(ledger: Ledger, state: RunState, signal_name: str | None) -> TrainResult:
    records, run_id, result = ledger.records, ledger.run_id, ledger.result or {}
    metrics = {key: point.value for key, point in records.latest_metrics(run_id).items()} | result.get(
        "metrics", {}
    )
    if state == "cancelled":
        stopped_by = signal_name or ledger.stopped_by or "raytrain runs stop"
        records.set_state(run_id, state, f"stopped by {stopped_by}", global_step=ledger.global_step)
        return TrainResult(
            run_id, state, None, None, ledger.global_step, metrics, stopped_by, phases_s=ledger.phases_s
        )
    records.add_artifact(
        run_id, "model", "written", result["artifact_kind"], result["digest"], result["artifact"],
        parents=result["parents"],
    )  # fmt: skip
    reason = "stopped early" if result["ending"] == "early_stopped" else None
    records.set_state(run_id, state, reason, global_step=ledger.global_step)
    return TrainResult(
        run_id,
        state,
        result["artifact"],
        result["digest"],
        ledger.global_step,
        metrics,
        phases_s=ledger.phases_s,
    )


@contextmanager
def _timed(ledger: Ledger, text: str) -> Iterator[None]:
    started = time.perf_counter()
    ledger.phase(text, None)
    yield
    ledger.phase(text, time.perf_counter() - started)
