"""Sources: what `data.sources` names, found, fingerprinted, and opened as streams of raw rows."""

from __future__ import annotations

import glob
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar, cast

from raytrain.config.recipe import nearest
from raytrain.data.images import IMAGE_SUFFIXES
from raytrain.data.readers import READERS, suffix_of
from raytrain.data.remote import fetch, is_remote
from raytrain.data.rows import RawRow, RowFault
from raytrain.data.section import RowsSection, SourceSection
from raytrain.data.tool_calls import GENERATOR_VERSION, generate_tool_calls, generate_tool_names
from raytrain.errors import ConfigError, DataError
from raytrain.storage.manifest import digest_of, file_sha256


@dataclass(frozen=True)
class SourceFile:
    path: Path
    label: str
    sha256: str
    size_bytes: int
    modified_ns: int


S = TypeVar("S", bound=RowsSection)


@dataclass
class Source(Generic[S]):
    """One opened source. Its rows depend on `identity`; `bytes_read` grows as they are read."""

    name: str
    section: S
    identity: dict[str, Any]
    size_bytes: int
    rows: Callable[[], Iterator[RawRow]]
    provenance: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    bytes_read: int = 0
    folder: Path | None = None
    """Where relative paths of images start; None where image files do not count in `identity`."""


def open_sources(sections: Sequence[S]) -> list[Source[S]]:
    """Open all sources, each under its own name. Raises DataError for what is not there or unreadable."""
    opened: list[Source[S]] = []
    taken: set[str] = set()
    for section in sections:
        source = _open(section)
        name, number = source.name, 1
        while source.name in taken:
            number += 1
            source.name = f"{name}#{number}"
        taken.add(source.name)
        opened.append(source)
    return opened


def _open(section: S) -> Source[S]:
    if section.path is not None:
        return _open_files(section, section.path)
    if section.dataset is not None:
        return _open_hub(section, section.dataset)
    return _open_generator(section)


def _open_generator(section: S) -> Source[S]:
    part: Literal["train", "heldout"] = "heldout" if section.split == "heldout" else "train"
    if section.split not in ("train", "heldout"):
        raise ConfigError(
            f"the generator {section.generator} has no split `{section.split}`",
            why="it makes train and heldout",
            fix="name one of these",
        )

    def rows() -> Iterator[RawRow]:
        generate = generate_tool_names if section.generator == "tool_names" else generate_tool_calls
        generated = generate(section.num_rows, section.seed, part)
        for number, row in enumerate(generated, start=1):
            yield RawRow(None, number, row)

    identity = {
        "generator": section.generator,
        "version": GENERATOR_VERSION,
        "num_rows": section.num_rows,
        "seed": section.seed,
        **({} if part == "train" else {"split": part}),
    }
    return Source(section.name or str(section.generator), section, identity, 0, rows, dict(identity))


def _open_hub(section: S, dataset: str) -> Source[S]:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"the Hugging Face dataset `{dataset}` needs the package datasets",
            why="it is not installed; only the extra `hub` brings it",
            fix="pip install 'raytrain[hub]', or download the rows and give `path:` instead",
        ) from error
    try:
        loaded = datasets.load_dataset(dataset, section.subset, split=section.split)
    except Exception as error:
        raise DataError(
            f"the dataset `{dataset}` (subset {section.subset}, split {section.split}) cannot be loaded",
            why=f"{type(error).__name__}: {str(error)[:500]}",
            fix="check name, subset and split; offline, give `path:` to files you have, "
            "or fill the cache (HF_HOME) on a machine with network",
        ) from error

    def rows() -> Iterator[RawRow]:
        for number, row in enumerate(loaded, start=1):
            yield RawRow(
                None, number, row if isinstance(row, dict) else RowFault("not_an_object", str(type(row)))
            )

    identity = {
        "dataset": dataset,
        "subset": section.subset,
        "split": section.split,
        "fingerprint": getattr(loaded, "_fingerprint", None),
    }
    return Source(section.name or dataset, section, identity, 0, rows, dict(identity))


def _open_files(section: S, given: str) -> Source[S]:
    pattern = str(fetch(given)) if is_remote(given) else given
    paths, skipped = find_files(pattern)
    files = [_fingerprint(path, label) for path, label in paths]
    identity: dict[str, Any] = {"files": [{"file": one.label, "sha256": one.sha256} for one in files]}
    folder = None
    if isinstance(section, SourceSection) and section.layout == "image_classification":
        place = Path(pattern).expanduser()
        folder = place if place.is_dir() else paths[0][0].parent
        identity["images"] = _digest_of_images(folder)
    provenance = {
        "path": given,
        "files": [{"file": one.label, "sha256": one.sha256, "size_bytes": one.size_bytes} for one in files],
    }
    source = Source(
        section.name or Path(pattern).name or Path(pattern).absolute().name,
        section,
        identity,
        sum(one.size_bytes for one in files),
        lambda: _file_rows(source, files),
        provenance,
        folder=folder,
    )
    if skipped:
        source.notes.append(f"not read, for their suffix: {', '.join(sorted(skipped)[:10])}")
    return source


