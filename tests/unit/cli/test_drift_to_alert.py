"""From what a server is asked to a message in a channel, by the commands as they are typed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from alert_receivers import Hook, hook
from answering_backends import ToldBackend, listening

from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.slow

WATCH = """\
watch: served
model: helper
window: {rows: 60, settle_s: 0}
permutations: 199
columns: {first_piece_s: ignore, duration_s: ignore}  # this machine has other things to do as well
"""
TRIGGERS = (
    "triggers: loop\nwatch: served\nwhen: {drift: {metric: drift/score, above: 1}}\ncooldown_hours: 0\n"
)


def told(*words: str) -> tuple[int, dict[str, Any]]:
    """By a process of its own: a server that writes its access log beside is no part of what it prints."""
    command = [sys.executable, "-m", "raytrain", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return ended.returncode, json.loads(ended.stdout)


def of_sums(draw: random.Random) -> str:
    return f"Please add {draw.randint(100, 999)} and {draw.randint(100, 999)} for me."


def of_weather(draw: random.Random) -> str:
    town = draw.choice(["Bremen", "Kiel", "Mainz", "Ulm"])
    return f"Kannst du mir bitte noch sagen, wie das Wetter am Abend des {draw.randint(1, 28)}. Mai in {town} wird?"


def serve(num: int, prompt: Callable[[random.Random], str], seed: int) -> None:
    """A server of this machine is asked so many things, and ends."""
    draw = random.Random(seed)
    section = HttpSection(insecure=True, request_log={"share": 1.0})  # type: ignore[arg-type]
    with (
        listening(build_app(ToldBackend(pieces=["It is", " nine."]), section)) as url,
        requests.Session() as client,
    ):
        client.trust_env = False
        for _ in range(num):
            body = {"model": "helper", "prompt": prompt(draw)}
            answer = client.post(f"{url}/v1/completions", json=body, timeout=30)
            assert answer.status_code == 200, answer.text


@pytest.fixture
def channel(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """Where the alerts file sends what there is to tell."""
    for name in [one for one in os.environ if one.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    home.mkdir(parents=True, exist_ok=True)
    (home / "alerts.yaml").write_text("webhooks: [{name: team, url_env: TEAM_URL, at_least: info}]\n")
    with hook() as found:
        monkeypatch.setenv("TEAM_URL", found.url)
        yield found


def test_what_is_asked_drifts_and_the_team_is_told_once(channel: Hook) -> None:
    Path("watch.yaml").write_text(WATCH)
    Path("loop.yaml").write_text(TRIGGERS)
    serve(200, of_sums, seed=0)
    code, frozen = told("watch", "freeze", "watch.yaml")
    assert code == 0 and frozen["num_rows"] == 200
    assert told("alerts", "watch", "--once")[0] == 0

    serve(60, of_sums, seed=1)
    code, found = told("watch", "run", "watch.yaml")
    assert (code, found["num_judged"], found["alarms"]) == (0, 1, [])
    assert told("triggers", "decide", "loop.yaml")[1]["order"] is None
    assert told("alerts", "watch", "--once")[1]["raised"] == 0 and channel.bodies == []

    serve(60, of_weather, seed=2)
    code, found = told("watch", "run", "watch.yaml")
    (report,), (alarm,) = found["reports"], found["alarms"]
    assert (code, found["num_judged"]) == (5, 2) and alarm.startswith("window 2: ")
    assert told("alerts", "watch", "--once")[1]["sent"] == 2, "to the channel, and to alerts.jsonl"
    (body,) = channel.bodies
    assert (body["kind"], body["severity"], body["subject"]) == ("drift", "warning", found["run_id"])
    assert body["title"] == f"drift in {found['run_id']}, window 2"
    assert body["details"]["report"] == report["digest"], "it names the report that shows what moved"
    assert "prompt: " in body["text"] and "prompt: " in alarm, "and says it"

    code, decided = told("triggers", "decide", "loop.yaml")
    assert decided["order"]["reasons"] == ["drift/score above 1: in an event since window 2"]
    told("alerts", "watch", "--once")
    assert [one["kind"] for one in channel.bodies] == ["drift", "retraining"]

    code, found = told("watch", "run", "watch.yaml")
    assert (code, found["reports"]) == (0, []), "each window is judged once"
    assert told("triggers", "decide", "loop.yaml")[1]["order"] is None
    assert told("alerts", "watch", "--once")[1]["raised"] == 0
    assert len(channel.bodies) == 2, "nothing is told twice"
