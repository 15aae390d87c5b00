"""Whether any byte of a zip archive belongs to no member that was taken out."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_LOCAL_BYTES, _ENTRY_BYTES = 30, 46
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_BYTES, _END64_BYTES, _LOCATOR64_BYTES = 22, 56, 20
_DESCRIBED, _UTF8 = 0x8, 0x800
_CHUNK_BYTES = 1 << 20

_LONGEST_EXTRA = {0x0001: 28, 0x5455: 13, 0x7875: 11, 0xCAFE: 0}
"""In bytes: 64-bit sizes, times, owners by number, and Java's mark. All of them are numbers."""
_PADDING = 0x4246
"""torch moves tensors to multiples of 64 bytes with it: the letter Z, over and over."""


def unread_in_zip(stream: BinaryIO, archive: zipfile.ZipFile) -> str | None:
    """Where there is something in it that its members are not, and None where there is nothing.

    To be called once its members were read within a budget.
    """
    at = names = 0
    entries = sorted(archive.infolist(), key=lambda one: one.header_offset)
    starts = [one.header_offset for one in entries[1:]] + [archive.start_dir]
    for one, following in zip(entries, starts, strict=True):
        if one.header_offset != at:
            return f"bytes {at} to {one.header_offset} belong to no member"
        if one.comment or not _is_known_extra(one.extra):
            return f"its member {one.filename!r} has a comment or an extra field, where nothing is looked for"
        stream.seek(at)
        local = stream.read(_LOCAL_BYTES)
        num_name, num_extra = struct.unpack("<2H", local[26:30])
        name = stream.read(num_name).decode("utf-8" if one.flag_bits & _UTF8 else "cp437")
        if not name == one.orig_filename == one.filename or not _is_known_extra(stream.read(num_extra)):
            return f"its member {one.filename!r} has another name or an unknown field where it lies"
        content_at = at + _LOCAL_BYTES + num_name + num_extra
        if why := _packed_otherwise(stream, one, content_at):
            return f"its member {one.filename!r} {why}"
        stream.seek(content_at + one.compress_size)
        rest = stream.read(min(max(0, following - stream.tell()), 25))
        if rest not in (_descriptors(one) if one.flag_bits & _DESCRIBED else (b"",)):
            return f"bytes after its member {one.filename!r} belong to none"
        at = following
        names += num_name + len(one.extra)
    return _unread_end(stream, archive.start_dir + _ENTRY_BYTES * len(entries) + names)


def _unread_end(stream: BinaryIO, listed: int) -> str | None:
    """listed: where the list of members ends."""
    stream.seek(listed)
    end = stream.read(_END64_BYTES + _LOCATOR64_BYTES + _END_BYTES + 1)
    if end.startswith(_END64):
        locator = end[_END64_BYTES : _END64_BYTES + _LOCATOR64_BYTES]
        if not locator.startswith(_LOCATOR64) or struct.unpack("<Q", end[4:12])[0] != _END64_BYTES - 12:
            return "its end is none that is read here"
        end = end[_END64_BYTES + _LOCATOR64_BYTES :]
    if not end.startswith(_END) or len(end) != _END_BYTES or end[-2:] != b"\0\0":
        return "bytes lie behind its list of members"
    return None


def _is_known_extra(extra: bytes) -> bool:
    while extra:
        if len(extra) < 4:
            return False
        kind, length = struct.unpack("<2H", extra[:4])
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        if len(content) != length:
            return False
        if kind == _PADDING:
            if content.strip(b"Z"):
                return False
        elif length > _LONGEST_EXTRA.get(kind, -1):
            return False
    return True


def _packed_otherwise(stream: BinaryIO, one: zipfile.ZipInfo, at: int) -> str | None:
    """What is wrong with how a member lies there; bytes behind a packed content are passed over by readers."""
    if one.compress_type == zipfile.ZIP_STORED:
        return None if one.compress_size == one.file_size else "is not as long as it says"
    if one.compress_type != zipfile.ZIP_DEFLATED:
        return "is packed in a way that is not read here"
    stream.seek(at)
    decoder = zlib.decompressobj(-15)
    num = 0
    left = one.compress_size
    while left and not decoder.eof:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        left -= len(chunk)
        while chunk and not decoder.eof:
            num += len(decoder.decompress(chunk, _CHUNK_BYTES))
            chunk = decoder.unconsumed_tail
            if num > one.file_size:
                return "is longer than it says"
    # What a decoder has taken in and not yet given out would come with `flush`.
    num += len(decoder.flush(_CHUNK_BYTES))
    if not decoder.eof or decoder.unused_data or left or num != one.file_size:
        return "has bytes behind its content"
    return None


def _descriptors(one: zipfile.ZipInfo) -> Iterator[bytes]:
    """The forms in which checksum and sizes may follow a member that was written as a stream."""
    for mark in (b"", b"PK\x07\x08"):
        yield mark + struct.pack("<LQQ", one.CRC, one.compress_size, one.file_size)
        if max(one.compress_size, one.file_size) < 1 << 32:
            yield mark + struct.pack("<LLL", one.CRC, one.compress_size, one.file_size)
