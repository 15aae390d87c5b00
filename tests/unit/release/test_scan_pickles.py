"""A pickle is found whatever it is called, and bytes that begin as one are none."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from planted import PICKLES, found


@pytest.mark.parametrize("form", PICKLES)
def test_a_pickle_is_found_whatever_it_is_called(form: str, small: Path) -> None:
    names = {"weights.bin", "notes.txt", "data", "model.safetensors", "a.png", "m.onnx", "tokenizer.json"}
    for name in names:
        (small / name).write_bytes(PICKLES[form]())
    report = found(small)
    assert {one.file for one in report.findings if one.kind == "pickle"} == names
    assert "README.md" not in {one.file for one in report.findings}


@pytest.mark.parametrize(
    "text",
    [
        "certifi\nclick\ntorch==2.13.0\n",
        "import os\nos.getcwd()\n.",
        "contents\nfoo\nbar\n",
        ".venv\n",
        "(c)\n",
    ],
)
def test_text_that_begins_as_a_pickle_does_is_none(text: str, small: Path) -> None:
    (small / "list.txt").write_text(text)
    assert found(small).findings == ()


def test_what_modelscan_passes_over_is_found_by_another(small: Path) -> None:
    for name in ("a.pkl", "b.bin"):
        (small / name).write_bytes(PICKLES["newest"]())
    report = found(small)
    by = {(one.file, one.scanner) for one in report.findings}
    assert {("a.pkl", "modelscan"), ("a.pkl", "picklescan"), ("b.bin", "picklescan")} <= by
    assert ("b.bin", "modelscan") not in by and report.files["b.bin"].skipped_by == ("modelscan",)
    assert report.counts["modelscan"] == {"files": 1, "skipped": 2, "findings": 1}


def test_a_tensor_s_bytes_are_no_pickle_and_no_archive_by_chance() -> None:
    """Of 20,000 beginnings, each as a file of raw weights might have it."""
    from raytrain.release.scans.magic import container_of, refused_kind
    from raytrain.release.scans.pickles import find_pickle, quiet_scanners

    generator = random.Random(5)
    with quiet_scanners():
        for _ in range(20_000):
            stream = io.BytesIO(generator.randbytes(64))
            taken_for = find_pickle(stream, "x") or container_of(stream) or refused_kind(stream, is_raw=True)
            assert taken_for is None, stream.getvalue().hex()
