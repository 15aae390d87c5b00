"""`raytrain tune` around a search that only answers; the real one is in tests/integration."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from raytrain.cli.main import run
from raytrain.cli.tune_view import TuneView, trials_table
from raytrain.tuning import search
from raytrain.tuning.outcome import TrialRow, TuneResult
from raytrain.tuning.study import TrialView


def row(number: int, state: Any, value: float | None = None, reason: str | None = None) -> TrialRow:
    objectives = [value] if state == "complete" and value is not None else None
    view = TrialView(number, state, {"train.learning_rate": 0.00125}, objectives, value, {"reason": reason})
    return TrialRow(view, 4, 8, value)


ROWS = [
    row(0, "complete", 0.5),
    row(1, "pruned", 0.9, "others were better"),
    row(2, "running", 0.7),
    row(3, "waiting"),
]
DONE = TuneResult("mine-tune-1", "succeeded", "all trials are made", ["eval/loss"], [ROWS[0]], ROWS[:2],
                  files={"best": "/b.yaml", "page": "/p.html", "artifact": "/a"})  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    place = tmp_path / "mine.yaml"
    values = {
        "model": {"base_model": "some/model"},
        "data": {"sources": ["rows.jsonl"]},
        "search": {"space": {"train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2}}},
    }
    place.write_text(yaml.safe_dump(values))
    return place


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def fake(recipe: Any, **given: Any) -> TuneResult:
        asked.update(given, recipe=recipe)
        print("(raylet) a worker died")  # as Ray does, on stdout
        return DONE

    monkeypatch.setattr(search, "tune", fake)
    return asked


def test_json_is_one_object(recipe: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", str(recipe), "search.num_trials=7", "--fresh", "--address", "auto", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["best"][0]["values"] == {"train.learning_rate": 0.00125}
    assert told["counts"] == {"complete": 1, "pruned": 1}
    assert asked["recipe"].search.num_trials == 7
    assert (asked["fresh"], asked["address"]) == (True, "auto")


@pytest.mark.parametrize("command", [["tune"], ["config", "check"]])
def test_a_value_that_a_key_never_takes_ends_it_before_ray_starts(
    recipe: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run([*command, str(recipe), "search.space.train.learning_rate.high=100"]) == 2
    assert "less than 10 (got 100" in " ".join(capsys.readouterr().err.split())
    assert asked == {}


def test_a_queue_can_tell_a_search_that_was_stopped_from_one_that_is_done(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = "asked to stop by `raytrain runs stop`"
    stopped = replace(DONE, state="cancelled", ended_by=by)
    monkeypatch.setattr(search, "tune", lambda *_, **__: stopped)
    assert run(["tune", str(recipe), "--json"]) == 0
    monkeypatch.setenv("RAYTRAIN_QUEUE_JOB", "tune-mine-1a2b3c")
    assert run(["tune", str(recipe), "--json"]) == 6
    monkeypatch.setattr(search, "tune", lambda *_, **__: DONE)
    assert run(["tune", str(recipe), "--json"]) == 0


def test_a_person_is_shown_the_best_and_what_to_do_next(
    recipe: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "eval/loss 0.5 with train.learning_rate 0.00125" in out
    assert "raytrain train /b.yaml" in out


def test_a_recipe_without_a_search_is_a_usage_error(
    recipe: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text("model: {base_model: m}\ndata: {sources: [r.jsonl]}\n")
    assert run(["tune", str(recipe), "--json"]) == 2
    assert "nothing to search" in json.loads(capsys.readouterr().out)["error"]["what"]
    assert asked == {}


def test_lines_for_a_log_tell_each_ended_trial_once() -> None:
    stream = io.StringIO()
    with TuneView(Console(file=stream, width=200)) as view:
        view.trials(ROWS, ["eval/loss"], 6)
        view.trials(ROWS, ["eval/loss"], 6)
    assert stream.getvalue().splitlines() == [
        "  trial 0 complete, eval/loss 0.5: train.learning_rate 0.00125",
        "  trial 1 pruned, eval/loss 0.9 (others were better): train.learning_rate 0.00125",
    ]


def test_the_table_on_a_terminal_changes_in_its_place() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    later = [*ROWS[:2], row(2, "complete", 0.25), row(3, "running", 0.6)]
    with TuneView(console) as view:
        view.trials(ROWS, ["eval/loss"], 6)
        first = stream.getvalue()
        view.note("a trial was interrupted")
        view.trials(later, ["eval/loss"], 6)
        second = stream.getvalue()[len(first) :]
        shown = stream.getvalue()
    after = stream.getvalue()[len(shown) :]
    up_and_away = "\x1b[1A\x1b[2K"
    assert "2 of 6 trials" in first and "running" in first and up_and_away not in first
    table, note = second.rindex("3 of 6 trials"), second.index("a trial was interrupted")
    assert second.index(up_and_away) < note < table, "the old one goes, the note stays above the new one"
    lines = [" ".join(line.split()) for line in second[table:].splitlines()]
    assert lines[0] == "3 of 6 trials"
    assert "2 complete 4/8 0.25 train.learning_rate 0.00125" in lines
    assert lines[-1] == "3 running 4/8 0.6 train.learning_rate 0.00125"
    rest = after[after.rindex("running") :]
    assert "\x1b[?25h" in rest and rest.endswith(up_and_away * 6), "the table makes room for the result"


def test_the_table_on_a_terminal() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(trials_table(ROWS, ["eval/loss"], 6))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines[0] == "2 of 6 trials"
    assert lines[2:] == [
        "0 complete 4/8 0.5 train.learning_rate 0.00125",
        "1 pruned 4/8 0.9 train.learning_rate 0.00125",
        "2 running 4/8 0.7 train.learning_rate 0.00125",
    ]


def test_the_dashboard_serves_the_same_storage_or_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert run(["tune", "dashboard", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["fix"] == "pip install 'raytrain[dashboard]'"
