"""Who takes part in a trial. Pure: the same caller always does, or never."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from raytrain.serving.trials.section import TrialSection

_BITS = 64


def trial_of(model: str, trials: Sequence[TrialSection]) -> TrialSection | None:
    """Of a bare name alone: an alias or a version is asked for because that one is wanted."""
    return next((one for one in trials if one.name == model), None)


def caller_of(user: str | None, request_id: str) -> str:
    """Whoever asks, told apart from others and not known by it: `user` of the request, else the request itself."""
    named = f"user {user}" if user else f"request {request_id}"
    return hashlib.sha256(named.encode(errors="replace")).hexdigest()[:16]


def takes_part(trial: TrialSection, caller: str) -> bool:
    """By SHA-256 over name, candidate and caller: its first 64 bits, as a share of all, lie below the trial's share.

    Whoever takes part still does when the share grows; another candidate gets other callers.
    """
    text = f"{trial.name}\n{trial.candidate}\n{caller}"
    drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[: _BITS // 8], "big")
    return drawn < trial.share * 2.0**_BITS
