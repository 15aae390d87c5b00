"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import struct
import tarfile
from typing import BinaryIO, Literal

Container = Literal["zip", "tar", "gzip", "bzip2", "xz"]

_CONTAINERS: tuple[tuple[bytes, Container], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    *((b"BZh%d1AY&SY" % level, "bzip2") for level in range(1, 10)),
    *((b"BZh%d\x17rE8P\x90" % level, "bzip2") for level in range(1, 10)),
    (b"\xfd7zXZ\x00", "xz"),
)

_PROGRAM = "a program in machine code, which a bundle has no use for"
_ARCHIVE = "an archive that cannot be read here, so that nobody knows what is in it"
_WEIGHTS = "weights are safetensors only"

_REFUSED = (
    (b"\x7fELF", "executable", _PROGRAM),
    (b"\xcf\xfa\xed\xfe", "executable", _PROGRAM),
    (b"\xce\xfa\xed\xfe", "executable", _PROGRAM),
    (b"\xfe\xed\xfa\xcf", "executable", _PROGRAM),
    (b"\xfe\xed\xfa\xce", "executable", _PROGRAM),
    (b"\xca\xfe\xba\xbe", "executable", _PROGRAM),
    (b"\x00asm", "executable", _PROGRAM),
    (b"!<arch>\n", "executable", _PROGRAM),
    (b"MZ", "executable", _PROGRAM),
    (b"7z\xbc\xaf\x27\x1c", "archive", _ARCHIVE),
    (b"Rar!\x1a\x07", "archive", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", "archive", _ARCHIVE),
    (b"\x04\x22\x4d\x18", "archive", _ARCHIVE),
    (b"\x89HDF\r\n\x1a\n", "weights", f"{_WEIGHTS}: this is HDF5, as Keras writes it"),
    (b"GGUF", "weights", f"{_WEIGHTS}: this is GGUF"),
    (b"\x93NUMPY", "weights", f"{_WEIGHTS}: this is an array of NumPy"),
)

_SURE_BYTES = 4
_PYTHON_BYTECODE = range(3000, 4000)
_TAR_BLOCK = 512
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22
_LONGEST_ZIP_COMMENT = 65_535


def container_of(stream: BinaryIO) -> Container | None:
    """Which kind of container begins here, if any."""
    head = _head(stream, _TAR_BLOCK)
    for magic, kind in _CONTAINERS:
        if head.startswith(magic):
            return kind
    return "tar" if _is_tar(head) else None


def refused_kind(stream: BinaryIO, *, is_raw: bool = False) -> tuple[str, str] | None:
    """The kind of finding and why, where the content is one that no bundle may hold.

    is_raw: a tensor's bytes are expected, which begin with a short magic number now and then.
    """
    head = _head(stream, 16)
    for magic, kind, why in _REFUSED:
        if head.startswith(magic) and not (is_raw and len(magic) < _SURE_BYTES):
            return kind, why
    if is_raw:
        return None
    if head[2:4] == b"\r\n" and len(head) == 16 and struct.unpack("<H", head[:2])[0] in _PYTHON_BYTECODE:
        return "executable", "bytecode of Python, which a bundle has no use for"
    return None


def has_zip_behind(stream: BinaryIO) -> bool:
    """Whether a content that is no zip archive ends as one: readers that look from the end would open that."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _ZIP_END_BYTES - _LONGEST_ZIP_COMMENT))
    tail = stream.read()
    stream.seek(0)
    place = tail.rfind(_ZIP_END)
    if place < 0 or len(tail) - place < _ZIP_END_BYTES:
        return False
    _, disk, first_disk, here, entries, length, _, comment = struct.unpack(
        "<4s4H2LH", tail[place : place + _ZIP_END_BYTES]
    )
    ends_here = place + _ZIP_END_BYTES + comment == len(tail)
    return bool(ends_here and disk == first_disk and here == entries and length <= size)


def _is_tar(head: bytes) -> bool:
    if len(head) < _TAR_BLOCK or not head[0]:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _head(stream: BinaryIO, num_bytes: int) -> bytes:
    stream.seek(0)
    head = stream.read(num_bytes)
    stream.seek(0)
    return head
