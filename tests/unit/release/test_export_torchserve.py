"""TorchServe archives: what TorchServe asks of one, what its handler answers, and what is told of a changed one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from trained import train_tiny

from raytrain.errors import ConfigError
from raytrain.models.inference import LoadedModel
from raytrain.release.bundle.description import describe
from raytrain.release.bundle.formats.format import find_formats, write_format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.formats.torchserve import ARCHIVE_FILE, archive_faults, unpacked
from raytrain.release.bundle.formats.torchserve_config import config_faults, model_config
from raytrain.release.bundle.parity.check import FormatResult, check_bundle
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.section import ExportCheckSection, settings_from
from raytrain.release.bundle.subject import Subject, find_subject
from raytrain.release.scans.scan import scan
from raytrain.storage.location import Location
from raytrain.storage.manifest import file_sha256


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"batchSize": 4, "maxBatchDelay": 0, "deviceIds": [0, 1], "useJobTicket": True}, None),
        ({"batchsize": 4}, "did you mean `batchSize`"),
        ({"batchSize": "4"}, "batchSize is a whole number from 1, not '4'"),
        ({"batchSize": True}, "batchSize is a whole number"),
        ({"responseTimeout": 0}, "responseTimeout is a whole number from 1"),
        ({"clientTimeoutInMills": 2**31}, "clientTimeoutInMills is a whole number"),
        ({"useVenv": 1}, "useVenv is true or false"),
        ({"deviceType": "cuda"}, "deviceType is cpu or gpu"),
        ({"deviceIds": [0, "1"]}, "deviceIds is a list of whole numbers"),
        ({"minWorkers": 2, "maxWorkers": 1}, "minWorkers 2 is more than maxWorkers 1"),
        ({"torchrun": {"nproc-per-node": 2}}, "torchrun is for handlers that split a model"),
        ({"handler": {}}, "TorchServe reads no `handler`"),
        (["batchSize"], "no mapping"),
        (None, "no mapping"),
    ],
)
def test_what_torchserve_would_pass_over_is_a_fault(content: object, told: str | None) -> None:
    faults = config_faults(content)
    assert (not faults) if told is None else told in faults[0]


def test_keys_come_from_the_command_line_and_are_judged_there() -> None:
    settings = settings_from(["torchserve.batchSize=4", "torchserve.maxWorkers=2"])
    config = model_config(settings.torchserve, gpu=True)
    assert (config["batchSize"], config["maxWorkers"], config["deviceType"]) == (4, 2, "gpu")
    assert config_faults(config) == []
    with pytest.raises(ConfigError, match="did you mean `batchSize`"):
        settings_from(["torchserve.batchsize=4"])


@pytest.fixture(scope="module")
def subject(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    train_tiny(tiny_llama, folder, target_modules=["q_proj"])
    return find_subject(str(folder), Location(str(folder.parent)))


def written(subject: Subject, bundle: Path) -> Path:
    """The format's folder; the model is loaded anew, as merging changes it."""
    bundle.mkdir()
    [_, form] = find_formats(["torchserve"], subject)
    write_format(form, Material(subject, subject.model.load()), bundle)
    return bundle / "torchserve"


