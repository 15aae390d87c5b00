"""Which raytrain a cluster's machine has. Ray compares its own version and Python's on them, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import raytrain
from raytrain.errors import ClusterError

SENT_BY = "RAYTRAIN_SENT_BY"
"""In a job's environment: the version of the raytrain that sent it."""


def check_sender(environment: Mapping[str, str]) -> None:
    """In a job's process, first of all. Raises ClusterError where another raytrain has sent it."""
    sent_by = environment.get(SENT_BY)
    if sent_by is not None:
        _check(sent_by, "sent this job")


def check_driver(version: str) -> None:
    """On a worker. Raises ClusterError where the driver's raytrain is another."""
    _check(version, "drives this run")


def _check(version: str, does: str) -> None:
    if version == raytrain.__version__:
        return
    raise ClusterError(
        f"raytrain {version} {does}, and {socket.gethostname()} of the cluster has raytrain {raytrain.__version__}",
        why=f"two versions may read one recipe, and one checkpoint, differently; the cluster's is at "
        f"{Path(raytrain.__file__).parent}",
        fix="install the same version on every machine: the cluster's here, or this one in the cluster's image or "
        "setup commands",
    )
