"""A folder that is about to be sealed, or any artifact: every file followed to its last byte, or refused by name.

Tensors, pixels and packed pages of columns may be anything; beside them no byte goes unread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, StorageError
from raytrain.release.scans.formats import DamagedError, tensors_beside
from raytrain.release.scans.onnx_graphs import gap_in
from raytrain.release.scans.pickles import find_pickle, quiet_scanners
from raytrain.release.scans.reading import UNKNOWN, Content, FileReader, Reading
from raytrain.release.scans.report import ScanFinding, ScannedFile, ScanReport
from raytrain.release.scans.second_opinion import Modelscan, scanner_versions
from raytrain.release.scans.secret_search import SecretSearch
from raytrain.storage.location import Location
from raytrain.storage.manifest import file_sha256, read_manifest


def subject_of(folder: Path) -> str:
    """The trained artifact that an artifact is of: as its parent, or itself; empty where the folder is no artifact."""
    try:
        manifest = read_manifest(Location(str(folder.absolute())))
    except (IntegrityError, StorageError):
        return ""
    return manifest.parents.get("subject", manifest.digest)


def scan(folder: Path, *, subject: str, documents: Mapping[str, Any] | None = None) -> ScanReport:
    """Read every file below `folder`.

    documents: what is written only after the scan, by the name of its file, such as a manifest's provenance. Raises
    ConfigError where there is no folder, or a scanner is not installed.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} cannot be scanned",
            why="it is a file" if folder.exists() else "nothing is there",
            fix="name the folder of a bundle or another artifact",
        )
    with TemporaryDirectory() as scratch, quiet_scanners():
        run = _Scan(folder, SecretSearch(Path(scratch)), Modelscan())
        for name, content in sorted((documents or {}).items()):
            run.findings += run.secrets.of_document(content, name)
        run.read_all()
    return ScanReport(
        subject,
        tuple(
            sorted(
                set(run.findings), key=lambda one: (one.file, one.scanner, one.kind, one.line or 0, one.what)
            )
        ),
        run.files,
        tuple(sorted(documents or {})),
        tuple(sorted(run.admitted)),
        scanner_versions(),
    )


@dataclass
class _Scan:
    folder: Path
    secrets: SecretSearch
    modelscan: Modelscan
    findings: list[ScanFinding] = field(default_factory=list)
    files: dict[str, ScannedFile] = field(default_factory=dict)
    admitted: list[str] = field(default_factory=list)
    raw: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    """Files of tensors that ONNX graphs of the folder name."""

    def read_all(self) -> None:
        regular = []
        for path in _below(self.folder, self):
            name = path.relative_to(self.folder).as_posix()
            why = _no_file(path)
            if not name.isprintable():
                self._refuse("name", ascii(name), "a name that cannot be printed; it may hide what follows")
            elif why:
                self._refuse("no_file", name, why)
            else:
                regular.append((name, path))
        for name, path in regular:
            if name.endswith(".onnx"):
                self._note_tensors(name, path)
        for name, path in regular:
            try:
                self._read(name, path)
            except OSError as error:
                self._refuse("unreadable", name, f"{type(error).__name__}: {error.strerror or error}")
        if not regular:
            self._refuse("empty", ".", "there is no file to scan")
        for name in sorted(self.raw.keys() - {name for name, _ in regular}):
            self._refuse("damaged", name, "an ONNX graph names it, and it is not in the folder")

    def _read(self, name: str, path: Path) -> None:
        before = (file_sha256(path), path.stat().st_size)
        reading = FileReader(self.secrets).read(Content(path, name, is_raw=name in self.raw))
        if reading.format == "tensor" and (gap := gap_in(path, self.raw[name])):
            reading.refuse("unread", name, gap)
        skipped = self._ask_modelscan(name, path, reading)
        if (file_sha256(path), path.stat().st_size) != before:
            reading.refuse("changed", name, "it was changed while it was scanned")
        self.findings += reading.findings
        self.admitted += reading.admitted
        read_by = tuple(sorted(reading.read_by))
        self.files[name] = ScannedFile(*before, reading.format, read_by, ("modelscan",) if skipped else ())

    def _ask_modelscan(self, name: str, path: Path, reading: Reading) -> bool:
        """Whether it passed the file over. An archive that was refused is not given to it: it has no limits."""
        if any(one.kind == "archive" for one in reading.findings):
            return True
        opinion = self.modelscan(path, name)
        for issue in opinion.issues:
            reading.refuse("unsafe", name, issue, "modelscan")
        if not opinion.skipped:
            reading.read_by.add("modelscan")
        elif reading.format == UNKNOWN and not reading.findings:
            reading.refuse("unread", name, "every scanner passed it over")
        return opinion.skipped

    def _note_tensors(self, name: str, path: Path) -> None:
        # What is wrong with the graph is told when it is read.
        with suppress(DamagedError, OSError), path.open("rb") as stream:
            if find_pickle(stream, name) is not None:
                return
            for location, ranges in tensors_beside(path).items():
                beside = os.path.normpath(Path(name).parent / location)
                if beside.startswith("..") or Path(location).is_absolute():
                    self._refuse("unsafe", name, f"it names tensors outside of the folder: {location!r}")
                else:
                    self.raw.setdefault(beside, []).extend(ranges)

    def _refuse(self, kind: str, name: str, what: str) -> None:
        self.findings.append(ScanFinding("formats", name, kind, what))


def _below(folder: Path, run: _Scan) -> Iterator[Path]:
    """All that is no folder, in order of names; links are not followed."""

    def told(error: OSError) -> None:
        place = Path(error.filename or folder)
        run.findings.append(
            ScanFinding("formats", _shown(place, folder), "unreadable", str(error.strerror or error))
        )

    for place, folders, files in os.walk(folder, onerror=told):
        folders.sort()
        yield from sorted(Path(place) / one for one in files)
        yield from (Path(place) / one for one in folders if (Path(place) / one).is_symlink())


def _shown(place: Path, folder: Path) -> str:
    return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.name


def _no_file(path: Path) -> str | None:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, and only files can be sealed"
