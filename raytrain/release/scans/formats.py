"""Formats that a bundle may hold, each followed to its last byte by what understands it; its texts come out."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raytrain.errors import ConfigError
from raytrain.release.scans.images import JPEG, PNG, image_texts
from raytrain.release.scans.onnx_graphs import onnx_external_data, onnx_texts
from raytrain.release.scans.parquet import parquet_texts
from raytrain.release.scans.pickles import scanner_missing
from raytrain.release.scans.raw_bytes import UnreadBytesError
from raytrain.release.scans.secret_search import without_doubles
from raytrain.release.weight_files import LONGEST_HEADER_BYTES, read_header

_CHUNK_BYTES = 1 << 20
_TENSOR_KEYS = {"dtype", "shape", "data_offsets"}
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
    if head.startswith((PNG, JPEG)):
        return "image", _read(image_texts, path)
    if head.startswith(b"PAR1"):
        return "parquet", _read(parquet_texts, path)
    if name.endswith(".onnx"):
        return "onnx", _read(onnx_texts, path)
    return None


def tensors_beside(path: Path) -> dict[str, list[tuple[int, int | None]]]:
    """Of an ONNX graph: `onnx_external_data`, with the errors of `read_binary`."""
    with _told_as_damaged():
        return onnx_external_data(path)


def _read(reader: Callable[[Path], Iterator[str]], path: Path) -> Iterator[str]:
    with _told_as_damaged():
        yield from reader(path)


@contextmanager
def _told_as_damaged() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise _reader_missing(error) from error
    except UnreadBytesError as error:
        raise DamagedError(str(error)) from error
    except Exception as error:
        raise DamagedError(f"{type(error).__name__}: {error}"[:300]) from error


def _reader_missing(error: ImportError) -> ConfigError:
    return scanner_missing((error.name or "a reader").partition(".")[0], error)


def _is_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 10:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return bool(2 <= length <= min(size - 8, LONGEST_HEADER_BYTES) and head[8:9] == b"{")


def _safetensors_texts(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    # The library checks that the tensors cover the file without a gap, so that nothing hides between them; it passes
    # over what else its header says.
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
    header, _ = read_header(path, without_doubles)
    for key, value in sorted(header.pop("__metadata__", {}).items()):
        yield f"{key}: {value}"
    if header.keys() != names or any(one.keys() != _TENSOR_KEYS for one in header.values()):
        raise UnreadBytesError("its header tells more of a tensor than dtype, shape and place")
    yield from names
