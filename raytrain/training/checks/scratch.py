"""Runs inside a check's own process, or in processes that it starts: no Ray, no record, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from raytrain.data.prepare import prepare_dataset
from raytrain.errors import PlatformError, StorageError
from raytrain.models.base import resolve_base_model
from raytrain.training.checkpoint_store import folder_of
from raytrain.training.setup import Assignment
from raytrain.training.spec import RunSpec

T = TypeVar("T")
Work = Callable[..., T]
"""(strategy's world_rank, world_size, *arguments) → what rank 0 gives back. Importable by name, as it is pickled."""


@contextmanager
def scratch_assignment(spec: RunSpec, name: str) -> Iterator[Assignment]:
    """What a worker of this spec would be handed, under a run id of its own whose folder goes at the end.

    Rows, tokens and base model are those of the recipe's storage, made there if they are not there yet.
    """
    storage = spec.storage.location
    run_id = f"check-{name}-{uuid.uuid4().hex[:8]}"
    dataset = prepare_dataset(spec.data, storage)
    base_model = resolve_base_model(spec.model, storage)
    resolved = spec.model_copy(update={"storage": spec.storage.resolved()})
    try:
        yield Assignment(run_id, resolved, dataset.location, base_model)
    finally:
        with contextlib.suppress(StorageError):
            folder_of(storage, run_id).delete()


class Listener:
    """A channel without a driver behind it. Keeps losses and notes, and asks to stop once `stop_when` says so."""

    def __init__(self, stop_when: Callable[[int, dict[str, float]], bool] | None = None) -> None:
        self.losses: dict[int, float] = {}
        self.evaluations: dict[int, float] = {}
        self.notes: list[str] = []
        self._stop_when = stop_when
        self._stops = False

    def send(self, kind: str, **content: Any) -> None:
        if kind == "metrics":
            step, metrics = content["global_step"], content["metrics"]
            if "train/loss" in metrics:
                self.losses[step] = metrics["train/loss"]
            if "eval/loss" in metrics:
                self.evaluations[step] = metrics["eval/loss"]
            self._stops |= self._stop_when is not None and self._stop_when(step, metrics)
        elif kind in ("note", "event"):
            self.notes.append(content["text"])

    def stop_requested(self) -> bool:
        return self._stops

    def should_yield(self) -> bool:
        return False

    def checkpoint_stands(self, uri: str, metrics: dict[str, float]) -> None:
        """Nobody to tell."""


def on_ranks(work: Work[T], world_size: int, *arguments: Any, threads: int = 1) -> T:
    """Run `work` in `world_size` new processes joined by gloo, and return what rank 0 returned.

    A PlatformError of any rank is raised here; any other fault of a process comes as
    torch's ProcessException.
    """
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory(prefix="raytrain-check-") as folder:
        spawn(  # type: ignore[no-untyped-call]
            _rank, (world_size, _free_port(), folder, threads, (work, arguments)), nprocs=world_size
        )
        results = [
            pickle.loads(Path(folder, str(rank)).read_bytes())  # written by our own processes a moment ago
            for rank in range(world_size)
        ]
    for result in results:
        if isinstance(result, PlatformError):
            raise result
    return results[0]  # type: ignore[no-any-return]


def _rank(
    rank: int, world_size: int, port: int, folder: str, threads: int, task: tuple[Work[Any], Any]
) -> None:
    work, arguments = task
    # stdout is the command's, which may have promised one JSON object there.
    os.dup2(2, 1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size), "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    import torch.distributed

    torch.set_num_threads(threads)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        result = work(rank, world_size, *arguments)
    except PlatformError as error:
        result = error
    Path(folder, str(rank)).write_bytes(
        pickle.dumps(result if rank == 0 or isinstance(result, PlatformError) else None)
    )
    torch.distributed.barrier()
    # As Ray ends its workers: without the interpreter's teardown, in which gloo's threads now and then abort.
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