def _digest_of_images(folder: Path) -> str:
    """One digest over all image files below `folder`: another picture under an old name is another input."""
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES and one.is_file())
    try:
        return digest_of([[one.relative_to(folder).as_posix(), file_sha256(one)] for one in found])
    except OSError as error:
        raise _unreadable(folder, error) from error


def find_files(pattern: str) -> tuple[list[tuple[Path, str]], list[str]]:
    """The files that a path, folder or glob stands for, each with a label; and what was passed over.

    Raises DataError where there is nothing to read, with the nearest names in that folder.
    """
    place = Path(pattern).expanduser()
    if place.is_file():
        if suffix_of(place.name) is None:
            raise _unknown_suffix(str(place), [place.name])
        return [(place, place.name)], []
    if place.is_dir():
        base, found = place, [one for one in place.rglob("*") if one.is_file()]
    elif glob.has_magic(pattern):
        base = _fixed_part(place)
        found = [one for one in base.glob(str(place.relative_to(base))) if one.is_file()]
    else:
        raise _not_there(place)
    visible = [one for one in found if not any(part.startswith(".") for part in one.relative_to(base).parts)]
    known = sorted(one for one in visible if suffix_of(one.name) is not None)
    skipped = [one.relative_to(base).as_posix() for one in visible if suffix_of(one.name) is None]
    if not known and skipped:
        raise _unknown_suffix(pattern, skipped)
    if not known:
        raise DataError(
            f"`{pattern}` holds no files",
            why="the folder is empty" if place.is_dir() else "no file matches the pattern",
            fix=f"check the path; looked from {Path.cwd()}",
        )
    return [(one, one.relative_to(base).as_posix()) for one in known], skipped


def _fixed_part(place: Path) -> Path:
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), place.parts))


def _unknown_suffix(pattern: str, names: list[str]) -> DataError:
    return DataError(
        f"no reader for `{pattern}`",
        why=f"unknown suffix: {', '.join(sorted(names)[:5])}",
        fix=f"rename it to one of {', '.join(READERS)} (text also as .gz), or convert it",
    )


def _not_there(place: Path) -> DataError:
    folder = place.parent
    if not folder.is_dir():
        hint = f"there is no folder {folder} either; paths are relative to {Path.cwd()}"
    else:
        names = sorted(one.name for one in folder.iterdir())
        near = nearest(place.name, names)
        readable = [name for name in names if suffix_of(name) is not None][:5]
        if near:
            hint = f"did you mean {folder / near}?"
        elif readable:
            hint = f"in {folder} there are: {', '.join(readable)}"
        else:
            hint = f"check the path: {folder} holds nothing that can be read as rows"
    return DataError(
        f"`{place}` is not there",
        why="nothing has this name" if place.is_absolute() else f"looked for {place.absolute()}",
        fix=hint,
    )


def _fingerprint(path: Path, label: str) -> SourceFile:
    try:
        status = path.stat()
        return SourceFile(path, label, file_sha256(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read",
        why=f"{type(error).__name__}: {error}",
        fix="check that the file is whole and that this user may read it",
    )


def _file_rows(source: Source[S], files: list[SourceFile]) -> Iterator[RawRow]:
    import pyarrow as pa

    done = 0
    for file in files:
        label = file.label if len(files) > 1 else None
        try:
            with file.path.open("rb", buffering=2**20) as raw:
                stream = _unpacked(raw, file.path.name)
                for count, (number, content) in enumerate(READERS[str(suffix_of(file.path.name))](stream)):
                    if count % 1024 == 0:
                        source.bytes_read = done + raw.tell()
                    yield RawRow(label, number, content)
            status = file.path.stat()
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise _unreadable(file.path, error) from error
        if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.modified_ns):
            raise DataError(
                f"{file.path} changed while it was read",
                why="its size or time of change is not what it was at the start",
                fix="wait until nothing writes to it, then run the same command again",
            )
        done += file.size_bytes
        source.bytes_read = done


def _unpacked(raw: BinaryIO, file_name: str) -> BinaryIO:
    if not file_name.lower().endswith(".gz"):
        return raw
    return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw), 2**20))
