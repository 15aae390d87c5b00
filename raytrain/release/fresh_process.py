"""What processes that try out a model by themselves are started with, and what is told of those that fail."""

from __future__ import annotations

import os


def offline_surroundings() -> dict[str, str]:
    """This process's environment, in which no hub is asked: what is tried is what lies here."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def last_words(code: int, stderr: str) -> str:
    """Why a process ended with this code, as it says itself."""
    lines = [one for one in stderr.splitlines() if one.strip()]
    said = lines[-1].strip()[:300] if lines else "it said nothing"
    return f"a signal {-code} ended it: {said}" if code < 0 else said
