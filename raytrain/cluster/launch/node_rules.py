"""Rules about the nodes themselves: disks, spot nodes, idle time, software, and values that are not filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytrain.cluster.launch.cluster_file import ClusterFile, Finding
from raytrain.cluster.launch.nodes import node_types
from raytrain.config.document import KeyPath

LEAST_DISK_GIB = 100
"""The environment with CUDA takes about 15 GiB, an image with drivers 60, and Ray spills objects to the same disk."""
LONGEST_IDLE_MINUTES = 240
_PLACEHOLDER = re.compile(r"<[^<>=]+>")
_COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
_RAY = re.compile(
    r"\bray(?:\[[\w,]*\])?\s*==\s*([\d.]+\w*)|/ray-([\d.]+\w*?)-cp|rayproject/ray[\w-]*:([\d.]+)"
)
_PYTHON = re.compile(
    r"\bpython\s*={1,2}\s*([\d.]+)|--python[= ]\s*([\d.]+)|install\.sh\s+([\d.]+)|rayproject/ray\S*-py(3\d+)|-cp(3\d+)-"
)
_NOT_ONE_VERSION = re.compile(
    r"pip3?\s+install\b[^;&|]*\s['\"]?ray(?:\[[\w,]*\])?\s*(?:(?:[~<>!]=|[<>])[^;&|'\"\s]*)?['\"]?(?:\s|$)"
    r"|rayproject/ray[\w-]*(?::(?!\d)[\w.-]+)?(?=['\"\s]|$)"
)
"""A Ray that pip chooses, or an image without a tag, or with one that names no version: latest, nightly."""


def missing_disks(cluster: ClusterFile) -> list[Finding]:
    """Nodes whose disk is not said, or is too small for the environment."""
    found = []
    for node in node_types(cluster):
        fix = f"say a disk of {LEAST_DISK_GIB} GiB or more"
        if not node.disk_gib:
            what = f"{node.name} has no disk of a size that is said: the image's own may hold 8 GiB"
            found.append(cluster.finding("missing-disk", "error", node.disk_key, what, fix))
        elif node.disk_gib < LEAST_DISK_GIB:
            what = f"{node.name} has a disk of {node.disk_gib} GiB: the environment alone may fill it"
            found.append(cluster.finding("missing-disk", "warning", node.disk_key, what, fix))
    return found


def spot_head(cluster: ClusterFile) -> list[Finding]:
    """A head that the cloud may take away, and the whole cluster with it."""
    return [
        cluster.finding(
            "spot-head",
            "error",
            node.spot_key,
            f"the head {node.name} is a spot node: when it is taken away, every run ends",
            "take the head on demand; spot nodes are for workers",
        )
        for node in node_types(cluster)
        if node.is_head and node.is_spot
    ]


def idle_nodes(cluster: ClusterFile) -> list[Finding]:
    """Nodes that would stay on, and be paid for, when nobody uses them."""
    if not cluster.is_on_demand:
        return []
    key: KeyPath = ("idle_timeout_minutes",)
    fix = "write idle_timeout_minutes: 10"
    if "idle_timeout_minutes" not in cluster.document.values:
        what = "the file does not say when an idle worker ends"
        return [cluster.finding("no-idle-timeout", "error", key, what, fix)]
    minutes = cluster.get("idle_timeout_minutes")
    if minutes > LONGEST_IDLE_MINUTES:
        what = f"an idle worker is paid for {minutes:g} minutes, more than {LONGEST_IDLE_MINUTES}"
        return [cluster.finding("no-idle-timeout", "error", key, what, fix)]
    return []


def other_versions(cluster: ClusterFile, ray_version: str, python_version: str) -> list[Finding]:
    """Commands and images that bring another Ray or Python than this installation's."""
    found = []
    for key, text in _software(cluster):
        for version in _versions(_RAY, text):
            if version != ray_version:
                what = f"brings Ray {version}; here it is {ray_version}, and Ray does not join other versions"
                fix = f"install ray=={ray_version}, or take an image of it"
                found.append(cluster.finding("other-version", "error", key, what, fix))
        for version in _versions(_PYTHON, text):
            if not f"{python_version}.".startswith(f"{version}."):
                what = f"brings Python {version}; here it is {python_version}, and Ray does not join other versions"
                fix = f"take Python {'.'.join(python_version.split('.')[:2])}"
                found.append(cluster.finding("other-version", "error", key, what, fix))
        if _NOT_ONE_VERSION.search(text):
            what = f"brings whichever Ray is newest on that day; here it is {ray_version}"
            fix = f"install ray=={ray_version}, or take an image of it"
            found.append(cluster.finding("other-version", "error", key, what, fix))
    return found


def other_lock(cluster: ClusterFile, ray_version: str, root: Path) -> list[Finding]:
    """A lock, among the files that nodes get, with another Ray than this installation's; paths begin at `root`."""
    found = []
    for remote, local in (cluster.get("file_mounts") or {}).items():
        file = root / Path(str(local)).expanduser()
        if file.name != "constraints.txt" or not file.is_file():
            continue
        for version in re.findall(r"^ray==(\S+)", file.read_text(), re.MULTILINE):
            if version != ray_version:
                what = f"{local} locks Ray {version}; here it is {ray_version}, and Ray does not join other versions"
                fix = "install here what the lock says: `make env`"
                found.append(cluster.finding("other-version", "error", ("file_mounts", remote), what, fix))
    return found


def missing_files(cluster: ClusterFile, root: Path) -> list[Finding]:
    """Files for the nodes that are not here; paths begin at `root`, where `ray up` would be typed."""
    found = []
    for remote, local in (cluster.get("file_mounts") or {}).items():
        if (root / Path(str(local)).expanduser()).exists():
            continue
        is_token = str(local).endswith("auth_token")
        fix = "make it: `ray get-auth-token --generate`" if is_token else "run from the folder that holds it"
        what = f"there is no {local} from {root}"
        found.append(cluster.finding("missing-file", "unfilled", ("file_mounts", remote), what, fix))
    return found


def placeholders(cluster: ClusterFile) -> list[Finding]:
    """Values between angle brackets, which wait for yours; one that YAML's aliases repeat is told once."""
    found: dict[tuple[str, str], Finding] = {}
    for path, value in _leaves(cluster.document.values):
        if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            one = cluster.finding("unfilled", "unfilled", path, f"{value} is not filled in", "write yours")
            found.setdefault((one.place, value), one)
    return list(found.values())


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _leaves(below, (*path, i))
    else:
        yield path, value


def _software(cluster: ClusterFile) -> Iterator[tuple[KeyPath, str]]:
    for key in _COMMANDS:
        for i, command in enumerate(cluster.get(key) or []):
            yield (key, i), str(command)
    for key in ("image", "head_image", "worker_image"):
        if cluster.get("docker", key):
            yield ("docker", key), str(cluster.get("docker", key))


def _versions(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        version = next(group for group in match.groups() if group)
        # py311 and cp311 stand for 3.11.
        yield version if "." in version else f"{version[0]}.{version[1:]}"
