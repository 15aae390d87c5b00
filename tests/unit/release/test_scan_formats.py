"""What a file is tells its content; what is no bundle's is refused, and so are bytes in no place of a format."""

from __future__ import annotations

import gzip
import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import found, in_zip, refused

from raytrain.errors import ConfigError


def array_saved() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "array": (array_saved, "weights"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(40), "weights"),
    "gguf": (lambda: b"GGUF\x03" + bytes(40), "weights"),
    "program": (lambda: Path(sys.executable).resolve().read_bytes()[:4096], "executable"),
    "bytecode": (lambda: bytes.fromhex("a70d0d0a") + bytes(60), "executable"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(40), "archive"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(40), "archive"),
    "noise": (lambda: b"\x00" + random.Random(0).randbytes(500), "unread"),
    "utf-16": (lambda: "password".encode("utf-16"), "unread"),
    "broken safetensors": (lambda: (20).to_bytes(8, "little") + b'{"x":1}' + bytes(40), "damaged"),
    "broken png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
    "broken parquet": (lambda: b"PAR1" + bytes(40), "damaged"),
    "broken zip": (lambda: in_zip(b"words" * 90)[:60], "archive"),
    "broken gzip": (lambda: gzip.compress(b"words" * 90)[:-9], "archive"),
    "picture with a zip behind": (lambda: b"\x01" + in_zip(b"words"), "hidden_archive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_bundle_s_is_refused_by_content(case: str, small: Path) -> None:
    content, kind = REFUSED[case]
    (small / "thing").write_bytes(content())
    refused(small, "thing", kind)


def test_names_that_loaders_take_for_weights_are_refused(small: Path) -> None:
    (small / "pytorch_model.bin").write_text("words")
    refused(small, "pytorch_model.bin", "weights")


def test_a_graph_without_its_reader_does_not_pass(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "m.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(40))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        found(small)
    assert "pip install onnx" in caught.value.fix
