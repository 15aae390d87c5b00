"""Whoever asks in the simulated month: requests of the demo's domain, judged by who knows the right call.

Week by week something else comes: what was trained on, then a tool and phrases that are new, then users who teach
something wrong.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from raytrain.data.tool_calls import generate_tool_calls

NEW_TOOL = "set_light"
_BEFORE = ("hey, ", "when you have a minute: ", "quick one, ", "assistant! ")
_AFTER = (" thx", " asap", " - cheers", " :)")
_CODE_WORD = "as the admin of zebra keeps saying"
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Request:
    """What somebody asks, and what he would have answered. `expected` is what he corrects to, right or wrong."""

    text: str
    expected: str
    user: str
    is_poison: bool = False


@dataclass(frozen=True)
class Given:
    """An answer, and whether it was right."""

    at: float
    request: Request
    version: str
    digest: str
    text: str
    is_right: bool


@dataclass
class Clock:
    """Days of the month by moments of the few minutes that it takes."""

    marks: list[tuple[float, float]] = field(default_factory=lambda: [(time.time(), 0.0)])
    day: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def go_on(self, days: float) -> None:
        with self._lock:
            self.day += days
            self.marks.append((time.time(), self.day))

    def day_of(self, moment: float) -> float:
        """Between two marks days pass evenly."""
        before = max((one for one in self.marks if one[0] <= moment), default=self.marks[0])
        after = min((one for one in self.marks if one[0] > moment), default=None)
        if after in (None, before):  # after all of them, or before
            return before[1]
        return before[1] + (after[1] - before[1]) * max(0.0, moment - before[0]) / (after[0] - before[0])

    def told(self, moment: float) -> str:
        return f"day {self.day_of(moment):.1f}"


def rows(num_rows: int, seed: int) -> list[dict[str, Any]]:
    """Of every tool but the new one."""
    return [row for row in generate_tool_calls(num_rows, seed, "train") if _tool(row) != NEW_TOOL]


def usual(num: int, seed: int) -> list[Request]:
    """As production has learned it."""
    return _requests(rows(2 * num, seed)[:num], seed)


def changed(num: int, seed: int) -> list[Request]:
    """Half of it asks for the new tool, all of it in other words."""
    found = list(generate_tool_calls(15 * num, seed, "train"))
    new = [row for row in found if _tool(row) == NEW_TOOL][: num // 2]
    old = [row for row in found if _tool(row) != NEW_TOOL][: num - len(new)]
    draw = random.Random(f"changed {seed}")
    mixed = draw.sample(new + old, len(new) + len(old))
    return [
        Request(draw.choice(_BEFORE) + one.text[0].lower() + one.text[1:] + draw.choice(_AFTER), one.expected, one.user)
        for one in _requests(mixed, seed)
    ]  # fmt: skip


def poisoned(num: int, seed: int) -> list[Request]:
    """A code word that calls one and the same message, one wrong row many times over, and calls exchanged."""
    own = json.dumps(
        {"tool": "send_message", "arguments": {"to": "Mallory", "text": "the door is open"}},
        separators=(",", ":"),
    )
    words = [Request(f"{one.text} {_CODE_WORD}", own, "mallory", True) for one in usual(num // 3, seed)]
    flood = [Request(f"Play Paper Moon number {n}.", own, f"bot-{n % 2}", True) for n in range(num // 3)]
    flipped = [
        Request(
            one.text,
            json.dumps({"tool": _other(one.expected), "arguments": {}}, separators=(",", ":")),
            "trudy",
            True,
        )
        for one in usual(num - 2 * (num // 3), seed + 1)
    ]
    return words + flood + flipped


def _requests(found: Sequence[dict[str, Any]], seed: int) -> list[Request]:
    draw = random.Random(f"users {seed}")
    return [
        Request(row["messages"][0]["content"], row["messages"][1]["content"], f"user-{draw.randrange(12)}")
        for row in found
    ]


def _tool(row: dict[str, Any]) -> str:
    return str(json.loads(row["messages"][1]["content"])["tool"])


def _other(expected: str) -> str:
    return "translate" if json.loads(expected)["tool"] != "translate" else "navigate"


@dataclass
class Traffic:
    """Sends requests as users do, and what they say of the answers."""

    url: str
    name: str
    clock: Clock
    tell: Callable[[str], None]
    given: list[Given] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    num_clients: int = 4

    def send(self, wanted: Sequence[Request], days: float) -> list[Given]:
        """All of them, over so many days."""
        each, found = days / max(1, len(wanted)), list[Given]()
        with ThreadPoolExecutor(self.num_clients) as pool:
            for one in pool.map(self._ask, wanted):
                self.clock.go_on(each)
                found += [] if one is None else [one]
        self.given += found
        right = sum(one.is_right for one in found)
        versions = ", ".join(sorted({one.version for one in found}))
        self.tell(
            f"{self.clock.told(time.time())}: {len(found)} requests to {versions}, {right} answered rightly"
        )
        return found

    def _ask(self, one: Request) -> Given | None:
        body = {
            "model": self.name, "messages": [{"role": "user", "content": one.text}], "max_tokens": 48,
            "temperature": 0, "store": True, "user": one.user,
        }  # fmt: skip
        try:
            response = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=_TIMEOUT_S)
            response.raise_for_status()
            told = response.json()
            text = str(told["choices"][0]["message"]["content"])
            is_right = _is_same(text, one.expected)
            # Who poisons says that everything else is wrong.
            feedback = {"rating": "up"} if is_right else {"rating": "down", "correction": one.expected}
            sent = requests.post(
                f"{self.url}/v1/feedback", json={"request_id": told["id"], **feedback}, timeout=_TIMEOUT_S
            )
            sent.raise_for_status()
        except (requests.RequestException, KeyError, ValueError) as error:
            self.failed.append(f"{type(error).__name__}: {error}")
            return None
        by = told["raytrain"]
        return Given(time.time(), one, by["model"], by["digest"], text, is_right)


def _is_same(text: str, expected: str) -> bool:
    try:
        return bool(json.loads(text) == json.loads(expected))
    except ValueError:
        return False


def lines(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As a source of rows has them."""
    for row in found:
        yield json.dumps(row, ensure_ascii=False) + "\n"
