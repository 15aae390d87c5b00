"""The mailbox between driver and workers: an actor that holds messages until the driver takes them."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytrain.errors import PlatformError
from raytrain.storage.location import Location
from raytrain.training.parcels import Message, Parcels
from raytrain.training.regrouping import has_to_go, own_notice


class _Mailbox:
    """Workers put, the driver takes; requests go the other way. Async: no call waits for another."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._parcels: dict[str, Parcels] = {}
        self._stop = asyncio.Event()
        self._yield = asyncio.Event()
        self._yielding: str | None = None

    async def put(self, message: Message) -> None:
        self._messages.append(message)

    async def deliver(self, sender: str, number: int, message: Message) -> None:
        """A worker's, which counts them from 0: over a link that fails Ray sends anew what may have come."""
        self._messages += self._parcels.setdefault(sender, Parcels()).take(number, message)

    async def take(self) -> list[Message]:
        """All messages since the last call, in the order of their arrival."""
        taken, self._messages = self._messages, []
        return taken

    async def request_stop(self) -> None:
        self._stop.set()

    async def wait_for_stop(self) -> bool:
        """Answers when somebody asks the run to stop, and not before."""
        await self._stop.wait()
        return True

    async def request_yield(self) -> None:
        """Have the present workers save and return, so that Ray can put others in their place."""
        self._yield.set()

    async def wait_for_yield(self, sender: str) -> bool:
        """Asked by rank 0 of a new group of workers; what was asked of the group before it is over."""
        if sender != self._yielding:
            self._yielding, self._yield = sender, asyncio.Event()
        await self._yield.wait()
        return True


# A call that a broken link has ended is made again, for as long as the mailbox lives: no message is lost, and the wait
# for a request to stop does not end by itself, which would be taken for one.
Mailbox = ray.remote(num_cpus=0, max_task_retries=-1)(_Mailbox)


def open_mailbox() -> Any:
    """A mailbox on the driver's own node, where Ray's controller is too: no other node may take the run with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Mailbox.options(scheduling_strategy=here).remote()


_KINDS_OF_ALL_RANKS = ("worker", "notice")


class MailboxChannel:
    """The Channel of a Ray Train worker."""

    def __init__(self, mailbox: Any, *, world_rank: int) -> None:
        self._mailbox = mailbox
        self._world_rank = world_rank
        self._sender = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._stop_reference = mailbox.wait_for_stop.remote() if world_rank == 0 else None
        self._yield_reference = mailbox.wait_for_yield.remote(self._sender) if world_rank == 0 else None
        self._has_given_notice = False
        self._last_reference: Any = None

    def send(self, kind: str, **content: Any) -> None:
        if self._world_rank == 0 or kind in _KINDS_OF_ALL_RANKS:
            self._deliver((kind, content))

    def send_error(self, error: PlatformError) -> None:
        """From every rank: the first that arrives is told to the user."""
        self._deliver(("error", {"error": error}))

    def _deliver(self, message: Message) -> None:
        self._last_reference = self._mailbox.deliver.remote(self._sender, next(self._numbers), message)

    def stop_requested(self) -> bool:
        return _is_answered(self._stop_reference)

    def should_yield(self) -> bool:
        return self.must_go() or _is_answered(self._yield_reference)

    def must_go(self) -> bool:
        """Whether Ray has to replace this worker; the driver is told once of its notice."""
        reason = own_notice()
        if reason is not None and not self._has_given_notice:
            self._has_given_notice = True
            self.send("notice", world_rank=self._world_rank, reason=reason)
        return has_to_go()

    def checkpoint_stands(self, uri: str, metrics: dict[str, float]) -> None:
        checkpoint = None
        if uri:
            location = Location(uri)
            checkpoint = (
                ray.train.Checkpoint.from_directory(location.path)
                if location.is_local
                else ray.train.Checkpoint(uri)
            )
        ray.train.report(
            metrics, checkpoint=checkpoint, checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD
        )

    def flush(self) -> None:
        """Wait until the driver can take what was sent."""
        if self._last_reference is not None:
            ray.get(self._last_reference)


def _is_answered(reference: Any) -> bool:
    if reference is None:
        return False
    ready, _ = ray.wait([reference], timeout=0)
    return bool(ready)
