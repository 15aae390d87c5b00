"""Ray's own launcher commands, run as they are, with their failures in our words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raytrain.cluster.launch.cluster_file import ClusterFile
from raytrain.errors import ClusterError

_KEPT_LINES = 60
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
OWN_MACHINE_WAIT_S = 60
"""For machines of one's own, which are on already; Ray would wait 15 minutes, as for one that a cloud is starting."""


@dataclass(frozen=True)
class _Cause:
    """A fault that Ray's output tells of, in words of ours."""

    pattern: str
    why: str
    fix: str


_CAUSES = (
    _Cause(
        r"Unable to locate credentials|NoCredentialsError|DefaultCredentialsError|az login",
        "the cloud does not know who asks: there are no credentials",
        "log in with the cloud's own command (aws configure, gcloud auth application-default login, az login)",
    ),
    _Cause(
        r"No module named ['\"]?(?P<what>[\w.]+)",
        "Ray needs the package {what} to talk to this cloud",
        "install it beside raytrain; the file's head_setup_commands name the versions",
    ),
    _Cause(
        r"Permission denied \((?P<what>[^)]*)\)",
        "a machine does not take the SSH key ({what})",
        "check auth.ssh_user and auth.ssh_private_key with `ssh -i KEY USER@MACHINE`",
    ),
    _Cause(
        r"wait_ready timeout exceeded|Could not get node IP",
        "the head did not answer over SSH in time",
        "check that this machine reaches it (VPN, auth.ssh_proxy_command, security group): `ssh -i KEY USER@MACHINE`",
    ),
    _Cause(
        r"Head node of cluster \(?(?P<what>[^)\s]*)\)? not found",
        "no head of the cluster {what} is running",
        "start it with `raytrain cluster up FILE`",
    ),
    _Cause(
        r"(?P<what>\w+) not found\. Install with|rsync: command not found",
        "rsync is missing on this machine or on a node",
        "install rsync on both",
    ),
)


def run_ray(
    cluster: ClusterFile, arguments: list[str], show: Callable[[str], None], *, wait_s: int | None = None
) -> list[str]:
    """Run `ray ARGUMENTS`, hand every line to `show`, return the last of them. Raises ClusterError where it fails."""
    command = [*_RAY, *arguments]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    if not cluster.is_on_demand:
        wait_s = wait_s or OWN_MACHINE_WAIT_S
        # Ray's newer autoscaler (2.60) never starts the workers of own machines: it looks for a head that only the
        # older one writes down.
        environment.setdefault("RAY_UP_enable_autoscaler_v2", "0")
    if wait_s is not None:
        environment["AUTOSCALER_NODE_START_WAIT_S"] = str(wait_s)
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            plain = _COLOURS.sub("", line).strip("\r\n")
            kept.append(plain)
            show(plain)
    if process.returncode != 0:
        raise launch_failure(arguments, process.returncode, list(kept))
    return list(kept)


def attach(cluster: ClusterFile, port_forward: list[int]) -> int:
    """Open a shell on the head in this terminal; returns its exit code."""
    ports = [word for port in port_forward for word in ("-p", str(port))]
    return subprocess.run([*_RAY, "attach", str(cluster.path), *ports], check=False).returncode


def launch_failure(arguments: list[str], code: int, lines: list[str]) -> ClusterError:
    """The error of a Ray command that failed: the cause where its output names a known one, else its last complaint."""
    text = "\n".join(lines)
    what = f"`ray {arguments[0]}` ended with exit code {code}"
    for cause in _CAUSES:
        match = re.search(cause.pattern, text)
        if match is not None:
            named = {name: value or "" for name, value in match.groupdict().items()}
            return ClusterError(what, why=cause.why.format(**named), fix=cause.fix)
    complaints = [
        line.strip() for line in lines if re.search(r"error|failed|exception|invalid", line, re.IGNORECASE)
    ]
    said = complaints or [line.strip() for line in lines if line.strip()] or ["Ray said nothing"]
    return ClusterError(
        what,
        why=said[-1],
        fix="what Ray printed above says more; nodes that it started already are ended by `raytrain cluster down FILE`",
    )


_RAY = (str(Path(sys.executable).with_name("ray")),)
