"""A user's rows out of the request log: each file is written anew without them, in one rename."""

from __future__ import annotations

from pathlib import Path

from raytrain.errors import StorageError
from raytrain.storage.location import write_atomically


def delete_from_log(folder: Path, user: str) -> int:
    """How many rows are gone: requests of the user, and the feedback on them. user: the log's pseudonym.

    Raises StorageError where a file cannot be read: it may hold some of them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    num_gone, request_ids = 0, set[str]()
    for kind in ("requests", "feedback"):
        for path in sorted(folder.glob(f"{kind}-*.parquet")):
            try:
                table = pq.ParquetFile(path).read()
            except (OSError, pa.ArrowException, ValueError) as error:
                raise StorageError(
                    f"{path} cannot be read",
                    why=f"{type(error).__name__}: {error}",
                    fix="it may hold rows of this user: delete the file, then type this once more",
                ) from error
            if kind == "requests":
                if "user" not in table.column_names:
                    continue  # from before the log knew users
                theirs = pc.equal(table["user"], user)
            else:
                theirs = pc.is_in(table["request_id"], pa.array(sorted(request_ids), pa.string()))
            theirs = pc.fill_null(theirs, False)
            found = pc.sum(theirs).as_py() or 0
            if not found:
                continue
            if kind == "requests":
                request_ids |= set(table.filter(theirs)["request_id"].to_pylist())
            num_gone += found
            _rewrite(path, table.filter(pc.invert(theirs)))
    return num_gone


def _rewrite(path: Path, table: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    write_atomically(path, content.getvalue().to_pybytes())
