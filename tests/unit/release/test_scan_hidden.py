"""Bytes in no place of a format: what can be printed is found, what nobody can read is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from planted import PICKLES, found, in_tar, in_zip, key_of, refused
from safetensors.numpy import save

KEY = f"token {key_of()}".encode()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(hidden: bytes = b"", *, behind_pixels: bytes = b"", in_pixels: bytes = b"") -> bytes:
    """Of 2 × 2 grey pixels; hidden: chunks before the last."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(6) + in_pixels) + behind_pixels)
    return b"\x89PNG\r\n\x1a\n" + header + pixels + hidden + chunk(b"IEND", b"")


def image(form: str, **more: object) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (20, 20)).save(stream, form, **more)
    return stream.getvalue()


def png_with_two_texts() -> bytes:
    """Under one keyword: whoever reads them into a table keeps the last."""
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", KEY.decode(), zip=True)
    told.add_text("Comment", "a chart", zip=True)
    return image("PNG", pnginfo=told)


def jpeg(hidden: bytes = b"") -> bytes:
    whole = image("JPEG")
    return whole[:2] + hidden + whole[2:]


def parquet(table: pa.Table, gap: bytes = b"") -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    content = stream.getvalue()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    return content[:footer] + gap + content[footer:]


def zip_of(**changes: object) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        member = zipfile.ZipInfo("a.txt")
        for name, value in changes.items():
            setattr(member, name, value)
        archive.writestr(member, "words")
    return stream.getvalue()


def zip_with_gap(at_end: bool) -> bytes:
    content = zip_of()
    listed, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    if at_end:
        return content + KEY
    moved = bytearray(content[end:])
    struct.pack_into("<I", moved, 16, listed + len(KEY))
    return content[:listed] + KEY + content[listed:end] + bytes(moved)


def zip_with_folder() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.mkdir(key_of())
    return stream.getvalue()


def zip_behind_deflate() -> bytes:
    """The member says that it is longer than what its packed content ends with."""
    deflated = zlib.compress(b"words", wbits=-15) + KEY
    told = (zipfile.ZIP_DEFLATED, 0, 0x21, zlib.crc32(b"words"), len(deflated), 5, 5)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, *told, 0) + b"a.txt" + deflated
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, *told, 0, 0, 0, 0, 0, 0) + b"a.txt"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end


