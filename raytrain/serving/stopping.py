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
from raytrain.serving.remote_operations import RemoteOperations
from raytrain.serving.section import APPLICATION, REPLICA

_ASKED_EVERY_S = 0.5


@dataclass(frozen=True)
class Stopped:
    """What was done."""

    was_running: bool
    num_cut_off: int = 0
    """Answers that were still under way when the time was up."""
    is_serve_ended: bool = False
    """Ray Serve itself as well: nothing else was served on the cluster."""

    @property
    def told(self) -> str:
        """For a person."""
        if not self.was_running:
            return f"nothing to stop: no application `{APPLICATION}` is served on this cluster"
        cut = f"{self.num_cut_off} answers were cut off" if self.num_cut_off else "no answer was cut off"
        rest = "Ray Serve has ended with it" if self.is_serve_ended else "other applications go on"
        return f"stopped `{APPLICATION}`: {cut}; {rest}"


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
    try:
        serve.delete(APPLICATION)
        is_alone = not serve.status().applications
        if is_alone:
            serve.shutdown()
    except (RuntimeError, TimeoutError, RayError) as error:
        raise ClusterError(
            f"`{APPLICATION}` does not end",
            why=str(error),
            fix="look at it with `serve status`, and try again",
        ) from error
    return Stopped(was_running=True, num_cut_off=num_left, is_serve_ended=is_alone)


async def _drained(timeout_s: float, tell: Callable[[str], None]) -> int:
    """How many answers are under way after that time at most."""
    from ray import serve

    operations = RemoteOperations(serve.get_deployment_handle(REPLICA, APPLICATION))
    until = time.monotonic() + timeout_s
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
        tell(f"no replica tells what is under way ({type(error).__name__})")
        return 0
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
