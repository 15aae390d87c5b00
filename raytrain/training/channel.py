"""How a worker speaks with the driver. The loop knows this interface alone; Ray stands behind it in mailbox.py."""

from __future__ import annotations

from typing import Any, Protocol


class Channel(Protocol):
    """Called on the workers. `send` never waits and never fails; messages of one worker arrive in order.

    Kinds: phase (text, seconds), resumed (global_step), metrics (global_step, time, metrics), checkpoint, event, note,
    result, error; on any rank worker and notice.
    """

    def send(self, kind: str, **content: Any) -> None:
        """Tell the driver something; on rank 0, except where the kind says otherwise."""

    def stop_requested(self) -> bool:
        """Whether the driver asked the run to save and end. Asked on rank 0, once a step."""

    def should_yield(self) -> bool:
        """Whether this worker is about to go, or the group to be put together anew. Asked on all ranks, once a step."""

    def checkpoint_stands(self, uri: str, metrics: dict[str, float]) -> None:
        """*Collective.* Tell Ray Train of a committed checkpoint, all ranks in the same order."""
