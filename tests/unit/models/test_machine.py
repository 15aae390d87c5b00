"""The memory that a process may take, in a container as Linux tells of it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from raytrain.models import machine

GIB = 1 << 30


@pytest.fixture(params=["memory.max memory.current", "memory.limit_in_bytes memory.usage_in_bytes"])
def group(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """The files of limit and use, of version 2 and of version 1; a GiB of files could be taken back."""
    limit, used = (tmp_path / name for name in request.param.split())
    files = "inactive_file" if limit.name == "memory.max" else "total_inactive_file"
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\n{files} {GIB}\n")
    found = machine._ControlGroup(limit, used, tmp_path / "memory.stat", files)
    monkeypatch.setattr(machine, "_GROUPS", (found,))
    return limit, used


def test_a_container_has_what_its_limit_leaves(group: tuple[Path, Path]) -> None:
    limit, used = group
    total = psutil.virtual_memory().total
    limit.write_text(f"{total // 2}\n")
    used.write_text(f"{total // 2 - GIB // 2}\n")
    assert machine.memory_bytes() == total // 2
    assert machine.free_memory_bytes() == min(GIB // 2 + GIB, machine.free_memory_bytes() + GIB)
    used.write_text(f"{2 * total}\n")
    assert machine.free_memory_bytes() == 0


@pytest.mark.parametrize("text", ["max\n", None])
def test_without_a_limit_it_is_the_machine_s(group: tuple[Path, Path], text: str | None) -> None:
    if text is not None:
        group[0].write_text(text)
        group[1].write_text("1\n")
    assert machine.container_limit_bytes() is None
    assert machine.memory_bytes() == psutil.virtual_memory().total
    assert 0 < machine.free_memory_bytes() <= psutil.virtual_memory().total
