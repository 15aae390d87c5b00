"""The log of a job on a cluster while it runs, and how the job ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raytrain.cluster.token import WrongTokenError
from raytrain.errors import ClusterError
from raytrain.runs.job_client import first_line

_POLL_S = 0.5
_SILENT_FOR_S = 60.0
_CODE_OF_A_STOPPED_JOB, _CODE_OF_A_LOST_JOB = 143, 4


@dataclass(frozen=True)
class JobEnd:
    status: str
    """As Ray has it: SUCCEEDED, FAILED or STOPPED."""
    exit_code: int
    message: str


def follow(client: Any, submission_id: str, write: Callable[[str], None]) -> JobEnd:
    """Write the log as it grows until the job has ended; what was written is not written again after a break.

    Raises ClusterError where the cluster says nothing for a minute; the job may well go on.
    """
    import aiohttp

    num_written = 0

    async def tail() -> None:
        nonlocal num_written
        num_seen = 0
        async for text in client.tail_job_logs(submission_id):
            num_seen += len(text)
            if num_seen > num_written:
                write(text[-(num_seen - num_written) :])
                num_written = num_seen

    silent_since: float | None = None
    while True:
        try:
            details = client.get_job_info(submission_id)
            status = _status(details)
            if status != "PENDING":
                asyncio.run(tail())
                details = client.get_job_info(submission_id)
                status = _status(details)
        except WrongTokenError:
            raise  # a minute of trying makes it no better
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _SILENT_FOR_S:
                raise ClusterError(
                    f"the cluster has not answered for {_SILENT_FOR_S:.0f} s",
                    why=first_line(error),
                    fix=f"if it comes back, the log goes on: {follow_command(client, submission_id)}",
                ) from error
        else:
            silent_since = None
            if status in ("SUCCEEDED", "FAILED", "STOPPED"):
                return JobEnd(status, _exit_code(status, details), (details.message or "").strip())
        time.sleep(_POLL_S)


def _status(details: Any) -> str:
    return str(getattr(details.status, "value", details.status))


def _exit_code(status: str, details: Any) -> int:
    """That of the command itself, where Ray knows it."""
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return _CODE_OF_A_STOPPED_JOB
    code = details.driver_exit_code
    if code is None:
        return _CODE_OF_A_LOST_JOB
    return int(code) if code > 0 else 128 - int(code)


def follow_command(client: Any, submission_id: str) -> str:
    return f"ray job logs {submission_id} --follow --address {client.get_address()}"


def stop_command(client: Any, submission_id: str) -> str:
    return f"ray job stop {submission_id} --address {client.get_address()}"
