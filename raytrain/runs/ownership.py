"""Which process holds a run, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import psutil

HEARTBEAT_LIMIT_S = 60.0
"""An owner on another machine counts as dead after this long without a heartbeat."""

_START_TIME_TOLERANCE_S = 2.0  # the kernel counts in clock ticks, and a clock may be set while a run goes on

StartTimeOf = Callable[[int], float | None]
"""Start time (seconds since the epoch) of a process id on this machine; None where no such process is."""


@dataclass(frozen=True)
class Owner:
    """One process on one machine; the start time tells it from a later process with the same id."""

    host: str
    pid: int
    process_started_at: float

    @classmethod
    def current(cls) -> Self:
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())


def process_start_time(pid: int) -> float | None:
    """None also for a zombie: it has ended and only waits for its parent."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def owner_is_alive(
    owner: Owner, heartbeat_at: float | None, now: float, this_host: str, start_time_of: StartTimeOf
) -> bool:
    """On this machine: the process is there and is the same one. Elsewhere: its heartbeat is young."""
    if owner.host == this_host:
        started_at = start_time_of(owner.pid)
        return (
            started_at is not None and abs(started_at - owner.process_started_at) <= _START_TIME_TOLERANCE_S
        )
    return heartbeat_at is not None and now - heartbeat_at < HEARTBEAT_LIMIT_S
