"""`raytrain alerts` as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alert_receivers import Hook, free_port, hook
from commands import Told

from raytrain.runs.records import open_records

pytestmark = pytest.mark.whole


@pytest.fixture
def received(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """The webhook of the alerts file."""
    for name in [one for one in os.environ if one.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    (home / "alerts.yaml").write_text(
        "webhooks: [{name: team, format: slack, url_env: TEAM_URL}]\nwatch: {audit_every_s: 0, every_s: 1}\n"
    )
    with hook() as found:
        monkeypatch.setenv("TEAM_URL", found.url)
        yield found


def test_each_channel_is_tried(told: Told, received: Hook, home: Path) -> None:
    code, found = told("alerts", "test")
    assert code == 0 and [(one["channel"], one["arrived"]) for one in found["channels"]] == [
        ("log", True), ("team", True),
    ]  # fmt: skip
    assert "Nothing is wrong" in received.bodies[0]["blocks"][1]["text"]["text"]
    assert json.loads((home / "alerts.jsonl").read_text())["kind"] == "test"
    assert told("alerts", "list")[1]["alerts"] == [], "it is no alert"


def test_a_channel_that_does_not_take_it_ends_with_4(
    told: Told, received: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_URL", f"http://127.0.0.1:{free_port()}/secret-path-1")
    code, found = told("alerts", "test", "--channel", "team")
    assert code == 4 and found["channels"] == [
        {"channel": "team", "arrived": False, "why": "127.0.0.1 cannot be reached: Connection refused"}
    ]
    monkeypatch.delenv("TEAM_URL")
    code, found = told("alerts", "test", "--channel", "team")
    assert code == 4 and "TEAM_URL is not set" in found["channels"][0]["why"]
    code, found = told("alerts", "test", "--channel", "teem")
    assert code == 2 and found["error"]["fix"] == "did you mean `team`?"


def test_a_run_that_fails_is_told_and_listed(told: Told, received: Hook) -> None:
    assert told("alerts", "watch", "--once")[1]["raised"] == 0
    records = open_records()
    records.create_run("sums-1", kind="train", name="sums", config={})
    records.set_state("sums-1", "failed", "the loss is no number")
    records.close()
    code, found = told("alerts", "watch", "--once")
    assert (code, found["raised"], found["sent"], found["blind"]) == (0, 1, 2, [])
    assert received.bodies[0]["text"] == "[critical] train sums failed"
    code, found = told("alerts", "list")
    (alert,) = found["alerts"]
    assert alert["subject"] == "sums-1" and {one["state"] for one in alert["deliveries"]} == {"sent"}
    assert told("alerts", "list", "--state", "waiting")[1]["alerts"] == []
    assert told("alerts", "list", "--state", "wating")[1]["error"]["fix"] == "did you mean `waiting`?"
    assert told("alerts", "watch", "--once")[1]["raised"] == 0


def test_programs_of_ones_own_have_something_to_tell(told: Told, received: Hook) -> None:
    code, found = told("alerts", "send", "the pump is hot", "87 °C", "--severity", "critical")
    assert code == 0
    code, listed = told("alerts", "list")
    assert [one["id"] for one in listed["not_taken_in"]] == [found["id"]] and listed["alerts"] == []
    received.reply = lambda number: (500, "", {}) if number == 1 else (200, "", {})
    assert told("alerts", "watch", "--once")[1]["failed"] == 1
    assert told("alerts", "retry", found["id"][:10])[1] == {"deliveries": 1}
    assert told("alerts", "watch", "--once")[1]["sent"] == 1
    assert [one["blocks"][1]["text"]["text"] for one in received.bodies] == ["87 °C"] * 2
    assert told("alerts", "send", "x", "--kind", "drif")[1]["error"]["fix"] == "did you mean `drift`?"
    assert told("alerts", "send", "x", "--severity", "loud")[0] == 2
    assert told("alerts", "retry", "zz")[0] == 2


def test_where_nothing_can_be_written_down(told: Told, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("a file")
    code, found = told("alerts", "send", "x")
    assert code == 4 and "cannot be written down" in found["error"]["what"]


def test_a_file_that_is_wrong_is_told_before_anything_is_done(told: Told, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "alerts.yaml").write_text(
        "webhooks: [{name: team, url: 'https://hooks.slack.com/services/T1/B2/c3'}]\n"
    )
    for words in (["test"], ["watch", "--once"]):
        code, found = told("alerts", *words)
        assert code == 2 and "alerts.yaml:1" in found["error"]["what"] and "c3" not in json.dumps(found)
    assert told("alerts", "test", "--config", home / "none.yaml")[0] == 2


@pytest.mark.slow
def test_the_watch_goes_on_until_it_is_asked_to_end(received: Hook) -> None:
    words = [sys.executable, "-m", "raytrain", "alerts", "watch", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    records, deadline = open_records(), time.monotonic() + 60
    from raytrain.monitoring.alerts.store import AlertStore

    store = AlertStore(records.engine)
    while store.seen("runs")[0] is None and time.monotonic() < deadline:
        time.sleep(0.1)
    records.create_run("sums-1", kind="train", name="sums", config={})
    records.set_state("sums-1", "failed", "no")
    while not received.bodies and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    told = json.loads(out)
    assert told["raised"] == 1 and told["stopped_by"] == "SIGTERM" and told["passes"] >= 2
    records.close()
