"""A user's rows out of the request log: each file is written anew without them, in one rename.

Feedback knows its user where the process that took it had answered. Else it is found by its request, whose ids are
found before anything is deleted, and noted beside the log: so are what a server had not written yet, and what a call
that was killed had not come to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import StorageError
from raytrain.storage.location import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa


def delete_from_log(folder: Path, users: Sequence[str]) -> int:
    """How many rows are gone: requests of the user, and the feedback on them. users: the log's pseudonyms for one.

    Raises StorageError where a file cannot be read: it may hold some of them, and nothing is deleted.
    """
    requests, feedback = (sorted(folder.glob(f"{kind}-*.parquet")) for kind in ("requests", "feedback"))
    asked = {one for user in users for one in _noted(folder, user, requests)}
    for path in feedback:
        _read(path, _WHOSE)

    def is_theirs(request_id: Any, key: Any, user: Any) -> bool:
        return user in users or (user is None and _digest(request_id, key) in asked)

    num_gone = sum(_rewritten(path, is_theirs) for path in feedback)
    return num_gone + sum(_rewritten(path, lambda _id, _key, user: user in users) for path in requests)


_WHOSE = ("request_id", "key", "user")


def _noted(folder: Path, user: str, requests: Sequence[Path]) -> set[str]:
    """Digests of the ids of a user's requests: those that earlier calls have noted, too."""
    place = folder / f"forgotten-{user}.json"
    try:
        known = set(json.loads(place.read_text(encoding="utf-8"))) if place.exists() else set()
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(place, error) from error
    rows = (row for path in requests for row in _whose(_read(path, _WHOSE)))
    found = known | {_digest(request_id, key) for request_id, key, whose in rows if whose == user}
    if found != known:
        write_atomically(place, json.dumps(sorted(found)).encode())
    return found


def _digest(request_id: Any, key: Any) -> str:
    return hashlib.sha256(json.dumps([str(request_id), key], default=str).encode()).hexdigest()[:32]


def _rewritten(path: Path, is_theirs: Callable[[Any, Any, Any], bool]) -> int:
    """How many rows are gone from a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _read(path)
    stays = [not is_theirs(*one) for one in _whose(table)]
    if all(stays):
        return 0
    content = pa.BufferOutputStream()
    pq.write_table(table.filter(pa.array(stays, pa.bool_())), content)
    write_atomically(path, content.getvalue().to_pybytes())
    return stays.count(False)


def _whose(table: pa.Table) -> list[tuple[Any, Any, Any]]:
    """Request, key and user of each row; None where a file of before does not say."""
    columns = [
        table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in _WHOSE
    ]
    return list(zip(*columns, strict=True))


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read(columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} cannot be read",
        why=f"{type(error).__name__}: {error}",
        fix="it may hold rows of this user: delete the file, then type this once more",
    )
