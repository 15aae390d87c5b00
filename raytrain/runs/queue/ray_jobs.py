"""Jobs on a Ray cluster, through its Jobs API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from raytrain.cluster.token import WrongTokenError
from raytrain.errors import ClusterError, PlatformError, StorageError
from raytrain.runs.job_client import connect_jobs, first_line, submit_command, upload_package
from raytrain.runs.queue.cluster_room import room_of
from raytrain.runs.queue.ending import IN_QUEUE, Ended
from raytrain.runs.queue.job import Job, Limits
from raytrain.runs.queue.log_tail import last_lines

GONE_AFTER_S = 60.0
"""Without an answer from its cluster, a job counts as gone."""

ROOM_KNOWN_FOR_S = 10.0
"""So long what a cluster has said of its nodes is taken for true."""

_WITHIN_S = 2.0
"""Other jobs wait while a scheduler waits for a cluster."""

_STOPPED_CODE = 143  # as a shell tells SIGTERM; Ray keeps no exit code of what it stopped


_GOING_ON = ("PENDING", "RUNNING")


class RayBackend:
    """Its name for a start is the submission's id, which Ray takes once: a start cannot happen twice."""

    def __init__(self, gone_after_s: float = GONE_AFTER_S) -> None:
        self._gone_after_s = gone_after_s
        self._clients: dict[str | None, Any] = {}
        self._silent_since: dict[str, float] = {}
        self._asked: set[str] = set()
        self._rooms: dict[str | None, tuple[float, Limits | None]] = {}
        """With the time at which each was told."""

    def start(self, job: Job, counts: Callable[[], bool]) -> Ended | None:
        """Raises ClusterError also while an earlier start goes on, which a cluster that was out of reach has kept."""
        client = self._client(job)
        done = self._stop_earlier(client, job)
        if done is not None:
            return done
        package = upload_package(client, job.package) if job.package is not None else None
        if not counts():
            return None
        submit_command(
            client,
            job.words,
            submission_id=job.submission_id,
            package=package,
            environment={**job.environment, IN_QUEUE: job.id},
            metadata={"raytrain_job": job.id, "user": job.user},
        )
        with suppress(StorageError):  # it has begun, and `look` finds it
            if not counts():
                self.ask_to_stop(job)
        return None

    def _stop_earlier(self, client: Any, job: Job) -> Ended | None:
        """How the job ended, where an earlier start has done it; ClusterError where one goes on, or may."""
        for number in range(1, job.num_starts):
            name = replace(job, num_starts=number).submission_id
            try:
                status = _status(client.get_job_info(name))
                if status == "SUCCEEDED":
                    return Ended(0, None, self._log_tail(client, name))
                if status not in _GOING_ON:
                    continue
                client.stop_job(name)
            except WrongTokenError:
                self._clients.pop(job.address, None)
                raise
            except (OSError, RuntimeError) as error:
                if "does not exist" in str(error):
                    continue
                raise ClusterError(
                    f"{job.address} does not say whether {name} still runs",
                    why=first_line(error),
                    fix="look at the cluster; the job is tried again",
                ) from error
            raise ClusterError(
                f"{name}, an earlier start, still runs at {job.address}",
                why="the cluster was out of reach and has kept it; it was now asked to save and end",
                fix="wait; the job is tried again",
            )
        return None

    def look(self, job: Job, now: float) -> Ended | None:
        name = job.submission_id
        try:
            client = self._client(job)
            details = client.get_job_info(name)
        except WrongTokenError:
            self._clients.pop(job.address, None)
            return None  # it may well run; whoever has the token can tell
        except (PlatformError, OSError, RuntimeError) as error:
            if "does not exist" in str(error):
                return self._unknown(job, now)
            return self._silent(job, now, error)
        self._silent_since.pop(name, None)
        status = _status(details)
        if status in _GOING_ON:
            return None
        tail = self._log_tail(client, name)
        if status == "SUCCEEDED":
            return Ended(0, None, tail)
        if status == "STOPPED":
            return Ended(_STOPPED_CODE, "stopped on the cluster", tail)
        if details.driver_exit_code is None:  # it never began, or the node under it died
            return Ended(None, (details.message or "the cluster lost it").strip()[:500], tail)
        return Ended(details.driver_exit_code, None, tail)

    def room(self, address: str | None, now: float) -> Limits | None:
        told_at, room = self._rooms.get(address, (-ROOM_KNOWN_FOR_S, None))
        if 0.0 <= now - told_at < ROOM_KNOWN_FOR_S:
            return room
        try:
            room = room_of(self._client_at(address))
        except (PlatformError, OSError, RuntimeError, ValueError):
            self._clients.pop(address, None)
            return None  # a start tells what is wrong
        self._rooms[address] = (now, room)
        return room

    def ask_to_stop(self, job: Job) -> None:
        """Ray sends SIGTERM, and kills what has not ended STOP_WITHIN_S later."""
        if job.submission_id in self._asked:
            return
        try:
            self._client(job).stop_job(job.submission_id)
        except (PlatformError, OSError, RuntimeError):
            return  # `look` tells what is wrong with the cluster; it is asked again
        self._asked.add(job.submission_id)

    def _client(self, job: Job) -> Any:
        return self._client_at(job.address)

    def _client_at(self, address: str | None) -> Any:
        if address not in self._clients:
            self._clients[address] = connect_jobs(address, within_s=_WITHIN_S)
        return self._clients[address]

    def _unknown(self, job: Job, now: float) -> Ended | None:
        """Claimed a moment ago, it may be on its way; later the cluster is a new one that never heard of it."""
        if now - (job.started_at or now) < self._gone_after_s:
            return None
        return Ended(None, f"the cluster at {job.address} does not know it: it was started anew")

    def _silent(self, job: Job, now: float, error: BaseException) -> Ended | None:
        self._clients.pop(job.address, None)
        since = self._silent_since.setdefault(job.submission_id, now)
        if now - since < self._gone_after_s:
            return None
        why = error.what if isinstance(error, ClusterError) else first_line(error)
        return Ended(None, f"its cluster is gone: {why}")

    @staticmethod
    def _log_tail(client: Any, name: str) -> str | None:
        try:
            return last_lines(client.get_job_logs(name))
        except (OSError, RuntimeError):
            return None  # the node that has it is gone


def _status(details: Any) -> str:
    return str(getattr(details.status, "value", details.status))
