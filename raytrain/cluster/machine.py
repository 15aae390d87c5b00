"""What this machine has: memory that a process may take, and arithmetic."""

from __future__ import annotations

from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def container_limit_bytes() -> int | None:
    """The memory limit of this control group (version 2, then 1), if there is one."""
    for file in _LIMITS:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def memory_bytes() -> int:
    """The machine's, or what the container may have of it."""
    import psutil

    total = int(psutil.virtual_memory().total)
    return min(total, container_limit_bytes() or total)


def has_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16. Without them PyTorch computes them all the same,
    several times slower than float32."""
    import torch

    # PyTorch's own check of its library, which is true wherever that can do without them, is another question.
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
