"""From rows that are as they should be to a frozen reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raytrain.errors import DataError
from raytrain.monitoring.drift.embedding import load_embedder
from raytrain.monitoring.drift.features import Embed, choose_features, measure_features
from raytrain.monitoring.drift.picture import words_to_keep
from raytrain.monitoring.drift.reference import Frozen, Reference, open_reference, write_reference
from raytrain.monitoring.drift.request_log import read_request_log
from raytrain.monitoring.drift.rows import Rows, read_table
from raytrain.monitoring.drift.section import WatchSection
from raytrain.monitoring.drift.texts import as_text
from raytrain.storage.artifact import Artifact
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location

_SEED = 0


@dataclass(frozen=True)
class FrozenReference:
    """What was frozen, and what is worth knowing of it."""

    artifact: Artifact
    reference: Reference
    notes: tuple[str, ...]


def reference_place(section: WatchSection) -> Location:
    return section.storage.location / "drift" / section.watch / "reference"


def read_rows(section: WatchSection, now: float, since: float | None = None) -> Rows:
    """Raises DataError where `rows` names nothing; a log that is not there is told in notes.

    since: rows of a log up to then are not needed.
    """
    if section.rows is not None:
        return read_table(section.rows, section.time, now)
    folder = Path(section.log) if section.log else raytrain_home() / "serving" / "requests"
    return read_request_log(folder, section.model, now, since)


def freeze(
    section: WatchSection,
    *,
    now: float,
    replace: bool = False,
    since: float | None = None,
    most: int | None = None,
) -> FrozenReference:
    """Of all rows that there are, or of so many as are kept, drawn by a fixed seed.

    since: seconds since the epoch; rows up to then are left out. most: of those after it, the first so many.

    Raises DataError where there are none to freeze; IntegrityError where another reference is there already.
    """
    rows = _after(read_rows(section, now, since), since, most)
    num_seen, ends_at = len(rows), None if rows.times is None or not len(rows) else float(rows.times[-1])
    if num_seen < 2:
        raise DataError(
            f"there is nothing to freeze: {num_seen} rows",
            why="; ".join(rows.notes) or "the source is empty",
            fix="let requests come first, or name a table with `rows=FILE`",
        )
    rows, notes = _drawn(rows, section)
    kinds = {**rows.kinds, **section.columns}
    holding = {name: cells for name, cells in rows.columns.items() if any(x is not None for x in cells)}
    empty = sorted(rows.columns.keys() - holding.keys())
    if empty:
        notes.append(f"columns without a value are left out: {', '.join(empty)}")
    asked = {name: kind for name, kind in kinds.items() if name not in empty}
    features, left_out = choose_features(holding, asked, with_embedding=section.embedding_model is not None)
    if not features:
        raise DataError(
            "there is nothing to measure in these rows",
            why="; ".join(left_out) or "no column holds a value",
            fix="say under `columns` what they hold",
        )
    embed = embedder_of(section, section.embedding_model)
    columns = measure_features(holding, features, embed)
    texts = {one.column for one in features if one.measure == "vocabulary"}
    frozen = Frozen(
        features=features,
        begins_at=None if rows.times is None else float(rows.times[0]),
        ends_at=ends_at,
        words={name: words_to_keep([as_text(one) for one in holding[name]]) for name in sorted(texts)},
        embedding_model=section.embedding_model,
        known_columns=sorted(holding),
        num_seen=num_seen,
        notes=[*notes, *left_out],
    )
    config = section.model_dump(mode="json")
    artifact = write_reference(reference_place(section), columns, frozen, config, replace=replace)
    return FrozenReference(artifact, open_reference(reference_place(section)), tuple(frozen.notes))


def _after(rows: Rows, since: float | None, most: int | None) -> Rows:
    if rows.times is None or (since is None and most is None):
        return rows
    first = 0 if since is None else int(np.searchsorted(rows.times, since, side="right"))
    return rows.take(range(first, len(rows))[:most])


def _drawn(rows: Rows, section: WatchSection) -> tuple[Rows, list[str]]:
    """As many as are kept, and what is worth knowing of that."""
    notes, num_seen = list(rows.notes), len(rows)
    if num_seen > section.most_reference_rows:
        drawn = np.random.default_rng(_SEED).choice(num_seen, section.most_reference_rows, replace=False)
        rows = rows.take(np.sort(drawn))
        notes.append(f"{len(rows):,} of {num_seen:,} rows are kept, drawn at random")
    if section.window.rows is not None and section.window.rows * 3 > len(rows):
        notes.append(
            f"the reference is small: {len(rows):,} rows beside windows of {section.window.rows:,}. What is odd in it "
            "is odd in each comparison, so that over many windows the rate of false alarms may be another; ten times "
            "a window's rows are a good size"
        )
    return rows, notes


def embedder_of(section: WatchSection, reference: str | None) -> Embed | None:
    """None where no model is asked for."""
    return None if reference is None else load_embedder(reference, section.storage.location)
