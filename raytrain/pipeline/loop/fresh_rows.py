"""What a retraining learns from: rows that came since, a part of them held out, and old rows beside them.

All of it is written once, as an artifact, before anything is trained: who goes on after a kill goes on with the same
rows, whatever came in meanwhile.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.data.rows import RowFault
from raytrain.data.section import SourceSection
from raytrain.data.sources import open_sources
from raytrain.errors import DataError, PlatformError
from raytrain.monitoring.learning.pool import ROWS_KIND
from raytrain.pipeline.loop.section import RowsSection
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest
from raytrain.storage.provenance import collect_provenance

FRESH, HELD_OUT, PLAN = "fresh.jsonl", "held_out.jsonl", "plan.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """What production was trained with."""

    recipe: Mapping[str, Any]
    sources: Sequence[SourceSection]
    """All that rows came from."""
    ready: Callable[[Iterable[str]], set[str]] = set
    """Of ids of rows that retrainings wrote, those that may still be learned from."""


@dataclass(frozen=True)
class RowsPlan:
    """What was written."""

    artifact: Artifact

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.artifact.path / PLAN).read_text(encoding="utf-8"))
        return found

    @property
    def recipe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.content["recipe"]
        return found

    @property
    def num_held_out(self) -> int:
        return int(self.content["num_held_out"])

    @property
    def held_out(self) -> Location:
        return self.artifact.location / HELD_OUT

    def rows(self) -> list[Row]:
        """The fresh ones, held out or not."""
        return [row for name in (FRESH, HELD_OUT) for row in _read(self.artifact.path / name)]

    def ids(self) -> set[str]:
        """Of all rows that were written down, the old ones among them: those of other sources have none, or other ones
        than interactions have."""
        files = sorted(self.artifact.path.glob("*.jsonl"))
        return {str(row["id"]) for file in files for row in _read(file) if "id" in row}

    def told(self) -> str:
        one = self.content
        added = f", {one['num_added']} of new sources" if one.get("num_added") else ""
        fresh = f"{one['num_fresh']} fresh rows to learn from, {one['num_held_out']} held out"
        return f"{fresh}{added}, {one['num_old']} old ones"


def plan_beside(path: str) -> RowsPlan | None:
    """The plan in whose folder a file of rows lies; None where it is of nobody's plan."""
    folder = Location.parse(path).parent
    try:
        is_one = (folder / MANIFEST_NAME).exists() and read_manifest(folder).kind == ROWS_KIND
        return RowsPlan(open_artifact(folder)) if is_one else None
    except PlatformError as error:
        raise DataError(
            f"the rows that production has learned from cannot be read: {folder}",
            why=error.line,
            fix="put the folder back as it was",
        ) from error


def open_plan(place: Location) -> RowsPlan | None:
    """None where none was written."""
    return RowsPlan(open_artifact(place, kind=ROWS_KIND)) if (place / MANIFEST_NAME).exists() else None


def write_plan(
    place: Location,
    section: RowsSection,
    fresh: Sequence[Row],
    before: Learned,
    parents: Mapping[str, str],
    about: Mapping[str, Any],
    added: Sequence[SourceSection] = (),
) -> RowsPlan:
    """before: whose recipe gets its sources put in place here. about: what it is done for. added: sources that it has
    not learned from, of which every row is taken.

    Raises DataError where there are too few rows, or those of a source cannot be read.
    """
    learned, held_out = split_rows(fresh, section.held_out)
    recipe = before.recipe
    num_added = sum(1 for _ in _readable(added))
    if not num_added and (len(fresh) < section.least or not learned):
        raise DataError(
            f"there are {len(fresh)} rows to learn from, and {section.least} are asked",
            why="rows are what users agreed to and rated, of good quality and not suspicious: "
            "raytrain interactions list",
            fix="wait for more, accept what is quarantined, or lower rows.least",
        )
    plans = {one.path: plan for one in before.sources if one.path and (plan := plan_beside(one.path))}
    learned_from = {
        f"learned_{number}": one.artifact.digest for number, one in enumerate(plans.values(), start=1)
    }
    with ArtifactWriter(place, kind=ROWS_KIND, parents={**parents, **learned_from}) as writer:
        _write(writer.path / FRESH, learned)
        _write(writer.path / HELD_OUT, held_out)
        own = SourceSection(path=str(place / FRESH), layout="chat", name=f"fresh-{place.parent.name}")
        old = [_still_ready(one, number, writer.path, place, before) if one.path in plans else one
               for number, one in enumerate(before.sources)]  # fmt: skip
        sources, num_old = old, None
        if section.replay is not None:
            wanted = round(section.replay * (len(learned) + num_added))
            sources, num_old = _drawn(writer.path, place, old, wanted)
        new = [*([own] if learned else []), *added]
        data = {**recipe["data"], "sources": [one.model_dump(mode="json") for one in (*new, *sources)]}
        if data.get("max_rows") is not None:  # what is fresh comes first, and no old row has to go for it
            data["max_rows"] += len(learned) + num_added
        content = {
            **about,
            "num_fresh": len(learned),
            "num_held_out": len(held_out),
            "num_added": num_added,
            "num_old": "all" if num_old is None else num_old,
            "sources": [one.model_dump(mode="json") for one in (*old, *new)],
            "recipe": {**recipe, "data": data},
        }
        text = json.dumps(content, indent=1, sort_keys=True)
        (writer.path / PLAN).write_text(text + "\n", encoding="utf-8")
        return RowsPlan(writer.commit(collect_provenance(config=section.model_dump(mode="json"))))


