"""A TorchServe archive (.mar): the merged model, inference.py to run it, and a handler that calls inference.py.

Written here and not by torch-model-archiver, which notes the time of day, so that no two archives are the same, and
empties a folder of the model's name in the folder for temporary files.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import raytrain.release.bundle as bundle_package
from raytrain.release.bundle.description import DESCRIPTION_FILE, describe
from raytrain.release.bundle.documents.needs import needs_of
from raytrain.release.bundle.formats import merged
from raytrain.release.bundle.formats.format import Format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.formats.torchserve_config import config_faults, model_config
from raytrain.release.bundle.subject import Subject
from raytrain.storage.manifest import MANIFEST_NAME, file_sha256

ARCHIVE_FILE = "model.mar"
MANIFEST_MEMBER = "MAR-INF/MANIFEST.json"
CONFIG_MEMBER = "model-config.yaml"
_MODEL = "merged"
_PROGRAMS = {"inference.py": "inference.py", "handler.py": "torchserve_handler.py"}
"""Member, and the file of this package that it is."""
_OWN = (*_PROGRAMS, "requirements.txt", CONFIG_MEMBER, DESCRIPTION_FILE, MANIFEST_NAME, MANIFEST_MEMBER)
_DEMANDED = ("modelName", "modelVersion", "handler")
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def check(subject: Subject) -> None:
    """Every model that can be merged can have it."""


def write(material: Material, folder: Path) -> None:
    with TemporaryDirectory(dir=folder.parent, prefix=".torchserve-") as scratch:
        room = Path(scratch)
        model = room / _MODEL
        model.mkdir()
        for file in sorted(folder.iterdir()):
            file.rename(model / file.name)
        merged.write(material, model)
        description = describe(material.subject, (_MODEL,))
        description.write(room)
        needs = needs_of(room, description, material.subject.base_folder)
        config = model_config(material.torchserve, gpu=needs.gpu)
        (room / "requirements.txt").write_text(needs.requirements(), encoding="utf-8")
        (room / CONFIG_MEMBER).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        for member, source in _PROGRAMS.items():
            shutil.copyfile(_source(source), room / member)
        listed = {one: {"sha256": file_sha256(room / one)} for one in _members(room)}
        (room / MANIFEST_NAME).write_text(json.dumps({"files": listed}, indent=1, sort_keys=True))
        (room / MANIFEST_MEMBER).parent.mkdir()
        (room / MANIFEST_MEMBER).write_text(json.dumps(_manifest(material.subject), indent=1, sort_keys=True))
        _pack(room, folder / ARCHIVE_FILE)


def _source(name: str) -> Path:
    return Path(bundle_package.__file__).with_name(name)


def _members(room: Path) -> list[str]:
    return sorted(one.relative_to(room).as_posix() for one in room.rglob("*") if one.is_file())


def _manifest(subject: Subject) -> dict[str, Any]:
    """What torch-model-archiver writes; `createdOn` is when the model was trained: the same model, the same bytes."""
    trained = subject.artifact.manifest.provenance.get("created_at")
    when = datetime.fromisoformat(trained) if isinstance(trained, str) else datetime(*_NO_TIME)
    return {
        "createdOn": when.strftime("%d/%m/%Y %H:%M:%S"),
        "runtime": "python",
        "model": {
            "modelName": "model",
            "handler": "handler.py",
            "modelVersion": "1.0",
            "requirementsFile": "requirements.txt",
            "configFile": CONFIG_MEMBER,
        },
        "archiverVersion": f"raytrain {importlib.metadata.version('raytrain')}",
    }


def _pack(room: Path, archive: Path) -> None:
    # Weights do not shrink: nothing is compressed.
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as packed:
        for name in _members(room):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = (room / name).stat().st_size
            with (room / name).open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target)


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """The archive of one format's folder, for as long as it is looked at. Raises BadZipFile, OSError or ValueError
    where it is none, or would write elsewhere."""
    with (
        TemporaryDirectory(prefix="raytrain-torchserve-") as scratch,
        zipfile.ZipFile(folder / ARCHIVE_FILE) as packed,
    ):
        names = packed.namelist()
        for name in names:
            parts = name.split("/")
            if name not in _OWN and not (
                len(parts) == 2 and parts[0] == _MODEL and parts[1] not in ("", ".", "..")
            ):
                raise ValueError(f"its member {name!r} has no place there")
        if len(set(names)) < len(names):
            raise ValueError("a member is in it twice")
        packed.extractall(scratch)
        yield Path(scratch)


def archive_faults(room: Path) -> Iterator[str]:
    """What of an unpacked archive TorchServe would not take, or is not what was written: its model is looked at by
    whoever compares models."""
    missing = [one for one in _OWN if not (room / one).is_file()]
    if missing:
        yield f"{ARCHIVE_FILE} has no {missing[0]}"
        return
    for member, source in _PROGRAMS.items():
        if (room / member).read_bytes() != _source(source).read_bytes():
            yield f"{member} in {ARCHIVE_FILE} is another program than raytrain's"
    try:
        config = yaml.safe_load((room / CONFIG_MEMBER).read_bytes())
        manifest = json.loads((room / MANIFEST_MEMBER).read_bytes())
        listed = {
            name: one["sha256"]
            for name, one in json.loads((room / MANIFEST_NAME).read_bytes())["files"].items()
        }
        lacking = [one for one in _DEMANDED if not isinstance(manifest["model"].get(one), str)]
        named = (manifest["runtime"], manifest["model"].get("handler"), manifest["model"].get("configFile"))
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        yield f"{ARCHIVE_FILE} cannot be read: {type(error).__name__}: {error}"
        return
    yield from (f"{CONFIG_MEMBER}: {fault}" for fault in config_faults(config))
    if lacking or named != ("python", "handler.py", CONFIG_MEMBER):
        yield f"{MANIFEST_MEMBER} does not say what TorchServe asks for: {(lacking or named)!r}"
    held = {
        name: file_sha256(room / name)
        for name in _members(room)
        if name not in (MANIFEST_NAME, MANIFEST_MEMBER)
    }
    other = sorted(name for name in held.keys() | listed.keys() if held.get(name) != listed.get(name))
    if other:
        yield f"{other[0]} in {ARCHIVE_FILE} is not as its {MANIFEST_NAME} lists it"


FORMAT = Format("torchserve", check, write)
