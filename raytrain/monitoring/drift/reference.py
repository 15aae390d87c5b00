"""The frozen reference: what windows are held against, as an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raytrain.errors import DataError, IntegrityError
from raytrain.monitoring.drift.columns import Column
from raytrain.monitoring.drift.features import Feature
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

KIND = "drift_reference"
SCHEMA = 1
"""Goes up when what is measured under a feature's name changes, or how it is kept."""


@dataclass(frozen=True)
class Reference:
    """Features of the rows of then. Times are seconds since the epoch; None where rows have none."""

    artifact: Artifact
    features: tuple[Feature, ...]
    columns: tuple[Column, ...]
    begins_at: float | None
    ends_at: float | None
    words: Mapping[str, Mapping[str, int]]
    """By column of text: in how many texts each of its commonest words stands."""
    embedding_model: str | None
    known_columns: frozenset[str]
    """Columns of the rows of then that held anything, whether it was measured or not."""

    @property
    def num_rows(self) -> int:
        return len(self.columns[0])


@dataclass(frozen=True)
class Frozen:
    """What a reference tells of its rows beside their features."""

    features: Sequence[Feature]
    begins_at: float | None
    ends_at: float | None
    words: Mapping[str, Mapping[str, int]]
    embedding_model: str | None
    known_columns: Sequence[str]
    num_seen: int
    """Rows that were there, of which those kept are drawn."""
    notes: Sequence[str]


def write_reference(
    place: Location,
    columns: Sequence[Column],
    frozen: Frozen,
    config: dict[str, Any],
    *,
    replace: bool = False,
) -> Artifact:
    """Raises IntegrityError where, without `replace`, another reference is there already; StorageError where it
    cannot be written."""
    import pyarrow.parquet as pq

    with ArtifactWriter(place, kind=KIND) as writer:
        pq.write_table(_as_table(columns), writer.path / "features.parquet")
        told = {"schema": SCHEMA, "num_rows": len(columns[0]), **asdict(frozen)}
        text = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=True)
        (writer.path / "reference.json").write_text(text + "\n", encoding="utf-8")
        return writer.commit(collect_provenance(config=config), replace=replace)


def open_reference(place: Location) -> Reference:
    """Raises DataError where there is none, or it was frozen by a raytrain that measured otherwise; IntegrityError
    where it is damaged."""
    import pyarrow.parquet as pq

    if not place.exists():
        raise DataError(
            f"there is no reference at {place}",
            why="none has been frozen for this watch",
            fix="freeze one of rows that are as they should be: raytrain watch freeze",
        )
    artifact = open_artifact(place, kind=KIND)
    told = json.loads((artifact.path / "reference.json").read_text(encoding="utf-8"))
    if told.get("schema") != SCHEMA:
        raise DataError(
            f"the reference {place} has schema {told.get('schema')}",
            why=f"this raytrain measures by schema {SCHEMA}; what is kept under the same names is not the same",
            fix="freeze it again of the same rows: raytrain watch freeze --replace",
        )
    features = tuple(Feature(**one) for one in told["features"])
    table = pq.read_table(artifact.path / "features.parquet")
    if table.column_names != [one.name for one in features]:
        raise IntegrityError(
            f"the reference {place} does not have the features that it tells of",
            why=f"there are {', '.join(table.column_names)}",
            fix="freeze it again: raytrain watch freeze --replace",
        )
    columns = tuple(_from_table(one, table.column(one.name)) for one in features)
    return Reference(
        artifact=artifact,
        features=features,
        columns=columns,
        begins_at=told["begins_at"],
        ends_at=told["ends_at"],
        words=told["words"],
        embedding_model=told["embedding_model"],
        known_columns=frozenset(told["known_columns"]),
    )


def _as_table(columns: Sequence[Column]) -> Any:
    import pyarrow as pa

    found = {}
    for one in columns:
        if one.kind in ("counts", "vector"):
            flat = pa.array(np.asarray(one.values, np.float32).ravel())
            found[one.name] = pa.FixedSizeListArray.from_arrays(flat, one.values.shape[1])
        elif one.kind == "categorical":
            found[one.name] = one.values
        else:
            found[one.name] = pa.array(one.values, pa.float64())
    return pa.table(found)


def _from_table(feature: Feature, chunked: Any) -> Column:
    array = chunked.combine_chunks()
    if feature.kind in ("counts", "vector"):
        width = array.type.list_size
        return Column(feature.name, feature.kind, array.flatten().to_numpy().reshape(-1, width))
    if feature.kind == "categorical":
        return Column(feature.name, "categorical", array)
    return Column(feature.name, "numeric", array.to_numpy(zero_copy_only=False))
