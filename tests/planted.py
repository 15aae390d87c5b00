"""Folders for scans, and what is planted in them: keys that nobody has issued, pickles that nobody loads."""

from __future__ import annotations

import io
import os
import pickle
import random
import string
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raytrain.release.scans.report import ScanReport
from raytrain.release.scans.scan import scan

SUBJECT = "sha256:" + "5" * 64


def key_of(seed: int = 0) -> str:
    """A token in a known form that nobody has ever issued."""
    letters = random.Random(seed).choices(string.ascii_letters + string.digits, k=36)
    return "ghp_" + "".join(letters)


class Bomb:
    """Runs a command when it is unpickled; here it never is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def found(folder: Path, **more: Any) -> ScanReport:
    return scan(folder, subject=SUBJECT, **more)


def refused(folder: Path, file: str, kind: str | None = None) -> ScanReport:
    """The report, once it has been held that it refuses this file and names it."""
    report = found(folder)
    hits = [one for one in report.findings if one.file.split("!")[0] == file and kind in (None, one.kind)]
    assert hits and not report.passed, report.findings
    return report


PICKLES: dict[str, Callable[[], bytes]] = {
    "oldest": lambda: pickle.dumps(Bomb(), protocol=0),
    "old": lambda: pickle.dumps(Bomb(), protocol=2),
    "newest": lambda: pickle.dumps(Bomb(), protocol=5),
    "cut short": lambda: pickle.dumps(Bomb(), protocol=4)[:-2],
    "without its first opcode": lambda: pickle.dumps(Bomb(), protocol=4)[2:],
    "with its names put together": lambda: (
        b"\x8c\x02os\x94\x8c\x06system0h\x00\x8c\x06system\x93\x8c\x04true\x85R."
    ),
    "behind a harmless one": lambda: pickle.dumps(1) + pickle.dumps(Bomb()),
    "of plain values": lambda: pickle.dumps({"w": [1.0, 2.0]}, protocol=4),
    "of an array": lambda: pickle.dumps(np.zeros(3)),
}


def in_zip(content: bytes, name: str = "inner/data.txt") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def in_tar(content: bytes, name: str = "inner/data.txt") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