def tar_with(**changes: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.txt")
        for name, value in changes.items():
            setattr(member, name, value)
        member.size = 5
        archive.addfile(member, io.BytesIO(b"words"))
    return stream.getvalue()


def tar_padded() -> bytes:
    content = bytearray(in_tar(b"words"))
    content[600 : 600 + len(KEY)] = KEY
    return bytes(content)


def onnx_graph() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


def safetensors_with(entry: dict[str, object]) -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


CLEAN: dict[str, Callable[[], bytes]] = {
    "a.png": png,
    "drawn.png": lambda: image("PNG", dpi=(72, 72)),
    "a.jpg": jpeg,
    "progressive.jpg": lambda: image("JPEG", progressive=True),
    "a.parquet": lambda: parquet(pa.table({"text": ["words"] * 9, "blob": pa.array([b"\x00\xff"] * 9)})),
    "a.zip": zip_of,
    "deflated.zip": lambda: in_zip(b"words" * 90),
    "a.tar": lambda: in_tar(b"words"),
    "a.gz": lambda: gzip.compress(b"words"),
    "a.onnx": onnx_graph,
    "a.safetensors": lambda: save({"x": np.zeros(1)}),
}

HIDDEN: dict[str, Callable[[], bytes]] = {
    "tail.png": lambda: png() + KEY,
    "pickle.png": lambda: png() + b"\0" + PICKLES["newest"](),
    "chunk.png": lambda: png(chunk(b"prVt", zlib.compress(KEY))),
    "text.png": lambda: png(chunk(b"tEXt", b"Comment\0" + KEY)),
    "packed.png": png_with_two_texts,
    "utf-16.png": lambda: png(chunk(b"eXIf", KEY.decode().encode("utf-16-be"))),
    "behind.png": lambda: png(behind_pixels=KEY),
    "more.png": lambda: png(in_pixels=KEY),
    "tail.jpg": lambda: jpeg() + KEY,
    "comment.jpg": lambda: jpeg(b"\xff\xfe" + struct.pack(">H", len(KEY) + 2) + KEY),
    "segment.jpg": lambda: jpeg(b"\xff\xe9" + struct.pack(">H", 6) + b"\0\1\2\3"),
    "bytes.parquet": lambda: parquet(pa.table({"blob": pa.array([b"\xff\xfe" + KEY])})),
    "column.parquet": lambda: parquet(pa.table({KEY.decode(): [1]})),
    "field.parquet": lambda: parquet(
        pa.table({"n": [1]}, schema=pa.schema([pa.field("n", pa.int64(), metadata={"note": KEY})]))
    ),
    "gap.parquet": lambda: parquet(pa.table({"n": [1]}), gap=b"\0\1\2\3"),
    "comment.zip": lambda: zip_of(comment=KEY),
    "extra.zip": lambda: zip_of(extra=struct.pack("<HH", 0x9999, len(KEY)) + KEY),
    "padding.zip": lambda: zip_of(extra=struct.pack("<HH", 0x4246, len(KEY)) + KEY),
    "gap.zip": lambda: zip_with_gap(at_end=False),
    "tail.zip": lambda: zip_with_gap(at_end=True),
    "before.zip": lambda: b"PK\x03\x04" + KEY + zip_of(),
    "folder.zip": zip_with_folder,
    "deflate.zip": zip_behind_deflate,
    "comment.gz": lambda: b"\x1f\x8b\x08\x10" + bytes(6) + KEY + b"\0" + gzip.compress(b"words")[10:],
    "name.gz": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + KEY + b"\0" + gzip.compress(b"words")[10:],
    "extra.gz": lambda: b"\x1f\x8b\x08\x04" + bytes(6) + b"\4\0abcd" + gzip.compress(b"words")[10:],
    "two.gz": lambda: gzip.compress(b"words") + gzip.compress(KEY),
    "tail.bz2": lambda: bz2.compress(b"words") + KEY,
    "tail.xz": lambda: lzma.compress(b"words") + KEY,
    "header.tar": lambda: tar_with(pax_headers={"comment": KEY.decode()}),
    "link.tar": lambda: tar_with(linkname=KEY.decode()),
    "tail.tar": lambda: in_tar(b"words") + KEY,
    "padding.tar": tar_padded,
    "field.onnx": lambda: onnx_graph() + b"\xfa\x7f" + bytes([len(KEY)]) + KEY,
    "twice.onnx": lambda: b"\x32" + bytes([len(KEY)]) + KEY + onnx_graph() + b"\x32\x01x",
    "entry.safetensors": lambda: safetensors_with({"note": KEY.decode()}),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_whole_file_passes(name: str, small: Path) -> None:
    (small / name).write_bytes(CLEAN[name]())
    assert found(small).findings == ()


@pytest.mark.parametrize("name", HIDDEN)
def test_what_hides_in_a_format_does_not_pass(name: str, small: Path) -> None:
    (small / name).write_bytes(HIDDEN[name]())
    report = refused(small, name)
    assert key_of() not in report.to_json()


def test_no_pixels_and_no_packed_bytes_are_a_secret_by_chance(small: Path) -> None:
    generator = random.Random(3)
    picture = Image.frombytes("RGB", (300, 300), generator.randbytes(270_000))
    for name in ("a.png", "a.jpg"):
        picture.save(small / name)
    (small / "a.parquet").write_bytes(
        parquet(pa.table({"blob": [generator.randbytes(1_000) for _ in range(200)]}))
    )
    assert found(small).findings == ()


def test_a_text_that_a_graph_calls_a_tensor_is_read(small: Path) -> None:
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load_from_string(onnx_graph())
    tensor = onnx.numpy_helper.from_array(np.zeros(len(KEY), np.uint8), "w")
    set_external_data(tensor, "notes", 0, len(KEY))
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    (small / "m.onnx").write_bytes(model.SerializeToString())
    (small / "notes").write_bytes(bytes(len(KEY) - 1) + b"\1")
    assert found(small).findings == ()
    (small / "notes").write_bytes(KEY)
    refused(small, "notes", "github_token")


def test_a_text_in_a_pickle_that_is_let_through_is_read(small: Path) -> None:
    """In a graph archive, where example inputs may lie as one; what it does not name is no tensor."""

    def archive(members: dict[str, bytes]) -> None:
        with zipfile.ZipFile(small / "m.pt2", "w") as written:
            written.writestr("m/archive_format", "pt2")
            for name, content in members.items():
                written.writestr(f"m/{name}", content)

    noise = random.Random(1).randbytes(400)
    archive({"s/data.pkl": pickle.dumps(["0"], protocol=2), "s/data/0": noise})
    assert found(small).findings == ()
    archive({"s/data.pkl": pickle.dumps(["0", KEY.decode()], protocol=2), "s/data/0": noise})
    refused(small, "m.pt2", "github_token")
    archive({"s/data.pkl": pickle.dumps(["0"], protocol=2), "s/data/1": noise})
    refused(small, "m.pt2", "unread")
    archive({"s/data.pkl": pickle.dumps(["0"], protocol=2) + b"\0" + noise})
    refused(small, "m.pt2", "pickle")
