"""One file, and all that lies in it: which format it is, who read it, and what was found."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from raytrain.release.scans.archives import READING_ERRORS, ArchiveRefusedError, Budget, Member, take_out
from raytrain.release.scans.formats import WEIGHT_SUFFIXES, DamagedError, is_text, read_binary
from raytrain.release.scans.magic import Container, container_of, has_zip_behind, refused_kind
from raytrain.release.scans.pickles import Pickle, find_pickle, texts_in_pickle
from raytrain.release.scans.raw_bytes import runs_of_file
from raytrain.release.scans.report import ScanFinding
from raytrain.release.scans.secret_search import SecretSearch

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Content:
    """A file, or a member of an archive that was taken out."""

    path: Path
    name: str
    is_raw: bool = False
    """What it lies in says that it is a tensor's bytes."""
    in_graph: bool = False
    """It lies in a graph archive (.pt2), where a pickle of tensors may be."""
    depth: int = 0


@dataclass
class Reading:
    """What is known of one file of the folder once it was read."""

    findings: list[ScanFinding] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    read_by: set[str] = field(default_factory=set)
    format: str = UNKNOWN

    def refuse(self, kind: str, name: str, what: str, scanner: str = "formats") -> None:
        self.findings.append(ScanFinding(scanner, name, kind, what))


class FileReader:
    """Reads files to their ends; nothing is taken for what its name says."""

    def __init__(self, secrets: SecretSearch) -> None:
        self._secrets = secrets

    def read(self, content: Content) -> Reading:
        """A file of the folder, and what lies in it."""
        reading = Reading(findings=self._secrets.of_name(content.name))
        budget = Budget.for_file(content.path.stat().st_size)
        reading.format = self._read(content, reading, budget)
        return reading

    def _read(self, content: Content, reading: Reading, budget: Budget) -> str:
        name, path = content.name, content.path
        if path.stat().st_size == 0:
            reading.read_by.add("formats")
            return "empty"
        with path.open("rb") as stream:
            pickle = find_pickle(stream, name)
            container = None if pickle else container_of(stream)
            hides_zip = container != "zip" and has_zip_behind(stream)
            refused = refused_kind(stream, is_raw=content.is_raw)
        reading.read_by.add("picklescan")
        if pickle is not None:
            return self._judge_pickle(pickle, content, reading)
        if hides_zip:
            reading.refuse("hidden_archive", name, "a zip archive lies behind another content")
        suffix = PurePosixPath(name.rpartition("!")[2]).suffix.lower()
        if suffix in WEIGHT_SUFFIXES and not content.in_graph:
            reading.refuse(
                "weights", name, f"weights are safetensors only, and loaders take {suffix} for others"
            )
        if container is not None:
            return self._read_container(content, container, reading, budget)
        is_texts = is_text(path)
        if content.is_raw and refused is None and not is_texts:
            reading.read_by.add("formats")
            return "tensor"
        if is_texts:
            reading.findings += self._secrets.of_text_file(path, name)
            reading.read_by |= {"formats", "secrets"}
            return "text"
        if refused is not None:
            reading.refuse(refused[0], name, refused[1])
            return refused[0]
        return self._read_binary(content, reading)

    def _read_binary(self, content: Content, reading: Reading) -> str:
        name = content.name
        try:
            found = read_binary(content.path, name)
            if found is not None:
                reading.findings += self._secrets.of_texts(found[1], name)
        except DamagedError as error:
            reading.refuse("damaged", name, str(error))
            return UNKNOWN
        if found is None:
            why = "no scanner here reads it: text (UTF-8), safetensors, ONNX, .pt2, Parquet, PNG and JPEG are read"
            reading.refuse("unread", name, why)
            return UNKNOWN
        reading.read_by |= {"formats", "secrets"}
        return found[0]

    def _read_container(self, content: Content, kind: Container, reading: Reading, budget: Budget) -> str:
        name = content.name
        if content.depth >= budget.deepest:
            reading.refuse("archive", name, f"an archive in {content.depth} others is not opened")
            return UNKNOWN
        with TemporaryDirectory() as scratch:
            try:
                taken = take_out(content.path, kind, Path(scratch), budget)
            except ArchiveRefusedError as error:
                reading.refuse("archive", name, str(error))
                return UNKNOWN
            except READING_ERRORS as error:
                why = f"an archive that cannot be read: {type(error).__name__}: {error}"
                reading.refuse("archive", name, why[:300])
                return UNKNOWN
            members = taken.members
            is_graph = content.in_graph or _is_graph_archive(members)
            raw = _raw_members(members) if is_graph else frozenset()
            reading.findings += self._secrets.of_texts(taken.texts, name)
            reading.read_by.add("formats")
            for one in members:
                reading.findings += self._secrets.of_name(one.name)
                inner = Content(
                    one.path,
                    f"{name}!{one.name}",
                    one.name in raw,
                    in_graph=is_graph,
                    depth=content.depth + 1,
                )
                self._read(inner, reading, budget)
        return "pt2" if is_graph else kind

    def _judge_pickle(self, pickle: Pickle, content: Content, reading: Reading) -> str:
        told = ", ".join(pickle.globals[:5]) or "no module"
        if content.in_graph and pickle.is_of_tensors:
            reading.admitted.append(f"{content.name}: {told}")
            reading.findings += self._secrets.of_texts(runs_of_file(content.path), content.name)
            reading.read_by |= {"formats", "secrets"}
            return "pickle"
        what = f"a pickle, which runs code when it is loaded; it names {told}"
        if pickle.dangerous:
            what += f"; dangerous: {', '.join(pickle.dangerous[:5])}"
        reading.refuse("pickle", content.name, what, "picklescan")
        return "pickle"


def _is_graph_archive(members: Iterable[Member]) -> bool:
    """What `torch.export.save` writes says so itself."""
    return any(
        PurePosixPath(one.name).name == "archive_format" and one.path.read_bytes().strip() == b"pt2"
        for one in members
    )


def _raw_members(members: list[Member]) -> frozenset[str]:
    """Members that hold a tensor's bytes: those that a graph archive's own lists name, and the storages that the
    pickle of a `torch.save` within it names."""
    found: set[str] = set()
    for one in members:
        pure = PurePosixPath(one.name)
        if pure.name.endswith("_config.json") and pure.parent.parent.name == "data":
            found |= {str(pure.parent / name) for name in _named_in(one.path)}
        if pure.name == "data.pkl":
            storages = pure.parent / "data"
            found |= {str(storages / name) for name in texts_in_pickle(one.path) if name.isdigit()}
    return frozenset(found)


def _named_in(path: Path) -> set[str]:
    try:
        listed = json.loads(path.read_bytes())["config"].values()
        return {str(one["path_name"]) for one in listed if not one.get("use_pickle")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
