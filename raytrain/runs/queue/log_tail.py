"""The end of a log, as the database keeps it."""

from __future__ import annotations

from pathlib import Path

MOST_LINES, MOST_BYTES = 40, 8000


def tail_of(log: Path) -> str | None:
    """None where there is no log."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - MOST_BYTES))
            return last_lines(stream.read().decode("utf-8", "replace"))
    except OSError:
        return None


def last_lines(text: str) -> str:
    """PostgreSQL keeps no NUL in a text."""
    lines = text[-MOST_BYTES:].replace("\0", "").splitlines()
    return "\n".join(lines[-MOST_LINES:])
