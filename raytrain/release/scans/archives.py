"""What lies in archives, taken out one by one, within limits."""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from raytrain.release.scans.magic import Container
from raytrain.release.scans.raw_bytes import is_zero, printable_runs
from raytrain.release.scans.zip_gaps import unread_in_zip

_CHUNK_BYTES = 1 << 20
_LARGEST_HEADER_BYTES = 1 << 20
_GZIP_CHECKED, _GZIP_EXTRA, _GZIP_NAME, _GZIP_COMMENT, _GZIP_UNKNOWN = 0x02, 0x04, 0x08, 0x10, 0xE0
_GZIP_HEADER_BYTES, _GZIP_CHECK_BYTES = 10, 8

READING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
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


@dataclass(frozen=True)
class TakenOut:
    members: list[Member]
    texts: list[str]
    """What the archive tells beside them: names of folders, comments, headers."""


def take_out(path: Path, kind: Container, scratch: Path, budget: Budget) -> TakenOut:
    """All members of an archive, as files in `scratch`, and what it tells beside them.

    Raises ArchiveRefusedError where it goes over the budget, holds what is no file, or has bytes that belong to
    nothing; one of READING_ERRORS where it
    cannot be read.
    """
    names: set[str] = set()
    members: list[Member] = []
    texts: list[str] = []
    streams = {"zip": _of_zip, "tar": _of_tar, "gzip": _of_gzip}.get(kind)
    for name, chunks in streams(path, texts) if streams else _of_compressed(path):
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
        with place.open("wb") as target:
            for chunk in chunks:
                budget.take(len(chunk))
                target.write(chunk)
        members.append(Member(name, place))
    return TakenOut(members, texts)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _of_zip(path: Path, texts: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        if archive.comment:
            raise ArchiveRefusedError("it has a comment, where nothing is looked for")
        for one in archive.infolist():
            mode = one.external_attr >> 16
            if one.is_dir() and not one.file_size:
                texts.append(one.filename)
                continue
            if one.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
                raise ArchiveRefusedError(f"its member {one.filename!r} is no file")
            yield one.filename, _chunks(archive.open(one))
        with path.open("rb") as stream:
            if why := unread_in_zip(stream, archive):
                raise ArchiveRefusedError(why)


def _of_tar(path: Path, texts: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    at = 0
    with tarfile.open(path, "r:") as archive, path.open("rb") as raw:
        for one in archive:
            if one.offset_data - at > _LARGEST_HEADER_BYTES:
                raise ArchiveRefusedError(f"the header of its member {one.name!r} is too long")
            raw.seek(at)
            texts += printable_runs(raw.read(one.offset_data - at))
            at = one.offset_data
            if one.isdir():
                continue
            stream = archive.extractfile(one) if one.isreg() and not one.issparse() else None
            if stream is None:
                raise ArchiveRefusedError(f"its member {one.name!r} is no file")
            yield one.name, _chunks(stream)
            end, at = at + one.size, at + -(-one.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if not is_zero(raw, end, at):
                raise ArchiveRefusedError(f"bytes after its member {one.name!r} belong to none")
        if not is_zero(raw, at, path.stat().st_size):
            raise ArchiveRefusedError("bytes after its last member belong to none")


def _of_gzip(path: Path, texts: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    with path.open("rb") as stream:
        header = stream.read(_GZIP_HEADER_BYTES)
        flags = header[3]
        if flags & (_GZIP_EXTRA | _GZIP_UNKNOWN):
            raise ArchiveRefusedError("it has an extra field, where nothing is looked for")
        for flag in (_GZIP_NAME, _GZIP_COMMENT):
            if flags & flag:
                texts.append(_up_to_zero(stream))
        stream.read(2 if flags & _GZIP_CHECKED else 0)
        yield _name_inside(path), _inflated(stream)


def _up_to_zero(stream: BinaryIO) -> str:
    found = bytearray()
    while (one := stream.read(1)) != b"\0":
        found += one
        if not one or len(found) > _LARGEST_HEADER_BYTES:
            raise ArchiveRefusedError("its header does not end")
    return found.decode("latin-1")


def _inflated(stream: BinaryIO) -> Iterator[bytes]:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    checksum = length = 0
    packed = b""
    while not decoder.eof:
        packed = decoder.unconsumed_tail or stream.read(_CHUNK_BYTES)
        chunk = decoder.decompress(packed, _CHUNK_BYTES)
        if not packed and not chunk and not decoder.eof:
            raise EOFError("it is cut")
        checksum, length = zlib.crc32(chunk, checksum), length + len(chunk)
        yield chunk
    rest = decoder.unused_data + stream.read(_GZIP_CHECK_BYTES + 1)
    if len(rest) > _GZIP_CHECK_BYTES:
        raise ArchiveRefusedError("bytes come after its end")
    if struct.unpack("<2L", rest) != (checksum, length & 0xFFFFFFFF):
        raise ValueError("its content does not fit its checksum")


def _of_compressed(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    with path.open("rb") as stream:
        is_xz = stream.read(1) == b"\xfd"
        stream.seek(0)
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ) if is_xz else bz2.BZ2Decompressor()
        yield _name_inside(path), _decompressed(stream, decoder)


def _decompressed(stream: BinaryIO, decoder: Any) -> Iterator[bytes]:
    while not decoder.eof:
        packed = stream.read(_CHUNK_BYTES) if decoder.needs_input else b""
        if decoder.needs_input and not packed:
            raise EOFError("it is cut")
        yield decoder.decompress(packed, _CHUNK_BYTES)
    if decoder.unused_data or stream.read(1):
        raise ArchiveRefusedError("bytes come after its end")


def _name_inside(path: Path) -> str:
    return path.stem if path.suffix in (".gz", ".bz2", ".xz") else "content"
