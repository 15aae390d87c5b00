"""What this machine has: memory that a process may take, and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _ControlGroup:
    """Where Linux tells of a container's memory, and the word for pages of files that it can take back."""

    limit: Path
    used: Path
    kinds: Path
    files: str


_ROOT = Path("/sys/fs/cgroup")
_GROUPS = (
    _ControlGroup(
        _ROOT / "memory.max", _ROOT / "memory.current", _ROOT / "memory.stat", files="inactive_file"
    ),
    _ControlGroup(
        _ROOT / "memory/memory.limit_in_bytes",
        _ROOT / "memory/memory.usage_in_bytes",
        _ROOT / "memory/memory.stat",
        files="total_inactive_file",
    ),
)
"""Of control groups version 2, then 1."""


def container_limit_bytes() -> int | None:
    """The memory limit of this control group, if there is one."""
    for group in _GROUPS:
        try:
            text = group.limit.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def memory_bytes() -> int:
    """The machine's, or what the container may have of it."""
    import psutil

    total = int(psutil.virtual_memory().total)
    return min(total, container_limit_bytes() or total)


def free_memory_bytes() -> int:
    """That can be taken now without anything being written to a disk or killed."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = container_limit_bytes(), _container_used_bytes()
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _container_used_bytes() -> int | None:
    """Without the pages of files that Linux takes back when somebody wants them."""
    for group in _GROUPS:
        try:
            used = int(group.used.read_text())
            kinds = dict(line.split() for line in group.kinds.read_text().splitlines())
        except (OSError, ValueError):
            continue
        return max(0, used - int(kinds.get(group.files, 0)))
    return None


def has_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16. Without them PyTorch computes them all the same,
    several times slower than float32."""
    import torch

    # PyTorch's own check of its library, which is true wherever that can do without them, is another question.
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
