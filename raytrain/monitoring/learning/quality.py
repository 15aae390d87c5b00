"""How good an interaction is to learn from, 0 to 1: the product of named signals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from raytrain.data.quality import line_signal, word_signal
from raytrain.monitoring.learning.interaction import Interaction

Format = Literal["text", "json"]

UNRATED = 0.5
"""Of an answer that nobody judged: what a model wrote is no truth by itself."""
_CUT_OFF = 0.2
_MOSTLY = 0.8


@dataclass(frozen=True)
class Quality:
    """`signals` by their names; `score` is their product."""

    score: float
    signals: dict[str, float]

    @property
    def weakest(self) -> str:
        """The name of the lowest signal."""
        return min(self.signals, key=self.signals.__getitem__)


def quality_of(interaction: Interaction, expected: Format) -> Quality:
    """expected: the form that answers have here, as `usual_format` finds it."""
    signals = {name: signal(interaction, expected) for name, signal in SIGNALS.items()}
    score = 1.0
    for one in signals.values():
        score *= one
    return Quality(round(score, 4), signals)


def feedback_signal(interaction: Interaction, _expected: Format) -> float:
    """1 for a correction or a thumb up, 0 for a thumb down without a correction, one half for silence."""
    if interaction.correction is not None or interaction.rating == "up":
        return 1.0
    return 0.0 if interaction.rating == "down" else UNRATED


def completeness_signal(interaction: Interaction, _expected: Format) -> float:
    """1 for an answer that came to its end, or was corrected; little where a limit cut it; 0 where it broke off."""
    if interaction.correction is not None or interaction.finish == "stop":
        return 1.0
    return _CUT_OFF if interaction.finish == "length" else 0.0


def coherence_signal(interaction: Interaction, _expected: Format) -> float:
    """Less where words or lines repeat, as in the data card; 0 where nothing is said or characters are broken."""
    text = interaction.target
    if not text.strip() or "\ufffd" in text:
        return 0.0
    return word_signal(text) * line_signal(text)


def format_signal(interaction: Interaction, expected: Format) -> float:
    """1 where the answer has the form that answers have here, else 0."""
    return 1.0 if expected == "text" or is_json(interaction.target) else 0.0


SIGNALS: dict[str, Callable[[Interaction, Format], float]] = {
    "feedback": feedback_signal,
    "completeness": completeness_signal,
    "coherence": coherence_signal,
    "format": format_signal,
}


def usual_format(targets: Sequence[str]) -> Format:
    """json where four of five known answers are JSON objects or lists; text where none are known."""
    if not targets:
        return "text"
    return "json" if sum(map(is_json, targets)) / len(targets) >= _MOSTLY else "text"


def is_json(text: str) -> bool:
    """An object or a list, and nothing beside it."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
