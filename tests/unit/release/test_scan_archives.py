"""What lies in archives is found as if it lay beside them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import PICKLES, Bomb, found, in_tar, in_zip, key_of, refused

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": in_zip,
    "tar": in_tar,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip in tar.gz": lambda content: gzip.compress(in_tar(in_zip(content, "notes.txt"), "a.zip")),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_a_pickle_and_a_key_are_found_in_every_archive(packer: str, small: Path) -> None:
    (small / "extra.dat").write_bytes(PACKERS[packer](b"just words\n"))
    assert found(small).findings == ()
    (small / "extra.dat").write_bytes(PACKERS[packer](PICKLES["newest"]()))
    refused(small, "extra.dat", "pickle")
    (small / "extra.dat").write_bytes(PACKERS[packer](f"key {key_of()}\n".encode()))
    refused(small, "extra.dat", "github_token")


def test_an_npz_with_objects_is_refused(small: Path) -> None:
    np.savez(small / "arrays.npz", a=np.array([Bomb()], dtype=object))
    refused(small, "arrays.npz")


def test_bombs_doubles_and_members_outside_are_refused(small: Path) -> None:
    place = small / "a.zip"
    place.write_bytes(in_zip(bytes(80 << 20), "zeros.txt"))
    refused(small, "a.zip", "archive")
    with zipfile.ZipFile(place, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.txt", "one")
        archive.writestr("a.txt", "two")
    refused(small, "a.zip", "archive")
    place.write_bytes(in_zip(b"words", "../../outside.txt"))
    refused(small, "a.zip", "archive")
    nested = b"words"
    for _ in range(7):
        nested = in_zip(nested, "deeper.zip")
    place.write_bytes(nested)
    refused(small, "a.zip", "archive")


@pytest.mark.slow
def test_graph_archives_pass_and_what_hides_in_them_does_not(small: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", EXPORT, str(small)], capture_output=True, text=True, timeout=240, check=False
    )
    assert made.returncode == 0, made.stderr
    (small / "saved").rename(small.with_name("saved"))
    report = found(small)
    assert report.findings == (), report.findings
    assert report.files["m.pt2"].format == "pt2" and report.files["m.onnx"].format == "onnx"
    assert report.files["m.onnx.data"].format == "tensor"
    assert len(report.admitted) == 1 and "sample_inputs" in report.admitted[0]
    whole = {name: (small / name).read_bytes() for name in ("m.pt2", "m.onnx.data")}
    program = Path(sys.executable).resolve().read_bytes()[:4096]
    listed = json.dumps({"config": {"x": {"path_name": "weight_9", "use_pickle": False}}}).encode()
    for added in (
        {"m/data/more": PICKLES["newest"]()},
        {"m/data/so": program},
        {"m/data/weights/weight_9": program, "m/data/weights/more_config.json": listed},
        {"m/data/weights/weight_9": PICKLES["of an array"](), "m/data/weights/more_config.json": listed},
    ):
        (small / "m.pt2").write_bytes(whole["m.pt2"])
        with zipfile.ZipFile(small / "m.pt2", "a") as archive:
            for name, content in added.items():
                archive.writestr(name, content)
        refused(small, "m.pt2")
    (small / "m.pt2").write_bytes(whole["m.pt2"])
    (small / "m.onnx.data").write_bytes(whole["m.onnx.data"] + b"hidden")
    refused(small, "m.onnx.data", "unread")
    (small / "m.onnx.data").unlink()
    refused(small, "m.onnx.data", "damaged")
    small.with_name("saved").rename(small / "saved")
    refused(small, "saved", "pickle")


EXPORT = """
import sys, torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)
    def forward(self, x):
        return self.linear(x) + torch.arange(64.0)
model, example = Model().eval(), (torch.ones(2, 64),)
torch.export.save(torch.export.export(model, example), sys.argv[1] + "/m.pt2")
torch.onnx.export(model, example, sys.argv[1] + "/m.onnx", dynamo=True, external_data=True, verbose=False)
torch.save(model.state_dict(), sys.argv[1] + "/saved")
"""
