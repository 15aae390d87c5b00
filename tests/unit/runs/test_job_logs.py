"""A job's log as it grows, over breaks of the connection. With a real cluster: tests/integration/test_submit.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from raytrain.cluster.token import wrong_token
from raytrain.errors import ClusterError
from raytrain.runs import job_logs
from raytrain.runs.job_logs import follow, follow_command, stop_command


class Cluster:
    """Plays its states and logs one after the other, as Ray's client tells them; an exception breaks the connection."""

    def __init__(
        self, states: Sequence[Any], tails: Sequence[Sequence[Any]], code: int | None = None
    ) -> None:
        self._states, self._tails, self._code = list(states), list(tails), code

    def get_job_info(self, _: str) -> SimpleNamespace:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(status=state, driver_exit_code=self._code, message="as it says")

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        for part in self._tails.pop(0) if self._tails else []:
            if isinstance(part, Exception):
                raise part
            yield part

    def get_address(self) -> str:
        return "http://head:8265"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "_POLL_S", 0.0)


@pytest.mark.parametrize(
    ("states", "tails"),
    [
        (["RUNNING", "SUCCEEDED"], [["one\n", "two\n"]]),
        (["PENDING", "PENDING", "RUNNING", "SUCCEEDED"], [["one\n", "two\n"]]),
        (["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"], [["one\n"], ["one\ntwo\n"]]),
        (["RUNNING", "RUNNING", "SUCCEEDED"], [["one\nt", RuntimeError("cut")], ["on", "e\ntw", "o\n"]]),
        ([ConnectionError("away"), "RUNNING", "SUCCEEDED"], [["one\n", "two\n"]]),
        (["SUCCEEDED"], [["one\n", "two\n"]]),
    ],
)
def test_every_line_once(states: list[Any], tails: list[list[Any]]) -> None:
    written: list[str] = []
    end = follow(Cluster(states, tails), "job", written.append)
    assert ("".join(written), end.status, end.exit_code) == ("one\ntwo\n", "SUCCEEDED", 0)


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [("FAILED", 3, 3), ("FAILED", -9, 137), ("FAILED", None, 4), ("STOPPED", None, 143), ("SUCCEEDED", 0, 0)],
)
def test_it_ends_as_the_command_does(status: str, code: int | None, exit_code: int) -> None:
    assert follow(Cluster([status], [], code), "job", print).exit_code == exit_code


def test_a_cluster_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "_SILENT_FOR_S", 0.2)
    with pytest.raises(ClusterError, match="has not answered") as caught:
        follow(Cluster([ConnectionError("nobody there")], []), "job-1", print)
    assert "nobody there" in caught.value.why
    assert "ray job logs job-1 --follow --address http://head:8265" in caught.value.fix


def test_a_token_that_is_refused_later_is_told_at_once() -> None:
    refused = wrong_token("http://head:8265", is_missing=False)
    started = time.monotonic()
    with pytest.raises(ClusterError, match="refuses the token"):
        follow(Cluster([refused], []), "job-1", print)
    assert time.monotonic() - started < 30.0


def test_the_commands_that_are_told_are_commands_of_ray() -> None:
    from click import Command
    from ray.dashboard.modules.job.cli import job_cli_group

    client = Cluster(["RUNNING"], [])
    for told in (follow_command(client, "job-1"), stop_command(client, "job-1")):
        program, group, name, *words = told.split()
        assert (program, group) == ("ray", "job")
        command = job_cli_group.commands[name]
        assert isinstance(command, Command)
        assert command.make_context(name, words).params["job_id"] == "job-1"
