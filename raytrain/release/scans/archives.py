"""What lies in archives, taken out one by one, within limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from raytrain.release.scans.magic import Container

_CHUNK_BYTES = 1 << 20
_OPENERS: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}

READING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
"""What readers of archives raise over one that is damaged, encrypted, or packed in a way that they do not know."""


class ArchiveRefusedError(Exception):
    """An archive that is not read on: the text says why."""


@dataclass
class Budget:
    """How much may come out of one file of the folder, in whatever depth."""

    left_bytes: int
    left_members: int = 20_000
    deepest: int = 4

    @classmethod
    def for_file(cls, size_bytes: int, *, ratio: int = 100, free_bytes: int = 64 << 20) -> Budget:
        """Text shrinks to a tenth; what shrinks to a hundredth was made to fill a disk."""
        return cls(free_bytes + ratio * size_bytes)

    def take(self, num_bytes: int) -> None:
        self.left_bytes -= num_bytes
        if self.left_bytes < 0:
            raise ArchiveRefusedError("it grows to more than a hundred times its size: a bomb")

    def enter(self) -> None:
        self.left_members -= 1
        if self.left_members < 0:
            raise ArchiveRefusedError("it has more than 20,000 members")


@dataclass(frozen=True)
class Member:
    name: str
    path: Path
    """Where its content lies now."""


def take_out(path: Path, kind: Container, scratch: Path, budget: Budget) -> list[Member]:
    """All members of an archive, as files in `scratch`.

    Raises ArchiveRefusedError where it goes over the budget or holds what is no file; one of READING_ERRORS where it
    cannot be read.
    """
    names: set[str] = set()
    members: list[Member] = []
    streams = {"zip": _of_zip, "tar": _of_tar}.get(kind)
    for name, stream in streams(path) if streams else _of_compressed(path, kind):
        budget.enter()
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise ArchiveRefusedError(f"its member {name!r} would be written outside of it")
        if name in names:
            raise ArchiveRefusedError(
                f"it has two members {name!r}: readers differ in which of them they see"
            )
        names.add(name)
        place = scratch / f"{len(members)}{pure.suffix if pure.suffix.isascii() else ''}"[:64]
        _copy(stream, place, budget)
        members.append(Member(name, place))
    return members


def _copy(stream: IO[bytes], place: Path, budget: Budget) -> None:
    with stream, place.open("wb") as target:
        while chunk := stream.read(_CHUNK_BYTES):
            budget.take(len(chunk))
            target.write(chunk)


def _of_zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        if archive.comment:
            raise ArchiveRefusedError("it has a comment, where nothing is looked for")
        for one in archive.infolist():
            if one.is_dir():
                continue
            mode = one.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ArchiveRefusedError(f"its member {one.filename!r} is no file")
            yield one.filename, archive.open(one)


def _of_tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r:") as archive:
        for one in archive:
            if one.isdir():
                continue
            stream = archive.extractfile(one) if one.isreg() else None
            if stream is None:
                raise ArchiveRefusedError(f"its member {one.name!r} is no file")
            yield one.name, stream


def _of_compressed(path: Path, kind: Container) -> Iterator[tuple[str, IO[bytes]]]:
    name = path.stem if path.suffix in (".gz", ".bz2", ".xz") else "content"
    yield name, _OPENERS[kind](path)
