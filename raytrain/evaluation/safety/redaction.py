"""Texts without what detectors find in them, and users without their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from raytrain.evaluation.safety.findings import Detector, outermost, scan

UNSURE = "[not kept: a detector failed]"


def without_personal_data(text: str, detectors: Mapping[str, Detector]) -> str:
    """Each finding's place is taken by its kind. Where a detector failed nothing of the text is told."""
    found = scan(text, detectors)
    if found.failures:
        return UNSURE
    parts, end = [], 0
    for one in outermost(found.findings):
        parts += [text[end : one.start], f"[{one.kind}]"]
        end = one.end
    return "".join([*parts, text[end:]])


def number_of_token_ids(ids: Sequence[int]) -> str:
    """What stands for a prompt of token ids: no detector reads them, and any tokenizer makes a text of them again."""
    return f"{len(ids)} token ids"


def is_number_of_token_ids(prompt: str) -> bool:
    return re.fullmatch(r"[0-9]+ token ids", prompt) is not None


def pseudonym(user: str) -> str:
    """What stands for a `user` in the log: whoever knows the name finds its rows, and nobody reads it there."""
    return hashlib.sha256(f"raytrain user\0{user}".encode()).hexdigest()[:32]
