"""Reading a dataset artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from raytrain.errors import DataError
from raytrain.storage.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def dataset_schema() -> pa.Schema:
    """Columns of train.parquet, val.parquet and test.parquet; each row has messages, prompt or text."""
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    return pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("messages", pa.list_(message)),
            pa.field("prompt", pa.string()),
            pa.field("completion", pa.string()),
            pa.field("text", pa.string()),
            pa.field("source", pa.string(), nullable=False),
            pa.field("line", pa.int64(), nullable=False),
            pa.field("num_chars", pa.int32(), nullable=False),
            pa.field("quality", pa.float32(), nullable=False),
        ]
    )


def read_split(artifact: Artifact, split: Split) -> pa.Table:
    """One split of a dataset artifact, whole; it may have no rows.

    Raises DataError where the artifact is no dataset.
    """
    import pyarrow.parquet as pq

    place = artifact.path / f"{split}.parquet"
    if artifact.kind != "dataset" or not place.is_file():
        raise DataError(
            f"{artifact.location} has no {split} split",
            why=f"it is a {artifact.kind}"
            if artifact.kind != "dataset"
            else f"there is no {place.name} in it",
            fix="give a dataset made by `raytrain data prepare`",
        )
    return pq.read_table(place)


def row_as_canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that hold what is learnt: messages, or prompt and completion, or text."""
    if row.get("messages") is not None:
        return {"messages": [{"role": one["role"], "content": one["content"]} for one in row["messages"]]}
    if row.get("text") is not None:
        return {"text": row["text"]}
    return {"prompt": row["prompt"], "completion": row["completion"]}
