"""Evaluations as runs: what is kept, what is gone on with, and what their digest is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import records_with
from suites import SUMS, write_rows, write_suite

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation import evaluate as module
from raytrain.evaluation.answering.settings import settings_from
from raytrain.evaluation.evaluate import EvaluateResult, evaluate
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import Asked, summary_of
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.scoring.registry import Score
from raytrain.evaluation.suite import load_suite
from raytrain.evaluation.work import EvaluateProgress
from raytrain.runs.records import open_records
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow


def suite(folder: Path, name: str = "sums", **changes: Any) -> Suite:
    return load_items(load_suite(write_suite(folder, name, **changes)))


def finished(result: EvaluateResult) -> Evaluation:
    assert result.evaluation is not None and result.state == "succeeded"
    return result.evaluation


def test_all_kinds_in_one_evaluation(tiny_llama: Path, tmp_path: Path) -> None:
    suites = [suite(tmp_path, name) for name in ("sums", "choices", "texts")]
    told: list[str] = []
    result = evaluate(
        str(tiny_llama), suites, settings_from([]), on_progress=lambda one: told.append(one.suite)
    )
    done = finished(result)
    assert list(done.report.suites) == ["choices", "sums", "texts"], "in one order, whatever was typed"
    assert set(told) == {"sums", "choices", "texts"}
    for one in suites:
        assert [record.item_id for record in done.records[one.section.suite]] == [
            item.id for item in one.items
        ]
    sums, choices, texts = (done.report.suites[name] for name in ("sums", "choices", "texts"))
    assert (
        sums.num_items == 12
        and 0.0 <= sums.intervals["score"].low <= sums.score <= sums.intervals["score"].high
    )
    assert set(choices.metrics) == {"acc", "acc_norm"}
    assert texts.metrics["byte_perplexity"] == pytest.approx(2 ** texts.metrics["bits_per_byte"])
    assert done.timings is not None and set(done.timings.seconds["sums"]) == {str(i) for i in range(1, 13)}
    assert done.timings.resources["peak_rss_bytes"] > 1e6
    run = open_records().get_run(result.run_id)
    assert (run.kind, run.state, run.global_step, run.max_steps) == ("evaluate", "succeeded", 33, 33)
    assert not (run_folder(result.run_id) / "records").exists()


def test_the_same_command_answers_from_what_is_done(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = suite(tmp_path)
    first = evaluate(str(tiny_llama), [one], settings_from([]))
    fresh = evaluate(str(tiny_llama), [one], settings_from([]), fresh=True)
    assert fresh.run_id == f"{first.run_id}.2" and not fresh.was_done_before
    assert finished(fresh).artifact.digest == finished(first).artifact.digest
    monkeypatch.setattr(module.LocalModel, "answer", None)
    again = evaluate(str(tiny_llama), [one], settings_from([]))
    assert again.run_id == fresh.run_id and again.was_done_before


def test_the_words_for_a_model_do_not_count_and_its_settings_do(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = suite(tmp_path)
    absolute = finished(evaluate(str(tiny_llama), [one], settings_from([])))
    monkeypatch.chdir(tiny_llama.parent)
    relative = evaluate(tiny_llama.name, [one], settings_from([]))
    assert relative.was_done_before
    placed = finished(
        evaluate(tiny_llama.name, [one], settings_from([f"storage.path={tmp_path / 'else'}"]), fresh=True)
    )
    assert placed.artifact.digest == absolute.artifact.digest
    assert placed.report.model.reference == tiny_llama.name and absolute.report.model.reference == str(
        tiny_llama
    )
    single = finished(evaluate(str(tiny_llama), [one], settings_from(["answering.batch_size=1"])))
    assert single.artifact.digest != absolute.artifact.digest
    outputs = [[record.output for record in done.records["sums"]] for done in (single, absolute)]
    assert outputs[0] == outputs[1]


class Killed(BaseException):
    """As if the process had been killed at this moment."""


def test_what_was_answered_before_a_kill_is_not_answered_again(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, settings = suite(tmp_path), settings_from(["answering.batch_size=3"])
    whole = finished(evaluate(str(tiny_llama), [one], settings)).artifact.digest
    asked: list[str] = []
    real = module.LocalModel.answer
    left = [2]

    def dies(self: Any, asked_suite: Suite, units: Any) -> Any:
        for unit, found in zip(units, real(self, asked_suite, units), strict=True):
            asked.extend(item.id for item in unit)
            yield found
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    monkeypatch.setattr(module.LocalModel, "answer", dies)
    with pytest.raises(Killed):
        evaluate(str(tiny_llama), [one], settings, fresh=True)
    notes: list[str | None] = []
    result = evaluate(str(tiny_llama), [one], settings, on_progress=lambda told: notes.append(told.note))
    assert sorted(asked, key=int) == [item.id for item in one.items], "each item once"
    assert "6 of 12 items were answered before" in notes
    assert finished(result).artifact.digest == whole


@pytest.mark.slow
def test_a_killed_process_is_gone_on_with(tiny_llama: Path, tmp_path: Path, home: Path) -> None:
    rows = [{"question": f"What is the sum of {i} and {i * i}?", "answer": "1"} for i in range(120)]
    place = write_suite(tmp_path, "sums", rows, generation={"max_new_tokens": 60})
    command = [
        sys.executable, "-m", "raytrain", "evaluate", str(tiny_llama), "--suite", str(place), "--json",
        "answering.batch_size=4",
    ]  # fmt: skip
    environment = {**os.environ, "RAYTRAIN_HOME": str(home)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(home.glob("runs/*/records/sums/part-*.parquet"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None, "it was to be killed in the middle"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list(home.glob("runs/*/records/sums/part-*.parquet")))
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    killed = json.loads(done.stdout)
    straight = subprocess.run(
        [*command, f"storage.path={tmp_path / 'else'}", "--fresh"],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert 3 <= before < 30
    assert json.loads(straight.stdout)["digest"] == killed["digest"]


def test_stopped_in_order_it_goes_on(tiny_llama: Path, tmp_path: Path) -> None:
    one, settings = suite(tmp_path), settings_from(["answering.batch_size=3"])

    def stop(told: module.EvaluateProgress) -> None:
        if told.num_done == 6:
            (run,) = open_records().list_runs(kind="evaluate").runs
            open_records().request_stop(run.id)

    result = evaluate(str(tiny_llama), [one], settings, on_progress=stop)
    assert (result.state, result.evaluation, result.stopped_by) == ("cancelled", None, "raytrain runs stop")
    assert open_records().get_run(result.run_id).global_step == 6
    assert finished(evaluate(str(tiny_llama), [one], settings)).report.suites["sums"].num_items == 12


def test_changed_rows_are_answered_anew(tiny_llama: Path, tmp_path: Path) -> None:
    first = evaluate(str(tiny_llama), [suite(tmp_path)], settings_from([]))
    write_suite(tmp_path, "sums", [{**SUMS[0], "question": "Else?"}, *SUMS[1:]])
    second = evaluate(str(tiny_llama), [load_items(load_suite(tmp_path / "sums.yaml"))], settings_from([]))
    assert (
        second.run_id != first.run_id and finished(second).artifact.digest != finished(first).artifact.digest
    )


def test_a_damaged_evaluation_is_made_again(tiny_llama: Path, tmp_path: Path) -> None:
    one = suite(tmp_path)
    first = finished(evaluate(str(tiny_llama), [one], settings_from([])))
    (first.artifact.path / "report.json").write_text("{}")
    notes: list[str | None] = []
    again = evaluate(
        str(tiny_llama), [one], settings_from([]), on_progress=lambda told: notes.append(told.note)
    )
    assert not again.was_done_before and finished(again).artifact.digest == first.artifact.digest
    told = next(note for note in notes if note)
    assert "report.json" in told and told.endswith("the evaluation is made again")
    assert open_evaluation(Location.parse(first.artifact.path)).report == first.report


def raises_on_seven(output: str, references: Any) -> Score:
    if "7" in references:
        raise ZeroDivisionError("seven is bad luck")
    return Score(1.0)


def test_a_scorer_that_raises_is_counted_and_shown(tiny_llama: Path, tmp_path: Path) -> None:
    one = suite(tmp_path, scorer={"name": f"{__name__}:raises_on_seven"})
    report = finished(evaluate(str(tiny_llama), [one], settings_from([]))).report.suites["sums"]
    assert (report.num_failed, report.score) == (1, 11 / 12)


@pytest.mark.parametrize(
    ("log_likelihoods", "num_bytes", "num_near_ties"),
    [
        ((-4.0, -6.0), (4, 4), 0),
        ((-4.0, -4.0005), (4, 4), 1),
        ((-4.0, -8.0005), (4, 8), 1),  # a close call for each byte alone
        ((-4.0, -8.01), (4, 8), 0),
        ((-4.0, -4.0005), (4, 40), 1),  # for all bytes alone
        ((-8.0, -40.001, -8.02), (8, 40, 8), 1),  # the second for each byte
        ((-8.0, -800.08, -1.0004), (8, 800, 1), 1),  # the third for each byte: rounding moves one byte most
    ],
)
def test_near_ties_of_a_choice_count_in_each_of_its_metrics(
    log_likelihoods: tuple[float, ...], num_bytes: tuple[int, ...], num_near_ties: int
) -> None:
    asked = Asked("choices", "1", "sha256:0", "multiple_choice", "completion", {})
    record = ItemRecord(
        "1", "sha256:1", "?", "a", ("a",), 1.0, log_likelihoods=log_likelihoods, num_bytes=num_bytes, right=0
    )
    failed = ItemRecord("2", "sha256:2", "?", "", ("a",), None, error="the model's log-likelihood is NaN")
    assert summary_of(asked, [record, failed], "float32").num_near_ties == num_near_ties


def test_an_answer_that_was_never_given_is_not_empty() -> None:
    one, other, failed = records_with([1.0, 0.0, None])
    records = [one, replace(other, output=" \n"), replace(failed, output="")]
    asked = Asked("sums", "1", "sha256:x", "generation", "chat", {})
    report = summary_of(asked, records, "float32")
    assert (report.num_failed, report.num_empty) == (1, 1)


Change = Callable[[list[dict[str, str]]], list[dict[str, str]]]


def test_outputs_from_a_file_are_scored(tmp_path: Path) -> None:
    one = suite(tmp_path)
    rows = [{"item_id": item.id, "output": f"It is {item.references[0]}.\u2028"} for item in one.items]
    rows[3]["output"] = ""
    place = write_rows(tmp_path / "outputs.jsonl", rows)
    report = finished(evaluate(str(place), [one], settings_from([]))).report.suites["sums"]
    assert (report.score, report.num_empty, report.num_near_ties) == (11 / 12, 1, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[2:], "has no output for 2 of 12 items"),
        (lambda rows: [*rows, rows[0]], "its id stands twice"),
        (lambda rows: [*rows, {"item_id": "99"}], "KeyError"),
        (lambda rows: [{**rows[0], "output": 3}, *rows[1:]], "cannot be taken"),
    ],
)
def test_a_file_of_outputs_that_does_not_fit_is_refused(tmp_path: Path, change: Change, told: str) -> None:
    one = suite(tmp_path)
    place = write_rows(
        tmp_path / "outputs.jsonl", change([{"item_id": item.id, "output": "x"} for item in one.items])
    )
    with pytest.raises(DataError) as refused:
        evaluate(str(place), [one], settings_from([]))
    assert told in str(refused.value)


def test_an_output_that_is_no_text_is_told_with_a_fix_of_its_own(tmp_path: Path) -> None:
    one = suite(tmp_path)
    for line, fix in (
        ({"item_id": "1", "output": 5}, "write `output` as text"),
        ({"item_id": [1], "output": "5"}, "write `item_id` as text"),
    ):
        with pytest.raises(DataError) as refused:
            evaluate(str(write_rows(tmp_path / "outputs.jsonl", [line])), [one], settings_from([]))
        assert fix in refused.value.fix and "twice" not in str(refused.value)


def test_lines_of_unknown_items_are_told(tmp_path: Path) -> None:
    one = suite(tmp_path)
    notes: list[str] = []

    def outputs(*more: str) -> str:
        ids = [item.id for item in one.items]
        rows = [{"item_id": name, "output": "x"} for name in (*more, *ids)]
        return str(write_rows(tmp_path / "outputs.jsonl", rows))

    def show(progress: EvaluateProgress) -> None:
        notes.extend([] if progress.note is None else [progress.note])

    evaluate(outputs("other-7", "other-8"), [one], settings_from([]), on_progress=show)
    (note,) = notes
    assert "2 of 14 lines are ignored" in note and "'other-7'" in note
    evaluate(outputs(), [one], settings_from([]), on_progress=show)
    assert len(notes) == 1


def test_what_cannot_be_asked_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    one = suite(tmp_path)
    with pytest.raises(ConfigError, match="is named twice"):
        evaluate(str(tiny_llama), [one, one], settings_from([]))
    with pytest.raises(ConfigError, match="no suite is named"):
        evaluate(str(tiny_llama), [], settings_from([]))
    with pytest.raises(ConfigError, match="batch_size"):
        settings_from(["answering.batchsize=3"])
    with pytest.raises(ConfigError, match="cannot be scored from"):
        place = write_rows(tmp_path / "outputs.jsonl", [])
        evaluate(str(place), [suite(tmp_path, "choices")], settings_from([]))


def test_a_finished_one_is_brought_where_it_is_wanted(tiny_llama: Path, tmp_path: Path) -> None:
    one = suite(tmp_path)
    first = finished(evaluate(str(tiny_llama), [one], settings_from([])))
    wanted = settings_from([f"storage.path={tmp_path / 'else'}"])
    again = evaluate(str(tiny_llama), [one], wanted)
    assert again.was_done_before and finished(again).artifact.digest == first.artifact.digest
    assert str(finished(again).artifact.location).startswith(str(tmp_path / "else"))
    assert finished(again).timings is not None


def test_memory_that_was_not_measured_is_not_told(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = suite(tmp_path)
    real = module.write_evaluation
    monkeypatch.setattr(module, "write_evaluation", lambda *_, **__: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        evaluate(str(tiny_llama), [one], settings_from([]))
    monkeypatch.setattr(module, "write_evaluation", real)
    monkeypatch.setattr(module.LocalModel, "resources", lambda _: {"peak_rss_bytes": None})
    done = finished(evaluate(str(tiny_llama), [one], settings_from([])))
    assert done.timings is not None and done.timings.resources["peak_rss_bytes"] > 1e6, "of the first session"
    assert done.timings.resources["wall_s"] > 0