def split_rows(rows: Iterable[Row], held_out: float) -> tuple[list[Row], list[Row]]:
    """By the rows' ids alone: one that was held out once is held out by every retraining."""
    learned: list[Row] = []
    kept_back: list[Row] = []
    for row in rows:
        drawn = int.from_bytes(hashlib.sha256(str(row["id"]).encode()).digest()[:8], "big") / 2.0**64
        (kept_back if drawn < held_out else learned).append(row)
    return learned, kept_back


def _drawn(
    folder: Path, place: Location, old: Sequence[SourceSection], wanted: int
) -> tuple[list[SourceSection], int]:
    """A file for each old source that some of its rows were drawn from. Which ones, its place and number decide."""
    chosen = heapq.nsmallest(
        wanted,
        ((_rank(place, which, number), which, row) for which, number, row in _old_rows(folder, place, old)),
    )
    found = []
    for which, section in enumerate(old):
        rows = [row for _, of, row in chosen if of == which]
        if rows:
            name = f"replay-{which}.jsonl"
            _write(folder / name, rows)
            told = section.model_dump()
            origin = {"path": str(place / name), "dataset": None, "generator": None, "subset": None}
            named = section.name or section.generator or section.dataset or Path(str(section.path)).stem
            found.append(SourceSection.model_validate({**told, **origin, "name": f"replay-{named}"}))
    return found, len(chosen)


def _still_ready(
    source: SourceSection, number: int, folder: Path, place: Location, before: Learned
) -> SourceSection:
    """A copy of rows that an earlier retraining wrote, without those that were forgotten since."""
    plan = plan_beside(str(source.path))
    assert plan is not None, "asked before"
    rows = _read(plan.artifact.path / Path(str(source.path)).name)
    ready = before.ready(str(row["id"]) for row in rows)
    name = f"kept-{number}.jsonl"
    _write(folder / name, [row for row in rows if row["id"] in ready])
    return source.model_copy(update={"path": str(place / name)})


def _rank(place: Location, which: int, number: int) -> bytes:
    return hashlib.sha256(f"{place.parent.name}/{which}/{number}".encode()).digest()


def _old_rows(folder: Path, place: Location, old: Sequence[SourceSection]) -> Iterator[tuple[int, int, Row]]:
    """Copies that are being written lie in `folder` yet."""
    staged = [
        one.model_copy(update={"path": str(folder / Path(one.path).name)})
        if one.path is not None and Location.parse(one.path).parent == place
        else one
        for one in old
    ]
    return _readable(staged)


def _readable(sources: Sequence[SourceSection]) -> Iterator[tuple[int, int, Row]]:
    """Number of the source, number in it, row; preparing counts and tells those that are none."""
    for which, source in enumerate(open_sources(list(sources))):
        for number, raw in enumerate(source.rows()):
            if not isinstance(raw.content, RowFault):
                yield which, number, raw.content


def _read(place: Path) -> list[Row]:
    """Lines end at a line feed alone: texts may hold other signs that end lines elsewhere."""
    return [json.loads(line) for line in place.read_text(encoding="utf-8").split("\n") if line]


def _write(place: Path, rows: Iterable[Row]) -> None:
    try:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except TypeError as error:
        raise DataError(
            "old rows cannot be drawn beside fresh ones",
            why=f"they are more than text and numbers: {error}",
            fix="set rows.replay to null: then their sources are read as they are",
        ) from error
    place.write_text(text, encoding="utf-8")
