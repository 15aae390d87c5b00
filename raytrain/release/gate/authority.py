"""Whose key may do what, by a policy."""

from __future__ import annotations

from raytrain.errors import RefusedError
from raytrain.release.gate.policy import Policy, is_among
from raytrain.release.keys import PublicKey


def check_promotes(policy: Policy, to: str, key: PublicKey) -> None:
    """Raises RefusedError where the policy names who promotes, and not this key."""
    roles = policy.target(to).promoted_by
    if roles and not any(is_among(policy.keys_of(one), key.name, key.id) for one in roles):
        raise RefusedError(
            f"{key.name} may not let anything into {to}",
            why=f"the policy {policy.section.policy} lets {', '.join(roles)} do so",
            fix="let one of these sign, or change `promoted_by` in the policy",
        )


def check_speaks_for(policy: Policy, role: str, key: PublicKey) -> None:
    """Raises RefusedError where the policy does not give this key the role."""
    keys = policy.keys_of(role)
    if not is_among(keys, key.name, key.id):
        raise RefusedError(
            f"{key.name} does not speak for {role}",
            why=f"the policy {policy.section.policy} gives that role to {', '.join(keys)}",
            fix="let one of these sign, or change `roles` in the policy",
        )