@pytest.fixture(scope="module")
def archive(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(subject, tmp_path_factory.mktemp("archive") / "bundle") / ARCHIVE_FILE


@pytest.fixture
def room(archive: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "room")
    return tmp_path / "room"


def test_an_archive_comes_beside_the_usual_format_and_is_always_the_same(
    subject: Subject, archive: Path, tmp_path: Path
) -> None:
    assert [one.name for one in find_formats(["torchserve"], subject)] == ["adapter", "torchserve"]
    assert [one.name for one in find_formats(["torchserve,merged"], subject)] == ["merged", "torchserve"]
    again = written(subject, tmp_path / "bundle")
    assert sorted(one.name for one in again.iterdir()) == [ARCHIVE_FILE, "training.json"]
    assert (again / ARCHIVE_FILE).read_bytes() == archive.read_bytes()
    with unpacked(again) as room:
        assert list(archive_faults(room)) == []
        manifest = json.loads((room / "MAR-INF" / "MANIFEST.json").read_text())
        assert {"createdOn", "archiverVersion", "runtime"} < manifest.keys()
        for key in ("handler", "configFile", "requirementsFile"):
            assert (room / manifest["model"][key]).is_file(), key


def test_the_scans_look_into_an_archive(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive, tmp_path / ARCHIVE_FILE)
    assert scan(tmp_path, subject="sha256:1").passed
    with zipfile.ZipFile(tmp_path / ARCHIVE_FILE, "a") as packed:
        packed.writestr("merged/notes.txt", "api_key = 9f8Kq2LmZx7Wv4Tn1RbY6Pd3\n")
        packed.writestr("merged/model.bin", b"\x80\x04cos\nsystem\n.")
    found = {(one.file, one.kind) for one in scan(tmp_path, subject="sha256:1").findings}
    assert (f"{ARCHIVE_FILE}!merged/model.bin", "pickle") in found
    assert any(file == f"{ARCHIVE_FILE}!merged/notes.txt" for file, _ in found)
    (tmp_path / ARCHIVE_FILE).write_bytes(b"\x80\x04cos\nsystem\n.")
    assert scan(tmp_path, subject="sha256:1").findings[0].kind == "pickle"


class Context:
    """What TorchServe hands to a handler, as far as a handler of ours asks."""

    def __init__(self, folder: Path) -> None:
        self.system_properties = {"model_dir": str(folder), "gpu_id": None}
        self.statuses: dict[int, int] = {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        assert phrase
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        assert value == "application/json" and idx >= 0


def handler_in(room: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(room)
    monkeypatch.delitem(__import__("sys").modules, "inference", raising=False)
    spec = importlib.util.spec_from_file_location("handler", room / "handler.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_handler_answers_each_request_of_a_batch(
    subject: Subject, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, context = handler_in(room, monkeypatch), Context(room)
    assert handler.handle(None, context) is None, "TorchServe lets it load first"
    asked = {"prompt": "The", "max_new_tokens": 3}
    batch = [
        {"body": asked},
        {"body": bytearray(json.dumps(asked).encode())},
        {"data": asked},
        {"body": {"prompt": 1}},
        {"body": b"\xff"},
        {'{"prompt": "The"}': ""},
    ]
    answers = handler.handle(batch, context)
    assert answers[0] == answers[1] == answers[2] and answers[0]["num_new_tokens"] == 3
    assert context.statuses == {3: 400, 4: 400, 5: 400}
    assert "Content-Type" in answers[5]["error"]
    loaded: LoadedModel = subject.model.load()
    ids = loaded.tokenizer("The", return_tensors="pt")["input_ids"]
    model: Any = loaded.model
    new = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
    assert answers[0]["text"] == loaded.tokenizer.decode(new, skip_special_tokens=True)


def test_the_handler_refuses_a_changed_model(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = room / "merged" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert any("model.safetensors in model.mar is not as" in one for one in archive_faults(room))
    with pytest.raises(Exception, match=r"model\.safetensors has SHA-256"):
        handler_in(room, monkeypatch).handle(None, Context(room))


def _add(name: str, text: str) -> Callable[[Path], None]:
    def change(room: Path) -> None:
        with (room / name).open("a") as stream:
            stream.write(text)

    return change


def _rewrite(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(room: Path) -> None:
        content = yaml.safe_load((room / name).read_text())
        (room / name).write_text(json.dumps({**content, **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_add("handler.py", "\nprint(1)\n"), "handler.py in model.mar is another program"),
        (_add("inference.py", "\n"), "inference.py in model.mar is another program"),
        (_rewrite("model-config.yaml", batchSize="2"), "batchSize is a whole number"),
        (_rewrite("MAR-INF/MANIFEST.json", runtime="LSP"), "does not say what TorchServe asks for"),
        (_rewrite("MAR-INF/MANIFEST.json", model={"modelName": "model"}), "['modelVersion', 'handler']"),
        (_add("MAR-INF/MANIFEST.json", "}"), "cannot be read"),
        (lambda room: (room / "bundle.json").unlink(), "has no bundle.json"),
    ],
)
def test_a_changed_archive_is_told(change: Callable[[Path], None], told: str, room: Path) -> None:
    change(room)
    faults = list(archive_faults(room))
    assert any(told in fault for fault in faults), faults


def test_members_that_have_no_place_are_not_unpacked(archive: Path, tmp_path: Path) -> None:
    for name in ("../handler.py", "merged/deep/x", "other.py", "merged/.."):
        shutil.copy(archive, tmp_path / ARCHIVE_FILE)
        with zipfile.ZipFile(tmp_path / ARCHIVE_FILE, "a") as packed:
            packed.writestr(name, "x")
        with pytest.raises(ValueError, match="has no place there"), unpacked(tmp_path):
            pass
    (tmp_path / ARCHIVE_FILE).write_bytes(b"PK")
    with pytest.raises(zipfile.BadZipFile), unpacked(tmp_path):
        pass


def _with_other_weights(folder: Path) -> None:
    """An archive that is whole, of a model with one changed weight: as an exporter with a fault would write it."""
    with unpacked(folder) as room:
        file = room / "merged" / "model.safetensors"
        tensors = load_file(file)
        tensors["model.layers.0.mlp.up_proj.weight"].view(-1)[3] += 20
        save_file(tensors, file, metadata={"format": "pt"})
        listed = json.loads((room / "manifest.json").read_text())
        listed["files"]["merged/model.safetensors"]["sha256"] = file_sha256(file)
        (room / "manifest.json").write_text(json.dumps(listed))
        (folder / ARCHIVE_FILE).unlink()
        with zipfile.ZipFile(folder / ARCHIVE_FILE, "w") as packed:
            for one in sorted(room.rglob("*")):
                if one.is_file():
                    packed.write(one, one.relative_to(room))


@pytest.mark.slow
def test_the_check_loads_the_model_in_an_archive(subject: Subject, archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive.parent, tmp_path / "torchserve")
    describe(subject, ("torchserve",)).write(tmp_path)

    def check() -> FormatResult:
        asked = [Prompt("one", "The")]
        found = check_bundle(tmp_path, subject, asked, [], ExportCheckSection(), lambda _: None)
        assert found.bundle == []
        return found.formats["torchserve"]

    result = check()
    assert result.passed and result.num_tokens > 0, result.faults
    _with_other_weights(tmp_path / "torchserve")
    faults = check().faults
    assert "model.layers.0.mlp.up_proj.weight differs from base and adapter by 20 at [0, 3]" in faults[0]
    assert any("position" in fault for fault in faults[1:])
    (tmp_path / "torchserve" / ARCHIVE_FILE).write_bytes(b"PK")
    assert "cannot be unpacked" in check().faults[0]
