"""Bytes as they lie on the disk: what of them can be printed, and whether they are zero."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
_SHORTEST_RUN = 8
"""In characters. Random bytes have such a run every 10,000 or so; no name with a value fits into less."""
_SIGN = rb"[\t\n\r\x20-\x7e]"
_RUNS = (
    (re.compile(rb"%b{%d,}" % (_SIGN, _SHORTEST_RUN)), "ascii"),
    (re.compile(rb"(?:%b\x00){%d,}" % (_SIGN, _SHORTEST_RUN)), "utf-16-le"),
    (re.compile(rb"(?:\x00%b){%d,}" % (_SIGN, _SHORTEST_RUN)), "utf-16-be"),
)


class UnreadBytesError(ValueError):
    """Bytes of a file that belong to nothing that a reader here knows: the text says where."""


def printable_runs(content: bytes | mmap.mmap) -> Iterator[str]:
    """What a person would find in it with `strings`: runs of ASCII, also as UTF-16 has it, over lines."""
    for pattern, encoding in _RUNS:
        for one in pattern.finditer(content):
            yield one.group().decode(encoding)


def runs_of_file(path: Path) -> Iterator[str]:
    """The printable runs of a whole file, which is not read into memory."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield from printable_runs(content)


def texts_of(values: Iterable[str | bytes]) -> Iterator[str]:
    """Texts as they are, and what can be printed of bytes."""
    for one in values:
        if isinstance(one, str):
            yield one
        else:
            # What is UTF-8 to the end stays whole; of anything else there are runs.
            with suppress(UnicodeDecodeError):
                yield one.decode("utf-8")
            yield from printable_runs(one)


def is_zero(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether all bytes from start to end are there, and zero."""
    stream.seek(start)
    left = end - start
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk or any(chunk):
            return False
        left -= len(chunk)
    return True
