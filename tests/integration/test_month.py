"""The simulated month as `make loop` plays it, with the real model: some twelve minutes on two quiet cores."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bench import BIN, ROOT, Bench

WINDOW, SENT_AT_ONCE = 40, 8
"""Answers: of a window, and of what is asked before each look of week 4."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

pytestmark = [pytest.mark.thorough, pytest.mark.alone]


@pytest.mark.timeout(5400)
def test_it_watches_learns_and_takes_back_by_itself(local: Bench) -> None:
    played = subprocess.run(
        [str(BIN / "python"), "-m", "jobs.month"],
        env={**local.child_environment(), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=5300, check=False,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-6000:]
    (folder,) = (local.home / "months").glob("*/loops/month")
    check_month(folder)


def check_month(folder: Path) -> None:
    """Answers got worse in week 2 and are good again after one order and its promotion, poison is set aside, the
    version that was forced through in week 4 is taken back, no request failed, every point has its digest."""
    figures = json.loads((folder / "figures.json").read_text())
    story = json.loads((folder / "story.json").read_text())
    told = json.dumps(figures, indent=1)

    (order,) = events(story, "order")
    assert 7.0 < order["day"] <= 14.0 and order["told"].startswith("month-000001: drift/score above 1"), order
    _, promoted = events(story, "promotion")  # after the one of the first version
    assert order["day"] < promoted["day"] <= 14.0, promoted
    assert promoted["told"] == "production is 1.1.0: order month-000001"
    assert figures["orders"] == ["month-000001 succeeded: month-tool-calls@1.1.0 is in production"], told

    before, worse = figures["right before the shift"], figures["right after it, by the version before"]
    again, at_last = figures["right after the retraining"], figures["right after it was taken back"]
    assert worse["high"] < before["low"], "what was asked in week 2 was another thing: " + told
    assert again["low"] > worse["high"], "quality is back: " + told
    assert again["right"] / again["of"] > before["low"], told
    assert at_last["right"] / at_last["of"] > worse["high"], told
    assert 0 < figures["answers from the shift to the alarm"] <= 2 * WINDOW, told
    assert 0 < figures["wrong answers of the forced version"] <= 2 * SENT_AT_ONCE, told
    assert figures["core minutes of training"] > 0.0, told

    check_record(folder.parents[1], story)
    points = [*story["quality"], *story["drift"], *story["events"]]
    assert all(DIGEST.fullmatch(one["digest"]) for one in points), story

    aside, of = map(int, figures["poisoned rows that were set aside"].split(" of "))
    assert of == 30 and aside >= 25, told

    (forced,), (back,) = events(story, "override"), events(story, "rollback")
    assert 21.0 <= forced["day"] < back["day"] <= 28.0 and back["told"].startswith("production is 1.1.0"), (
        back
    )

    assert figures["requests"] > 300 and figures["requests that failed"] == 0, told
    assert figures["looks at which something could not be done"] == 0, told
    assert figures["what people did, but for forcing a version through"] == 0, told


def check_record(home: Path, story: dict[str, Any]) -> None:
    """It names the window that led to it by its report's digest, what was trained, and what it cost."""
    (record,) = home.rglob("retrainings/month-000001/record/record.json")
    content = json.loads(record.read_text())
    alarms = {one["digest"] for one in story["drift"] if one["is_alarm"]}
    assert content["window"] in alarms, content
    assert (content["outcome"], content["version"]) == ("succeeded", "1.1.0"), content
    steps = {step["name"]: step["digest"] for step in content["steps"]}
    assert all(steps[name] for name in ("rows", "prepare", "train", "evaluate", "compare")), content
    assert {"release", "staging", "canary", "production"} <= steps.keys(), content
    assert content["cost"]["cpu_hours"] > 0.0, content


def events(story: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Of a kind, by time, each with the day of the month on which it happened."""
    days = {moment: float(told.removeprefix("day ")) for moment, told in story["when"].items()}
    return [{**one, "day": days[str(one["time"])]} for one in story["events"] if one["kind"] == kind]
