"""Approvals: signed statements that one bundle may become one alias under one policy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from raytrain.errors import PlatformError
from raytrain.release.gate.about import About
from raytrain.release.gate.authority import check_speaks_for
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.rules import Approval, Refused
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.shelf import Shelf
from raytrain.release.signing import verify
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import short_digest

APPROVAL_KIND = "approval"
_FILE = "statement.json"
_UNNAMED = ""


@dataclass(frozen=True)
class Statement:
    """What is signed: for nothing else than this does the approval count."""

    name: str
    """Of the release."""
    bundle: str
    subject: str
    target: str
    policy: str
    """Digest of the policy."""
    role: str
    key: str
    """Id of the key that signs."""
    why: str


def statement_of(
    name: str, about: About, policy: Policy, target: str, role: str, key: SigningKey, why: str
) -> Statement:
    """Raises ConfigError where policy, target or role do not fit, RefusedError where the key does not speak for the
    role."""
    policy.target(target)
    check_speaks_for(policy, role, key.public)
    return Statement(name, about.bundle, about.subject, target, policy.digest, role, key.public.id, why)


def write_approval(shelf: Shelf, statement: Statement, key: SigningKey, ring: KeyRing) -> Artifact:
    """Write and sign a statement."""
    text = json.dumps(asdict(statement), indent=1, sort_keys=True, ensure_ascii=False)
    return shelf.put(
        APPROVAL_KIND,
        lambda place: _write(place / _FILE, text),
        key,
        ring,
        parents={"bundle": statement.bundle, "subject": statement.subject},
    )


def _write(place: Path, text: str) -> None:
    place.write_text(text + "\n", encoding="utf-8")


def read_approvals(
    shelf: Iterable[Path], named: Iterable[Path], ring: KeyRing, wanted: Statement
) -> tuple[tuple[Approval, ...], tuple[Refused, ...]]:
    """Those that count for `wanted` (by any role and key), and why others do not. On the shelf of a name also lie
    those about its other versions and targets, which nobody needs to hear of."""
    counted: dict[tuple[str, str], Approval] = {}
    refused: list[Refused] = []
    by_name = list(named)
    for folder in dict.fromkeys([*by_name, *shelf]):
        told = _read(folder, ring, wanted)
        if isinstance(told, Approval):
            counted.setdefault((told.role, told.key_id), told)
        elif folder in by_name or not told.elsewhere:
            refused.append(told.refused)
    return tuple(counted.values()), tuple(refused)


@dataclass(frozen=True)
class _NotCounted:
    refused: Refused
    elsewhere: bool = False
    """It is in order, about something else."""


def _read(folder: Path, ring: KeyRing, wanted: Statement) -> Approval | _NotCounted:
    name = folder.name[:12]
    try:
        signed = verify(folder, ring)
        told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        statement = Statement(**{"name": _UNNAMED, **told})
    except PlatformError as error:
        return _NotCounted(Refused(name, error.why))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return _NotCounted(Refused(name, f"it cannot be read: {error}"))
    key = signed.key
    if statement.key != key.id:
        return _NotCounted(Refused(f"{name} by {key.name}", f"it names another key: {statement.key[:12]}"))
    for field, words in _ABOUT.items():
        theirs, ours = getattr(statement, field), getattr(wanted, field)
        if theirs != ours:
            why = f"{words}: {short_digest(str(theirs))}, not {short_digest(ours)}"
            return _NotCounted(Refused(f"{name} by {key.name}", why), elsewhere=field in ("bundle", "target"))
    if statement.name != wanted.name:
        why = "an older raytrain wrote it, without the name of what it is for: approve again"
        if statement.name != _UNNAMED:
            why = f"it is about another name: {statement.name}, not {wanted.name}"
        return _NotCounted(Refused(f"{name} by {key.name}", why))
    return Approval(statement.role, key.id, key.name, signed.artifact.digest, statement.why)


_ABOUT = {
    "bundle": "it is about another bundle",
    "target": "it is about another target",
    "policy": "it was given under another policy",
    "subject": "it is about another subject",
}
