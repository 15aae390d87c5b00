"""Formats that a bundle may hold, each read whole by what understands it; what it holds of text comes out."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.release.scans.pickles import scanner_missing

_CHUNK_BYTES = 1 << 20
_LONGEST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its own library has it."""
_ALLOWED_CONTROLS = b"\t\n\r\f\x1b"
_CONTROLS = bytes(one for one in range(32) if one not in _ALLOWED_CONTROLS) + b"\x7f"

WEIGHT_SUFFIXES = frozenset(
    f".{one}"
    for one in (
        *("bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "h5", "hdf5", "keras", "npy", "npz"),
        *("msgpack", "pb", "tflite", "gguf"),
    )
)
"""Names under which loaders expect weights that may run code, or are not what this project hands on."""


class DamagedError(Exception):
    """A file that begins as a format, and is none: the text says why."""


def is_text(path: Path) -> bool:
    """UTF-8 without control characters other than white space, to the end."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as stream:
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                if chunk.translate(None, _CONTROLS) != chunk:
                    return False
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def read_binary(path: Path, name: str) -> tuple[str, Iterable[str]] | None:
    """The format and its texts, or None where it is none of those that may be here.

    Raises DamagedError where the file begins as one and is none, ConfigError where its reader is not installed.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
    size = path.stat().st_size
    if _is_safetensors(head, size):
        return "safetensors", _read(_safetensors_texts, path)
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return "image", _read(_image_texts, path)
    if head.startswith(b"PAR1"):
        return "parquet", _parquet_texts(path)
    if name.endswith(".onnx"):
        return "onnx", _read(_onnx_texts, path)
    return None


def _read(reader: Callable[[Path], Iterator[str]], path: Path) -> list[str]:
    try:
        return list(reader(path))
    except ImportError as error:
        raise _reader_missing(error) from error
    except Exception as error:
        raise DamagedError(f"{type(error).__name__}: {error}"[:300]) from error


def _reader_missing(error: ImportError) -> ConfigError:
    return scanner_missing((error.name or "a reader").partition(".")[0], error)


def _is_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 10:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return bool(2 <= length <= min(size - 8, _LONGEST_HEADER_BYTES) and head[8:9] == b"{")


def _safetensors_texts(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    # The library checks that the tensors cover the file without a gap, so that nothing hides between them.
    with safe_open(path, framework="numpy") as file:
        for key, value in sorted((file.metadata() or {}).items()):
            yield f"{key}: {value}"
        yield from file.keys()


def _image_texts(path: Path) -> Iterator[str]:
    from PIL import Image

    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        image.load()
        for key, value in image.info.items():
            yield f"{key}: {value.decode('utf-8', 'replace') if isinstance(value, bytes) else value}"


def _parquet_texts(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for key, value in (file.schema_arrow.metadata or {}).items():
                yield f"{key.decode('utf-8', 'replace')}: {value.decode('utf-8', 'replace')}"
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield from _strings(row, "")
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}"[:300]) from error


def _strings(value: Any, label: str) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{label}: {value}" if label else value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, label)


def _onnx_model(path: Path) -> Any:
    import onnx

    model = onnx.load_model(str(path), load_external_data=False)
    if not model.ir_version or not model.graph.node:
        raise ValueError("it has no graph")
    return model


def _onnx_texts(path: Path) -> Iterator[str]:
    model = _onnx_model(path)
    seen: set[str] = set()
    for one in model.metadata_props:
        yield f"{one.key}: {one.value}"
    for text in _proto_strings(model):
        if text not in seen:
            seen.add(text)
            yield text


def _proto_strings(message: Any) -> Iterator[str]:
    """Every text in a protobuf message, however deep; a tensor's raw bytes are no text."""
    for field, value in message.ListFields():
        many = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_MESSAGE:
            for one in many:
                yield from _proto_strings(one)
        elif field.type == field.TYPE_STRING:
            yield from many
        elif field.type == field.TYPE_BYTES and field.name != "raw_data":
            yield from (one.decode("utf-8", "replace") for one in many)


def onnx_external_data(path: Path) -> dict[str, list[tuple[int, int | None]]]:
    """Files beside an ONNX graph that hold its tensors: by location, each tensor's offset and number of bytes.

    Raises DamagedError where the file is no ONNX graph.
    """
    try:
        found: dict[str, list[tuple[int, int | None]]] = {}
        for tensor in _tensors(_onnx_model(path)):
            told = {one.key: one.value for one in tensor.external_data}
            length = told.get("length")
            place = (int(told.get("offset", 0)), None if length is None else int(length))
            found.setdefault(told["location"], []).append(place)
    except ImportError as error:
        raise _reader_missing(error) from error
    except Exception as error:
        raise DamagedError(f"{type(error).__name__}: {error}"[:300]) from error
    return found


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a graph, however deep, that says where its bytes are."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for one in [value] if hasattr(value, "ListFields") else value:
            if one.DESCRIPTOR.name == "TensorProto" and one.external_data:
                yield one
            else:
                yield from _tensors(one)


def gap_in(path: Path, ranges: Iterable[tuple[int, int | None]]) -> str | None:
    """What is wrong with a file of raw tensors: bytes that belong to none and are not zero, or a tensor beyond it."""
    size = path.stat().st_size
    reached = 0
    with path.open("rb") as stream:
        for offset, length in sorted((start, size - start if num is None else num) for start, num in ranges):
            if offset < 0 or length < 0 or offset + length > size:
                return f"a tensor lies at {offset} to {offset + length} of {size} bytes"
            if not _is_zero(stream, reached, offset):
                return f"bytes {reached} to {offset} belong to no tensor"
            reached = max(reached, offset + length)
        return None if _is_zero(stream, reached, size) else f"bytes {reached} to {size} belong to no tensor"


def _is_zero(stream: Any, start: int, end: int) -> bool:
    stream.seek(start)
    left = end - start
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk or any(chunk):
            return False
        left -= len(chunk)
    return True
