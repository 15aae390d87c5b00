"""The files that make a model: which they are, whether they are all there, their digest, their licence."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from raytrain.errors import ConfigError, IntegrityError, StorageError
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, write_atomically
from raytrain.storage.manifest import (
    MANIFEST_NAME,
    Manifest,
    digest_of,
    file_sha256,
    first_difference,
    read_manifest,
)

MODEL_FILE_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
"""What is fetched from the hub, and what a model's digest is taken over. Pickled weights are left out."""

_NOT_PART_OF_THE_MODEL = {MANIFEST_NAME, "training.json", "requirements.txt"}


def cached_sha256(path: Path) -> str:
    """SHA-256 of a file, read again only when its size, inode or times differ from the last reading's."""
    stat = path.stat()
    state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    record = raytrain_home() / "cache" / "file_digests" / f"{name}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(record.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    digest = file_sha256(path)
    # Only speed hangs on the record: a home that cannot be written must not stop the reading of a model.
    with suppress(OSError, StorageError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps({"path": str(path), "state": state, "sha256": digest}).encode())
    return digest


def model_digest(folder: Path) -> str:
    """`sha256:` over weights, config and tokenizer files of a model folder; an artifact's own digest for one.

    Raises IntegrityError where the folder is an artifact and a file in it differs from its manifest.
    """
    if (folder / MANIFEST_NAME).is_file():
        return verified_manifest(folder).digest
    names = {
        file.name: cached_sha256(file)
        for pattern in MODEL_FILE_PATTERNS
        for file in folder.glob(pattern)
        if file.name not in _NOT_PART_OF_THE_MODEL
    }
    return digest_of({"kind": "model_folder", "files": dict(sorted(names.items()))})


def verified_manifest(folder: Path) -> Manifest:
    """The manifest of a local artifact; IntegrityError names the first file that does not agree with it."""
    manifest = read_manifest(Location(str(folder)))
    different = first_difference(folder, manifest, cached_sha256)
    if different is not None:
        name, why = different
        raise _damaged(folder / name, f"it {why}")
    return manifest


def _damaged(file: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{file} is damaged",
        why=why,
        fix=f"remove {file.parent} and make or fetch it again; a converted GGUF is redone",
    )


def check_model_folder(folder: Path) -> None:
    """ConfigError where `folder` holds no loadable model, IntegrityError where a listed shard is missing."""
    if not (folder / "config.json").is_file():
        gguf_files = sorted(folder.glob("*.gguf"))
        adapter = (folder / "adapter_config.json").is_file()
        raise ConfigError(
            f"{folder} holds no model",
            why="it is an adapter, not a base model" if adapter else "it has no config.json",
            fix=f"name the file: {gguf_files[0]}"
            if gguf_files
            else "give the folder that save_pretrained wrote, with config.json and *.safetensors",
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise _damaged(index, f"it is not an index of shards: {error}") from error
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise IntegrityError(
                f"{folder} is not whole",
                why=f"{index.name} lists {missing[0]}, which is missing",
                fix="fetch the model again",
            )
    elif not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        raise ConfigError(
            f"{folder} has no safetensors weights",
            why=f"only pickled weights are there: {pickled[0]}"
            if pickled
            else "no *.safetensors file is in it",
            fix="raytrain reads no pickles, which can run code; save the model as safetensors first",
        )


def find_licence(folder: Path) -> str | None:
    """The `license:` of the model card's front matter, if it states one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key.strip() == "license" and value.strip():
            return value.strip().strip("'\"")
    return None


def find_damaged_safetensors(folder: Path) -> tuple[Path, str] | None:
    """The first *.safetensors file in `folder` whose header or length is wrong, and in which way."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(os.fspath(file), framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError, ValueError) as error:
            return file, first_line(error)
    return None


def first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
