"""A database that is away for a while."""

from __future__ import annotations

import pytest

from raytrain.errors import ConfigError, StorageError
from raytrain.runs.queue import patience
from raytrain.runs.queue.patience import patiently


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TRY_EVERY_S", 0.001)


class Database:
    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures

    def ask(self) -> str:
        if self.num_failures > 0:
            self.num_failures -= 1
            raise StorageError("the database does not answer", why="it is started anew", fix="wait")
        return "an answer"


def test_it_is_asked_until_it_answers() -> None:
    lines: list[str] = []
    assert patiently(Database(3).ask, lines.append) == "an answer"
    assert lines == ["tried again in 0 s: the database does not answer (it is started anew)"] * 3


def test_not_for_ever_and_no_longer_than_anybody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patiently(Database(10**9).ask, print, lambda: True) is None
    monkeypatch.setattr(patience, "TRY_FOR_S", 0.05)
    with pytest.raises(StorageError):
        patiently(Database(10**9).ask, lambda _: None)


def test_other_errors_are_not_waited_for() -> None:
    def ask() -> None:
        raise ConfigError("no", why="it is wrong", fix="mend it")

    with pytest.raises(ConfigError):
        patiently(ask, print)
