"""PNG and JPEG, piece by piece: every byte belongs to a piece that is known, and nothing comes after the last."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from raytrain.release.scans.raw_bytes import UnreadBytesError, printable_runs, runs_of_file

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PLAIN = frozenset(
    {
        *(b"tRNS", b"cHRM", b"gAMA", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs"),
        *(b"sPLT", b"eXIf", b"tIME", b"tEXt"),
    }
)
_PACKED = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_LARGEST_TEXT_BYTES = 16 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INTERLACED = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Adam7: where each pass begins, across and down, and its steps."""

_JPEG_SEGMENTS = frozenset(
    {
        *range(0xC0, 0xD0),  # frames, Huffman and arithmetic tables
        *(0xDA, 0xDB, 0xDD, 0xFE),  # scan, quantization, restart interval, comment
        *(0xE0, 0xE1, 0xE2, 0xED, 0xEE),  # JFIF, Exif and XMP, colour profile, Photoshop, Adobe
    }
)
_START_OF_SCAN, _END, _RESTARTS = 0xDA, 0xD9, range(0xD0, 0xD8)


def image_texts(path: Path) -> Iterator[str]:
    """What can be printed in any of its pieces, those that are packed too. Raises whatever a damaged one makes it
    raise, and UnreadBytesError for a piece that no reader here knows, or bytes that belong to none."""
    from PIL import Image

    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        image.load()
    content = path.read_bytes()
    if content.startswith(PNG):
        yield from _png_texts(content)
    else:
        _walk_jpeg(content)
    yield from runs_of_file(path)


def _png_texts(content: bytes) -> Iterator[str]:
    at = len(PNG)
    pixels = bytearray()
    header = b""
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(content):
            raise UnreadBytesError("it is cut")
        if kind not in _CRITICAL | _PLAIN | _PACKED:
            raise UnreadBytesError(f"its chunk {ascii(kind)[2:-1]} is none that is read here")
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            pixels += body
        elif kind in _PACKED:
            yield from printable_runs(_unpacked(kind, body))
        elif kind == b"IEND" and body:
            raise UnreadBytesError("there are bytes in its last chunk")
    if at != len(content):
        raise UnreadBytesError(f"{len(content) - at} bytes come after its end")
    if _inflated(bytes(pixels), _num_pixel_bytes(header)) != _num_pixel_bytes(header):
        raise UnreadBytesError("its pixels are not as many as it says")


def _unpacked(kind: bytes, body: bytes) -> bytes:
    """The text or profile behind a keyword; what comes before it stands in the file in clear."""
    rest = body[body.index(b"\0") + 1 :]
    if kind == b"iTXt":
        is_packed, rest = rest[0], rest[2:]
        rest = rest.split(b"\0", 2)[2]
        if not is_packed:
            return rest
    else:
        rest = rest[1:]
    decoder = zlib.decompressobj()
    text = decoder.decompress(rest, _LARGEST_TEXT_BYTES)
    if not decoder.eof or decoder.unused_data:
        raise UnreadBytesError(f"its {kind.decode()} is cut, has something behind it, or grows beyond 16 MiB")
    return text


def _inflated(packed: bytes, limit: int) -> int:
    """How many bytes come out, which are not kept; UnreadBytesError where others follow, or more than `limit` come."""
    decoder = zlib.decompressobj()
    num = 0
    while not decoder.eof:
        num += len(chunk := decoder.decompress(packed, 1 << 20))
        if num > limit or (not chunk and not decoder.eof):
            raise UnreadBytesError("its pixels are more than it says, or cut")
        packed = decoder.unconsumed_tail
    if decoder.unused_data:
        raise UnreadBytesError("bytes come after its pixels")
    return num


def _num_pixel_bytes(header: bytes) -> int:
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = _INTERLACED if interlaced else ((0, 0, 1, 1),)
    num = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            num += rows * (1 + (columns * depth * _CHANNELS[colour] + 7) // 8)
    return num


def _walk_jpeg(content: bytes) -> None:
    at = 2
    while True:
        if content[at] != 0xFF:
            raise UnreadBytesError(f"byte {at} belongs to no segment")
        marker = content[at + 1]
        at += 2
        if marker == _END:
            break
        if marker not in _JPEG_SEGMENTS:
            raise UnreadBytesError(f"its segment {marker:#x} is none that is read here")
        at += struct.unpack(">H", content[at : at + 2])[0]
        if marker == _START_OF_SCAN:
            at = _end_of_scan(content, at)
    if at != len(content):
        raise UnreadBytesError(f"{len(content) - at} bytes come after its end")


def _end_of_scan(content: bytes, at: int) -> int:
    """Where the next marker stands that does not belong to the pixels."""
    while True:
        at = content.index(b"\xff", at)
        if content[at + 1] != 0 and content[at + 1] not in _RESTARTS:
            return at
        at += 2
