"""What has learned from a user's rows: a walk from the runs that used them to all that was made from those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.release.registry.registry import Registry
from raytrain.runs import artifact_index
from raytrain.storage.database import translated_database_errors


@dataclass(frozen=True)
class AffectedVersion:
    """`aliases` say whether it answers now."""

    name: str
    version: str
    digest: str
    aliases: list[str]


@dataclass(frozen=True)
class Forgotten:
    """Digests by kind are of whatever was made by those runs, or from it, near or far."""

    users: list[str]
    """The pseudonyms that were looked for."""
    num_rows: int
    run_ids: list[str]
    """That kept rows of the user, whether they succeeded or still may."""
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    versions: list[AffectedVersion] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def forget(users: Sequence[str], pool: InteractionPool, registry: Registry) -> Forgotten:
    """Take a user's words out of the pool, and tell what has learned from them. Nothing else is changed.

    users: pseudonyms that the request log may have of one. Called again it tells the same.
    """
    rows = [row for user in users for row in pool.forget(user)]
    run_ids = sorted({row.run_id for row in rows if row.run_id is not None})
    touched: set[str] = set()
    with translated_database_errors(pool.engine), pool.engine.connect() as connection:
        for run_id in run_ids:
            uses = artifact_index.uses_of_run(connection, run_id)
            touched |= {use.digest for use in uses if use.kind == "dataset" or use.direction == "written"}
        known = artifact_index.all_artifacts(connection)
    touched |= descendants(touched, {digest: made_from for digest, (_, made_from) in known.items()})
    by_kind: dict[str, list[str]] = {}
    for digest in sorted(touched & known.keys()):
        by_kind.setdefault(known[digest][0], []).append(digest)
    return Forgotten(list(users), len(rows), run_ids, by_kind, list(_versions(registry, touched)))


def pseudonyms_of(user: str) -> list[str]:
    """What the request log may have in the place of a user: itself too where it looks like one. A name may, as well."""
    return [pseudonym(user), *([user] if re.fullmatch(r"[0-9a-f]{32}", user) else [])]


def descendants(roots: Iterable[str], parents: Mapping[str, Mapping[str, str]]) -> set[str]:
    """All that was made from these, or from what was. parents: by digest, what each was made from, by its role."""
    children: dict[str, set[str]] = {}
    for digest, made_from in parents.items():
        for parent in made_from.values():
            children.setdefault(parent, set()).add(digest)
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), set()) - found:
            found.add(child)
            waiting.append(child)
    return found


def _versions(registry: Registry, touched: set[str]) -> Iterable[AffectedVersion]:
    for name, state in sorted(registry.states().items()):
        for version, released in sorted(state.versions.items()):
            if touched & {released.digest, *released.made_from.values()}:
                aliases = sorted(alias for alias, to in state.aliases.items() if to == version)
                yield AffectedVersion(name, str(version), released.digest, aliases)
