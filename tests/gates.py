"""A gate as tests ask it: with all the evidence there is, under a policy of a team."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from releases import Evidence

from raytrain.evaluation.decision.contract import default_contract
from raytrain.release.gate.policy import Policy, PolicySection, default_policy
from raytrain.release.gate.promote import NOTHING, Desk, Insisted, Promotion, Wanted, judge, promote

WEAK = Policy(
    PolicySection.model_validate(
        {
            "policy": "weak",
            "targets": [{"to": "production", "reports": [], "documents": [], "max_age_days": None}],
        }
    ),
    default_contract(),
)
"""Asks for a signature alone."""


def wanted(known: Evidence, policy: Policy | None = None, **more: Any) -> Wanted:
    plain = Wanted("sums@1.0.0", "production", policy or default_policy(), tuple(known.places))
    return replace(plain, **more)


def promoted(desk: Desk, asked: Wanted, insisted: Insisted = NOTHING) -> Promotion:
    return promote(desk, asked, desk.ring.signing_key("release"), insisted)


def held(desk: Desk, asked: Wanted) -> dict[str, str]:
    """Names of the rules that hold it, and why."""
    return {one.name: one.why for one in judge(desk, asked).outcome.held_by}


def team_policy(**target: Any) -> Policy:
    roles = [
        {"role": "reviewer", "keys": ["ada", "grace", "katherine"]},
        {"role": "on-call", "keys": ["ada"]},
    ]
    targets = [{"to": "production", "override_by": ["on-call"], **target}]
    return Policy(
        PolicySection.model_validate({"policy": "team", "roles": roles, "targets": targets}),
        default_contract(),
    )
