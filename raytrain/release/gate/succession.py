"""Whether one policy may take another's place: only by somebody whom the one before it lets, and never unseen."""

from __future__ import annotations

from collections.abc import Sequence

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.gate.authority import check_speaks_for
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.record import PROMOTION_KIND, PolicyChange
from raytrain.release.gate.recorded import Recorded, kind_of_move, read_record
from raytrain.release.gate.turn import OLDER, turn_of, unlike
from raytrain.release.keys import PublicKey
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import short_digest


def last_promotion(
    registry: Registry, name: str, alias: str, entries: Sequence[Entry], *, version: str | None = None
) -> Recorded | None:
    """By which the alias last came somewhere, or to this version, through the gate: its policy is the alias's. One that
    is damaged, gone or for another move is passed over, for `raytrain registry audit` to tell; whose key signed it is
    asked where something is loaded.

    entries: of the journal, from the first on. Raises StorageError where one cannot be read: that it was no promotion
    is not known then.
    """
    shelf = shelf_of(registry, name, "records")
    for move in reversed(entries):
        if not move.moves(alias) or (version is not None and move.details["version"] != version):
            continue
        if kind_of_move(registry, name, move) == PROMOTION_KIND:
            digest = str(move.details["decision"])
            try:
                with translated_errors(Location(shelf.place), "read"):
                    place = shelf.store.open_bundle(shelf.name, digest.removeprefix("sha256:"))
                    found = read_record(open_artifact(Location(str(place))))
            except IntegrityError:
                continue
            if _is_for(found, name, move, entries):
                return found
    return None


def _is_for(found: Recorded, name: str, move: Entry, entries: Sequence[Entry]) -> bool:
    """An older record lets nothing in, but under which policy the alias was is known by it, once."""
    why = unlike(found.turn, turn_of(name, move, entries))
    earlier = (one.details.get("decision") for one in entries[: move.number - 1])
    return not why or (why == OLDER and move.details["decision"] not in earlier)


def changed_policy(
    before: Recorded | None, policy: Policy, to: str, speaker: PublicKey | None, said: tuple[str | None, str]
) -> PolicyChange | None:
    """None where the alias stays under the policy that it was last moved under, or never was moved.

    said: role (None where nobody speaks of a change) and reason. Raises RefusedError where nobody says that the policy
    is another, or somebody who may not; ConfigError where no reason is given.
    """
    if before is None or before.policy.digest == policy.digest:
        return None
    role, why = said
    old = f"{before.policy.title} ({short_digest(before.policy.digest)})"
    roles = _who_changes(before.policy, to)
    if role is None or speaker is None:
        who = f"--role {' or '.join(roles)} " if roles else ""
        raise RefusedError(
            f"{to} is under another policy than {policy.title} ({short_digest(policy.digest)})",
            why=f"it was last moved under {old}",
            fix=f"name that one with --policy; or raytrain promote --change-policy {who}--why TEXT: it is kept",
        )
    _check_changes(before.policy, to, role, speaker)
    if not why.strip():
        raise ConfigError("another policy needs a reason", why="none is given", fix="say --why TEXT")
    return PolicyChange(
        before.policy_digest, before.policy.title, role, speaker.id, speaker.name, why.strip()
    )


def check_succession(before: Recorded | None, recorded: Recorded, signer: PublicKey) -> None:
    """before: the promotion to this alias before this one. Raises RefusedError where the policy is another since, and
    the record does not say by whom, or by somebody who may not."""
    if before is None or before.policy.digest == recorded.policy.digest:
        return
    change, old = recorded.policy_change, before.policy.title
    if change is None or change.before != before.policy_digest or change.key != signer.id:
        raise RefusedError(
            f"the record {recorded.digest} is under another policy than the one before it",
            why=f"{recorded.policy.title} instead of {old}, and its signer does not say so",
            fix="promote under the policy from before, or with --change-policy; find out who moved it",
        )
    _check_changes(before.policy, recorded.target, change.role, signer)


def _who_changes(policy: Policy, to: str) -> list[str]:
    """Roles: whoever may set the gate aside may set another; else any that the policy knows. None = any key."""
    return policy.target(to).override_by or [one.role for one in policy.section.roles]


def _check_changes(policy: Policy, to: str, role: str, key: PublicKey) -> None:
    roles = _who_changes(policy, to)
    if not roles:
        return
    if role not in roles:
        raise RefusedError(
            f"{role or 'a key without a role'} may not put another policy in the place of {policy.title}",
            why=f"that one lets {', '.join(roles)} do so",
            fix=f"say --role {' or '.join(roles)} with a key that speaks for it",
        )
    check_speaks_for(policy, role, key)
