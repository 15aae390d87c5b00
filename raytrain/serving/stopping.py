"""An application on a cluster ended, answers first."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError

from raytrain.cluster.connection import connect
from raytrain.errors import ClusterError
from raytrain.serving.backend import ReplicaLost
from raytrain.serving.operations.remote import RemoteOperations
from raytrain.serving.section import APPLICATION, REPLICA

_ASKED_EVERY_S = 0.5
_ENDS_WITHIN_S = 600.0
"""Replicas and ingresses end within http.answer_time_s and http.stall_time_s, which may be set to more."""


@dataclass(frozen=True)
class Stopped:
    """What was done."""

    was_running: bool
    num_left: int = 0
    """Answers that were under way when the time was up: Ray Serve waited for them as long as an answer may take."""
    is_serve_ended: bool = False
    """Ray Serve itself as well: nothing else was served on the cluster."""

    @property
    def told(self) -> str:
        """For a person."""
        if not self.was_running:
            return f"nothing to stop: no application `{APPLICATION}` is served on this cluster"
        left = (
            f"{self.num_left} answers took longer than was to be waited"
            if self.num_left
            else "all was answered"
        )
        rest = "Ray Serve has ended with it" if self.is_serve_ended else "other applications go on"
        return f"stopped `{APPLICATION}`: {left}; {rest}"


def stop_on(address: str | None, timeout_s: float, tell: Callable[[str], None], *, verbose: bool) -> Stopped:
    """On the cluster at `address`; by default RAY_ADDRESS, or the one that runs on this machine.

    Raises ClusterError where no cluster is reached, or the application does not end.
    """
    connect(address or os.environ.get("RAY_ADDRESS") or "auto", verbose=verbose)
    from ray import serve

    if APPLICATION not in serve.status().applications:
        return Stopped(was_running=False)
    num_left = asyncio.run(_drained(timeout_s, tell))
    tell("ending its processes")
    return Stopped(was_running=True, num_left=num_left, is_serve_ended=end())


def end() -> bool:
    """End the application on the cluster that this process has joined, and Ray Serve where nothing else is served;
    whether it was. What is being answered is answered first, as long as an answer may take.

    Raises ClusterError where it does not end.
    """
    from ray import serve

    try:
        serve.delete(
            APPLICATION, _blocking=False
        )  # which by itself waits for a minute, and an answer may take longer
        until = time.monotonic() + _ENDS_WITHIN_S
        while APPLICATION in (others := serve.status().applications):
            if time.monotonic() > until:
                raise TimeoutError(f"it is there after {_ENDS_WITHIN_S:.0f} s")
            time.sleep(_ASKED_EVERY_S)
        if not others:
            serve.shutdown()
    except (RuntimeError, TimeoutError, RayError) as error:
        raise ClusterError(
            f"`{APPLICATION}` does not end",
            why=str(error),
            fix="look at it with `serve status`, and try again",
        ) from error
    return not others


async def _drained(timeout_s: float, tell: Callable[[str], None]) -> int:
    """How many answers are under way after that time at most."""
    from ray import serve

    operations = RemoteOperations(serve.get_deployment_handle(REPLICA, APPLICATION))
    until, num = time.monotonic() + timeout_s, 0
    try:
        found = await operations.drain(is_on=True)
        before = 0
        while (num := sum(one.answering for one in found)) and time.monotonic() < until:
            if num != before:
                tell(f"{num} answers are under way; no new requests are taken")
                before = num
            await asyncio.sleep(_ASKED_EVERY_S)
            found = await operations.standing()
    except (RayError, ReplicaLost, TimeoutError, RuntimeError) as error:
        tell(f"not all replicas tell what is under way ({type(error).__name__})")
    return num


def is_served() -> bool:
    """Whether the application is still wanted; where nobody can tell, it is."""
    import ray
    from ray import serve

    found: Any = None
    with suppress(RayError, RuntimeError):
        # Once Ray Serve has ended, its status cannot be asked for any more.
        if all(one["namespace"] != "serve" for one in ray.util.list_named_actors(all_namespaces=True)):
            return False
        found = serve.status().applications
    return found is None or APPLICATION in found
