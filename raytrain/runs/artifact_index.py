"""Which run read and wrote which artifact, and what each was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import sqlalchemy
from sqlalchemy import and_, func, select

from raytrain.errors import ConfigError
from raytrain.runs import tables
from raytrain.runs.record_types import ArtifactRecord, ArtifactUse, LineageNode

_USE_KEY = ("run_id", "role", "direction", "digest")


def add(connection: sqlalchemy.Connection, use: ArtifactUse, parents: Mapping[str, str] | None) -> bool:
    """False where the use was there already; its time and URI are then brought up to date."""
    know(connection, use.kind, use.digest, use.uri, parents)
    known = tables.run_artifacts.c
    same = and_(*(known[name] == getattr(use, name) for name in _USE_KEY))
    is_new = connection.execute(select(known.run_id).where(same)).first() is None
    insert_use = tables.insert_into(tables.run_artifacts, connection).values(asdict(use))
    newest = {"time": use.time, "uri": use.uri}
    connection.execute(insert_use.on_conflict_do_update(index_elements=list(_USE_KEY), set_=newest))
    return is_new


def know(
    connection: sqlalchemy.Connection,
    kind: str,
    digest: str,
    uri: str | None,
    parents: Mapping[str, str] | None,
) -> None:
    """The artifact, with the place where it was seen last."""
    insert = tables.insert_into(tables.artifacts, connection)
    changed = {"uri": func.coalesce(insert.excluded.uri, tables.artifacts.c.uri)}
    if parents:
        changed["parents"] = insert.excluded.parents
    artifact = {"digest": digest, "kind": kind, "uri": uri, "parents": dict(parents or {})}
    connection.execute(insert.values(artifact).on_conflict_do_update(index_elements=["digest"], set_=changed))


def uses_of_run(connection: sqlalchemy.Connection, run_id: str) -> list[ArtifactUse]:
    return _uses(connection, tables.run_artifacts.c.run_id == run_id)


def _uses(connection: sqlalchemy.Connection, wanted: sqlalchemy.ColumnElement[bool]) -> list[ArtifactUse]:
    columns = tables.run_artifacts.c
    names = ArtifactUse.__dataclass_fields__
    query = select(*(columns[name] for name in names)).where(wanted).order_by(columns.time)
    return [ArtifactUse(*row) for row in connection.execute(query)]


def find(connection: sqlalchemy.Connection, digest: str) -> ArtifactRecord | None:
    """The artifact with this digest, or the only one that begins so; ConfigError where several do."""
    wanted = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    columns = tables.artifacts.c
    query = select(columns.digest, columns.kind, columns.uri, columns.parents)
    found = connection.execute(
        query.where(columns.digest.startswith(wanted, autoescape=True)).limit(11)
    ).all()
    if len(found) > 1:
        listed = ", ".join(row.digest for row in found)
        raise ConfigError(f"`{digest}` fits several artifacts", why=listed, fix="give more of the digest")
    if not found:
        return None
    uses = _uses(connection, tables.run_artifacts.c.digest == found[0].digest)
    return ArtifactRecord(*found[0], uses=uses)


def all_artifacts(connection: sqlalchemy.Connection) -> dict[str, tuple[str, dict[str, str]]]:
    """Kind and parents of every artifact, by its digest."""
    columns = tables.artifacts.c
    rows = connection.execute(select(columns.digest, columns.kind, columns.parents))
    return {digest: (kind, dict(parents)) for digest, kind, parents in rows}


def lineage(connection: sqlalchemy.Connection, digest: str) -> LineageNode:
    """A walk over parents. One that is not recorded, because no run of ours wrote it, ends its branch."""
    return _walk(connection, digest, None, ())


def _walk(
    connection: sqlalchemy.Connection, digest: str, role: str | None, below: tuple[str, ...]
) -> LineageNode:
    record = find(connection, digest)
    if record is None:
        return LineageNode(digest, role, None, None, None)
    written_by = next((use.run_id for use in record.uses if use.direction == "written"), None)
    # Honest digests cannot form a circle, but a damaged table must not keep us here for ever.
    path = (*below, record.digest)
    parents = [
        _walk(connection, parent, parent_role, path)
        for parent_role, parent in sorted(record.parents.items())
        if parent not in path
    ]
    return LineageNode(record.digest, role, record.kind, record.uri, written_by, parents)
