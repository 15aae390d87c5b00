"""The process between raytrain and a command: isolates itself, starts the command, watches it, and tells how it ended.

Run as a script, without site-packages, in a session of its own. Descriptors: CONTROL gives the plan, then "go", and is
then a lifeline: where it closes, everything ends. STATUS takes one JSON object a line.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

from raytrain.evaluation.sandbox import filters, kernel, room
from raytrain.evaluation.sandbox.confined import INSIDE, Plan, start_confined
from raytrain.evaluation.sandbox.disk import is_over
from raytrain.evaluation.sandbox.limits import MIB, Limits, Reason, Sample, exceeded

_LOOK_S = 0.02


def _tell(plan: Plan, **found: Any) -> None:
    os.write(plan.status, json.dumps(found).encode() + b"\n")


def main() -> None:
    control, status = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(os.dup(control), "rb", buffering=0) as stream:
        raw = json.loads(_line(stream))
        plan = Plan(**{**raw, "limits": Limits(**raw["limits"])}, control=control, status=status)
        try:
            if plan.level == "namespaces":
                kernel.unshare(
                    kernel.CLONE_NEWUSER
                    | kernel.CLONE_NEWNS
                    | kernel.CLONE_NEWPID
                    | kernel.CLONE_NEWNET
                    | kernel.CLONE_NEWIPC
                    | kernel.CLONE_NEWUTS
                )
            _tell(plan, ready=True)
            _line(stream)  # raytrain, outside, has written who we are in here
        except OSError as error:
            _tell(plan, failed=str(error))
            return
    if plan.level != "namespaces":
        _supervise(plan)
        return
    told, tells = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(tells)
        os.read(told, 1)  # what it tells itself comes after who it is
        os.close(told)
        _supervise(plan)
        os._exit(0)
    _tell(plan, first=first)
    os.close(tells)
    os.waitpid(first, 0)


def _line(stream: Any) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        one = stream.read(1)
        if not one:
            os._exit(1)
        found += one
    return found


def _supervise(plan: Plan) -> None:
    """In namespaces as process 1: when it ends the kernel ends all others. Else as the one that adopts orphans."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own handler would end it
    try:
        kernel.hide_from_ptrace()
        if plan.level == "namespaces":
            owner = INSIDE if plan.is_superuser else os.getuid()
            room.build_room(
                Path(plan.stage),
                Path(plan.folder),
                [Path(one) for one in plan.readable],
                plan.limits.disk_mb,
                owner,
            )
            kernel.bring_up_loopback()
            _forbid_namespaces()
        else:
            kernel.adopt_orphans()
        started, failure = start_confined(plan)
    except OSError as error:
        if plan.level == "namespaces" and error.errno == errno.ENOSPC:
            _tell(plan, reason="disk", exit_code=1, seconds=0.0, peak_rss_bytes=0)
        else:
            _tell(plan, failed=str(error))
        return
    with os.fdopen(failure, "rb") as stream:
        told = stream.read()  # closes when the command is executed
    if told:
        _tell(plan, failed=told.decode("utf-8", "replace"))
        return
    for handle in (0, 1, 2, plan.report):
        os.close(handle)  # else raytrain would wait for our end of them
    if plan.level != "namespaces":
        _tell(plan, started=started)
    _tell(plan, **_watch(plan, started))


def _forbid_namespaces() -> None:
    """In a namespace of its own a command would be a superuser again, before more of the kernel."""
    try:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    except OSError:
        if not filters.is_known_machine():
            raise  # else the filter denies it


def _watch(plan: Plan, started: int) -> dict[str, Any]:
    """Look until the command has ended, a limit is reached or raytrain lets go; then end all that it started."""
    begun, peak, status, reason = time.monotonic(), 0, None, None
    while status is None and reason is None:
        gone, _, _ = select.select([plan.control], [], [], _LOOK_S)
        status = _reap(started)
        sample = _sample(plan, time.monotonic() - begun)
        peak = max(peak, sample.rss_bytes)
        if gone:
            reason = "killed"
        elif status is None or sample.is_disk_full:
            reason = exceeded(sample, plan.limits)
    seconds = time.monotonic() - begun
    _end_all(plan)
    if status is None:
        status = _reap(started)
    code = 128 + signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    return {
        "reason": reason or _reason_of(code),
        "exit_code": 128 - code if code < 0 else code,
        "seconds": seconds,
        "peak_rss_bytes": max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024),
    }


def _reason_of(code: int) -> Reason:
    if code >= 0:
        return "ok"
    known: dict[int, Reason] = {signal.SIGXCPU: "timeout", signal.SIGXFSZ: "disk"}
    return known.get(-code, "killed")  # not every signal has a name


def _reap(started: int) -> int | None:
    """Collect all that have ended; the command's status if it is among them."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == started:
            found = status


def _sample(plan: Plan, seconds: float) -> Sample:
    processes = _processes(plan)
    rss_bytes = _sum_kib(processes, "status", ("RssAnon:", "RssShmem:")) * 1024
    if rss_bytes > plan.limits.memory_mb * MIB and len(processes) < plan.limits.num_processes:
        # With what forked processes share counted once; too dear for every look.
        rss_bytes = min(rss_bytes, _sum_kib(processes, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) * 1024)
    return Sample(seconds, rss_bytes, len(processes), _is_disk_full(plan, processes))


def _sum_kib(processes: list[int], file: str, names: tuple[str, ...]) -> int:
    found = 0
    for one in processes:
        try:
            lines = Path(f"/proc/{one}/{file}").read_text().splitlines()
        except OSError:
            continue  # it has ended
        found += sum(int(line.split()[1]) for line in lines if line.startswith(names))
    return found


def _is_disk_full(plan: Plan, processes: list[int]) -> bool:
    if plan.level == "namespaces":
        return room.is_full(room.BOX, room.SPARE_BLOCKS)
    return is_over(plan.folder, processes, plan.limits.disk_mb * MIB)


def _processes(plan: Plan) -> list[int]:
    """All but our own: in namespaces everything there is, else our descendants."""
    every = [int(one) for one in os.listdir("/proc") if one.isdecimal()]  # noqa: PTH208 - 50 times a second
    if plan.level == "namespaces":
        return [one for one in every if one != 1]
    parents: dict[int, int] = {}
    for one in every:
        try:
            parents[one] = int(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, rising = {os.getpid()}, True
    while rising:
        more = {one for one, parent in parents.items() if parent in found} - found
        found, rising = found | more, bool(more)
    return sorted(found - {os.getpid()})


def _end_all(plan: Plan) -> None:
    """Until none is left: what is being killed may still be forking."""
    while True:
        left = _processes(plan)
        for kill in (signal.SIGSTOP, signal.SIGKILL):
            for one in left:
                try:
                    os.kill(one, kill)
                except ProcessLookupError:
                    continue
        time.sleep(0.001)
        _reap(0)
        if not left:
            return


if __name__ == "__main__":
    main()
