"""Whatever must not be handed on is found, whatever it is called and wherever it lies; what is clean passes."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import string
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import save_tiny_tokenizer

from raytrain.cli.main import run
from raytrain.errors import ConfigError
from raytrain.release.keys import KeyRing
from raytrain.release.scans.report import ScanReport, not_as_scanned
from raytrain.release.scans.scan import scan
from raytrain.release.signing import sign, signature_place
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location

SUBJECT = "sha256:" + "5" * 64


def key_of(seed: int = 0) -> str:
    """A token in a known form that nobody has ever issued."""
    letters = random.Random(seed).choices(string.ascii_letters + string.digits, k=36)
    return "ghp_" + "".join(letters)


class Bomb:
    """Runs a command when it is unpickled; here it never is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a bundle is before it is sealed: weights, tokenizer, and one file of each kind that is generated."""
    bundle = tmp_path / "bundle"
    adapter = bundle / "adapter"
    adapter.mkdir(parents=True)
    save_tiny_tokenizer(adapter)
    weights = {"lora_A": np.arange(640, dtype=np.float32), "lora_B": np.zeros((8, 2), np.float32)}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    texts = {
        "README.md": "# Assistant\n\ncertified sums.\n\n```python\nimport json\n```\n",
        "LICENSE": "Apache License\nVersion 2.0, January 2004\n",
        "Dockerfile": 'FROM python:3.11\nENV HF_HUB_OFFLINE=1\nCMD ["python", "inference.py"]\n',
        "serve.yaml": "applications:\n- name: assistant\n  import_path: inference:app\n  args: {token_limit: 256}\n",
        "requirements.txt": "certifi\nclick\ntorch==2.13.0 --hash=sha256:" + "ab" * 32 + "\n",
        "inference.py": "import json\n\n\ndef read(password: str | None = None) -> str:\n    return json.dumps({})\n",
        "bundle.json": json.dumps(
            {"subject": SUBJECT, "base_model": {"digest": "sha256:" + "0a" * 32}}, indent=1
        ),
        "logs/metrics.jsonl": "".join(
            json.dumps({"global_step": i, "train/loss": 1 / (i + 1)}) + "\n" for i in range(9)
        ),
        "notebook.ipynb": json.dumps({"cells": [{"source": ["import os\n"], "outputs": []}]}),
        "reports/empty.txt": "",
    }
    for name, text in texts.items():
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(text)
    return bundle


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One file, to which another is put."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "README.md").write_text("# Assistant\n")
    return tmp_path / "small"


def found(folder: Path, **more: Any) -> ScanReport:
    return scan(folder, subject=SUBJECT, **more)


def refused(folder: Path, file: str, kind: str | None = None) -> ScanReport:
    """The report, once it has been held that it refuses this file and names it."""
    report = found(folder)
    hits = [one for one in report.findings if one.file.split("!")[0] == file and kind in (None, one.kind)]
    assert hits and not report.passed, report.findings
    return report


def test_a_clean_folder_passes_and_every_file_was_read(folder: Path) -> None:
    report = found(folder)
    assert report.findings == () and report.passed
    names = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert report.files.keys() == names
    assert {name for name, one in report.files.items() if "formats" not in one.read_by} == set()
    assert report.to_json() == found(folder).to_json()
    assert report.counts["secrets"]["files"] == len(names) - 1  # one is empty


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "Dockerfile", "serve.yaml", "requirements.txt", "inference.py", "bundle.json"),
        *("logs/metrics.jsonl", "notebook.ipynb", "adapter/tokenizer_config.json", "adapter/tokenizer.json"),
    ],
)
def test_a_planted_key_is_found_in_each_generated_file(name: str, folder: Path) -> None:
    place, key = folder / name, key_of()
    text = place.read_text()
    if name.endswith((".json", ".ipynb")):
        content = json.loads(text)
        content["planted"] = {"deep": ["x", f"url https://user@host {key}"]}
        place.write_text(json.dumps(content, indent=2))
    elif name.endswith(".jsonl"):
        place.write_text(text + json.dumps({"event": f"pushed with {key}"}) + "\n")
    else:
        place.write_text(text + f"\n# {key}\n")
    report = refused(folder, name, "github_token")
    assert key not in report.to_json(), "a report is handed on, a secret is not"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("Dockerfile", "ENV API_KEY=9f8Kq2LmZx7Wv4Tn1RbY6Pd3\n", "assigned_secret"),
        ("serve.yaml", "env_vars:\n  DB_PASSWORD: Tr0ub4dor&3xyz\n", "assigned_password"),
        ("config.json", '{"storage": "postgresql://raytrain:h7Gq-2kfP9@db:5432/runs"}', "connection_string"),
        ("config.yaml", 'cache: "kJ8vQm2Zr5Xw1Nt7Lp4Hs9Bd3Fg6Yc0AeUiOqTn"\n', "high_entropy"),
    ],
)
def test_secrets_without_an_issuer_s_form_are_found(name: str, text: str, kind: str, small: Path) -> None:
    (small / name).write_text(text)
    refused(small, name, kind)


def test_a_key_in_a_large_document_is_found_and_a_generator_s_state_is_none(small: Path) -> None:
    words = {
        f"node {number}": {"name": f"linear_{number}", "trace": "line of code " * 5}
        for number in range(12_000)
    }
    state = base64.b64encode(random.Random(0).randbytes(2_500)).decode()
    (small / "model.json").write_text(json.dumps(words))
    (small / "random.json").write_text(json.dumps({"state": state}))
    assert found(small).findings == ()
    words["node 7"]["db_password"] = "Tr0ub4dor&3xyz"
    (small / "model.json").write_text(json.dumps(words))
    refused(small, "model.json", "assigned_password")


def test_a_key_in_the_provenance_to_be_written_is_found(small: Path) -> None:
    config = {"tracking": {"mlflow": f"https://me:{key_of()}@mlflow.example.org"}}
    report = found(small, documents={"manifest.json": {"config": config}})
    assert not report.passed and {one.file for one in report.findings} == {"manifest.json"}
    with ArtifactWriter(Location(str(small.with_name("sealed"))), kind="bundle") as writer:
        (writer.path / "a.txt").write_text("a")
        writer.commit({"config": config})
    refused(small.with_name("sealed"), "manifest.json")


def test_a_key_in_the_metadata_of_weights_is_found(small: Path) -> None:
    save_file({"x": np.zeros(4)}, small / "more.safetensors", metadata={"note": key_of()})
    refused(small, "more.safetensors", "github_token")


def test_a_key_under_a_name_that_stands_twice_cannot_hide(small: Path) -> None:
    (small / "twice.json").write_text(f'{{"note": "{key_of()}", "note": "nothing"}}')
    refused(small, "twice.json", "ambiguous_json")


def test_a_key_as_the_name_of_a_file_is_found(small: Path) -> None:
    (small / f"{key_of()}.txt").write_text("x")
    assert not found(small).passed


def test_digests_and_signatures_are_no_secrets(small: Path, ring: KeyRing) -> None:
    with ArtifactWriter(Location(str(small.with_name("signed"))), kind="bundle") as writer:
        (writer.path / "a.txt").write_text("a")
        writer.commit({"config": {}})
    sign(small.with_name("signed"), ring.signing_key("release"))
    content = json.loads(signature_place(small.with_name("signed")).read_bytes())
    (small / "evidence.json").write_text(json.dumps(content))
    (small / "ring.json").write_bytes((ring.folder / "ring.json").read_bytes())
    (small / "page.html").write_text(
        f"<meta content=\"'sha256-{base64.b64encode(bytes(range(32))).decode()}'\">\n"
    )
    (small / "short.json").write_text(json.dumps({"version": "b350567f8449", "dataset": "35b11c2ba9acc001"}))
    assert found(small).findings == ()
    payload = {"note": key_of()}
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (small / "evidence.json").write_text(json.dumps(content))
    refused(small, "evidence.json", "github_token")


PICKLES: dict[str, Callable[[], bytes]] = {
    "oldest": lambda: pickle.dumps(Bomb(), protocol=0),
    "old": lambda: pickle.dumps(Bomb(), protocol=2),
    "newest": lambda: pickle.dumps(Bomb(), protocol=5),
    "cut short": lambda: pickle.dumps(Bomb(), protocol=4)[:-2],
    "without its first opcode": lambda: pickle.dumps(Bomb(), protocol=4)[2:],
    "with its names put together": lambda: (
        b"\x8c\x02os\x94\x8c\x06system0h\x00\x8c\x06system\x93\x8c\x04true\x85R."
    ),
    "behind a harmless one": lambda: pickle.dumps(1) + pickle.dumps(Bomb()),
    "of plain values": lambda: pickle.dumps({"w": [1.0, 2.0]}, protocol=4),
    "of an array": lambda: pickle.dumps(np.zeros(3)),
}


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


def in_zip(content: bytes, name: str = "inner/data.txt") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def in_tar(content: bytes, name: str = "inner/data.txt") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


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


def test_links_and_pipes_are_refused_and_never_opened(small: Path) -> None:
    (small / "link").symlink_to("/dev/zero")
    (small / "linked_folder").symlink_to("/")
    os.mkfifo(small / "pipe")
    report = refused(small, "link", "no_file")
    assert {one.file for one in report.findings} == {"link", "linked_folder", "pipe"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused(small: Path) -> None:
    (small / "README.md").chmod(0)
    refused(small, "README.md", "unreadable")


def test_a_file_that_changes_while_it_is_scanned_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raytrain.release.scans import scan as scanning

    class Meddler(scanning.FileReader):
        def read(self, content: Any) -> Any:
            reading = super().read(content)
            if content.name == "README.md":
                content.path.write_text("# Something else\n")
            return reading

    monkeypatch.setattr(scanning, "FileReader", Meddler)
    refused(small, "README.md", "changed")


@pytest.mark.parametrize("package", ["picklescan", "modelscan", "detect_secrets"])
def test_without_a_scanner_nothing_passes(package: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        found(small)
    assert package.replace("_", "-") in caught.value.fix


def test_a_graph_without_its_reader_does_not_pass(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "m.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(40))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        found(small)
    assert "pip install onnx" in caught.value.fix


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be scanned"):
        found(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", ".", "empty")


def test_names_that_a_terminal_would_obey_are_refused(small: Path) -> None:
    (small / "a\x1b[2Kb.txt").write_text("words")
    (small / os.fsdecode(b"\xff.txt")).write_text("words")
    report = found(small)
    assert [one.kind for one in report.findings] == ["name", "name"] and report.to_json().isascii()
    assert all(one.file.isprintable() for one in report.findings)


def test_a_report_speaks_only_of_what_was_scanned(small: Path, tmp_path: Path) -> None:
    def sealed(name: str, text: str) -> Any:
        with ArtifactWriter(Location(str(tmp_path / name)), kind="bundle") as writer:
            (writer.path / "a.txt").write_text("a")
            told = json.loads(found(writer.path).to_json())
            (writer.path / "reports").mkdir()
            (writer.path / "reports" / "scan.json").write_text(json.dumps(told))
            (writer.path / "a.txt").write_text(text)
            artifact = writer.commit({})
        return told, open_artifact(artifact.location).manifest

    assert not_as_scanned(*sealed("same", "a")) == []
    told, manifest = sealed("other", "b")
    assert not_as_scanned(told, manifest) == ["a.txt"]
    assert not_as_scanned({}, manifest) == ["a.txt"]


def test_the_command_tells_and_ends_with_5(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", str(folder)]) == 0
    assert "passed" in capsys.readouterr().out
    (folder / "weights.bin").write_bytes(PICKLES["newest"]())
    assert run(["scan", str(folder)]) == 5
    told = capsys.readouterr().out
    assert "weights.bin" in told and "posix system" in told
    assert run(["scan", str(folder), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["passed"] is False
    assert run(["scan", str(folder / "nowhere"), "--json"]) == 2


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
    program = REFUSED["program"][0]()
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
