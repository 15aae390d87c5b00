"""Whether the head of the joined cluster answers. Ray waits a while for one that does not, and then ends the process
that waits without a word of ours."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from raytrain.errors import ClusterError

PATIENCE_S = 50.0
"""A head that keeps what it knows in Redis is back by then. Ray's own processes on the nodes wait for 60 s."""
_LOOK_EVERY_S = 5.0
_CONNECT_WITHIN_S = 2.0
_OF_RAY = "RAY_gcs_rpc_server_reconnect_timeout_s"


def have_ray_wait_longer() -> None:
    """Before Ray is joined: it may not end this process before we do."""
    os.environ.setdefault(_OF_RAY, f"{3 * PATIENCE_S:g}")


@dataclass
class HeadWatch:
    """Looked at often by who waits for the cluster, in one thread."""

    subject: str
    """What is lost with it, for example `run gsm8k-1`."""
    address: str
    answered_at: float
    looked_at: float

    @classmethod
    def of_cluster(cls, subject: str) -> HeadWatch:
        """Of the one that this process has joined."""
        import ray

        now = time.monotonic()
        return cls(subject, str(ray.get_runtime_context().gcs_address), now, now)

    def look(self) -> None:
        """Raises ClusterError where it has been silent for too long."""
        now = time.monotonic()
        if now - self.looked_at < _LOOK_EVERY_S:
            return
        self.looked_at = now
        if _answers(self.address):
            self.answered_at = now
        elif now - self.answered_at >= PATIENCE_S:
            raise ClusterError(
                f"{self.subject}: the Ray cluster went away",
                why=f"its head at {self.address} has not answered for {now - self.answered_at:.0f} s",
                fix="start the cluster again, or see to the network; the same command goes on from what was saved",
            )


def leave(code: int) -> NoReturn:
    """End this process, in place of `sys.exit`. Where the head of the joined cluster is gone, Ray bids no farewell: it
    would wait as long as `have_ray_wait_longer` says, and then end the process with a code of its own."""
    if code and _has_lost_its_head():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _has_lost_its_head() -> bool:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return not _answers(str(ray.get_runtime_context().gcs_address))


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True
