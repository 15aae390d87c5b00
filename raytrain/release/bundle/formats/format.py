"""What a format is, and which there are."""

from __future__ import annotations

import errno
import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, PlatformError
from raytrain.models.base_places import travelling_record
from raytrain.models.inference import TRAINING_RECORD
from raytrain.models.model_files import first_line
from raytrain.release.bundle.description import FORMAT_FOLDERS
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.subject import Subject

FORMATS = tuple(FORMAT_FOLDERS)
_EXTRAS = frozenset({"torchserve"})
"""They come beside a format that inference.py serves; where none is named, the usual one."""

_OF_CLASSIFIERS = frozenset({"adapter", "merged"})

_NOT_BUILT = {
    "gguf": (
        "the converter that is kept up to date is a script in llama.cpp, and no library",
        "export merged, and run llama.cpp's own: python convert_hf_to_gguf.py BUNDLE/merged --outfile model.gguf",
    ),
    "torchscript": ("PyTorch has put torch.export in its place", "use torch_export"),
}
_FULL_DISK = ("no space left", "os error 28", "disk quota")


@dataclass(frozen=True)
class Format:
    """`check` raises ConfigError where this model cannot have the format, before anything is loaded. `write` puts the
    weights into an empty folder, which holds tokenizer, settings and config already."""

    name: str
    check: Callable[[Subject], None]
    write: Callable[[Material, Path], None]


def find_formats(wanted: Iterable[str], subject: Subject) -> list[Format]:
    """Those that are named, each once and in the order of FORMATS; the usual one where none is, or an extra alone.

    Raises ConfigError where one is not known, is not built, or this model cannot have it.
    """
    names = {part.strip() for one in wanted for part in one.split(",")}
    if "" in names:
        raise ConfigError("a format is empty", why="--format names nothing", fix=f"name {', '.join(FORMATS)}")
    for name in sorted(names - set(FORMATS)):
        if name in _NOT_BUILT:
            why, fix = _NOT_BUILT[name]
            raise ConfigError(f"--format {name} is not built", why=why, fix=fix)
        near = nearest(name, FORMATS)
        raise ConfigError(
            f"there is no format `{name}`",
            why=f"there are {', '.join(FORMATS)}",
            fix=f"did you mean `{near}`?" if near else "name one of these",
        )
    if not names - _EXTRAS:
        names |= {"adapter" if subject.is_adapter else "merged"}
    if not subject.writes and names - _OF_CLASSIFIERS:
        raise ConfigError(
            f"a classifier cannot be written as {sorted(names - _OF_CLASSIFIERS)[0]}",
            why="this format is built for models that write",
            fix=f"use --format {','.join(sorted(_OF_CLASSIFIERS))}",
        )
    found = [_format(name) for name in FORMATS if name in names]
    for one in found:
        one.check(subject)
    return found


def _format(name: str) -> Format:
    found: Format = importlib.import_module(f"raytrain.release.bundle.formats.{name}").FORMAT
    return found


def write_format(form: Format, material: Material, folder: Path) -> None:
    """Write one format below `folder`, with what a stranger needs to load it.

    Raises ConfigError that names the format where this model does not allow it; OSError where the disk is full.
    """
    place = folder / form.name
    place.mkdir()
    with _faults_named(form.name):
        material.write_description(place)
        form.write(material, place)
        # Whoever evaluates or loads what lies here finds its base model and its recipe by it.
        record = material.subject.record
        travelling = travelling_record(record, str(record["base_model"]))
        (place / TRAINING_RECORD).write_text(json.dumps(travelling, indent=1, sort_keys=True))


@contextmanager
def _faults_named(name: str) -> Iterator[None]:
    try:
        yield
    except (PlatformError, OSError):
        raise
    except Exception as error:
        # safetensors tells of a full disk in words of its own.
        if any(words in str(error).lower() for words in _FULL_DISK):
            raise OSError(errno.ENOSPC, first_line(error)) from error
        raise ConfigError(
            f"this model cannot be written as {name}",
            why=f"{type(error).__name__}: {first_line(error)[:300]}",
            fix=f"leave {name} out: --format adapter,merged is what every model can have",
        ) from error
