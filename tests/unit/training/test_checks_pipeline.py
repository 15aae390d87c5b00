"""`check pipeline`: what is asked of a run's folder, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest_checks import tiny_spec

from raytrain.errors import DataError
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.checks import pipeline
from raytrain.training.checks.health import judge_flow, judge_lines, judge_numbers, series_of_jsonl
from raytrain.training.checks.verdict import Finding, Status, Verdict

SERIES = {"train/loss": {1: 2.5, 2: 1.1}, "eval/loss": {2: 1.3}}


@pytest.mark.parametrize(
    ("series", "status", "what"),
    [
        (SERIES, "passed", "3 values, no NaN and no infinity"),
        ({**SERIES, "train/grad_norm": {7: float("nan")}}, "failed", "train/grad_norm at step 7 is nan"),
        ({"train/loss": {1: float("inf")}}, "failed", "1 of 1 are none"),
        ({"eval/loss": {2: 1.3}}, "failed", "no training loss"),
        ({}, "failed", "no training loss"),
    ],
)
def test_numbers(series: dict[str, dict[int, float]], status: str, what: str) -> None:
    finding = judge_numbers(series, "run")
    assert finding.status == status
    assert what in finding.what


SHORT = {"train/loss": {1: 2.5, 2: 1.100000023841858}, "eval/loss": {2: 1.2999999523162842}}
"""SERIES in 32 bits, as TensorBoard keeps it."""


@pytest.mark.parametrize(
    ("database", "tensorboard", "status", "what"),
    [
        (SERIES, SHORT, "passed", "3 values of 2 metrics"),
        (SERIES, SERIES, "failed", "TensorBoard differ: eval/loss at step 2"),
        ({**SERIES, "eval/loss": {}}, SHORT, "failed", "the database differ: eval/loss at step 2 is in one"),
        (SERIES, {**SHORT, "train/loss": {1: 2.5}}, "failed", "train/loss at step 2 is in one of the two"),
        # Measured again after a kill, and not dropped.
        ({**SERIES, "train/loss": {1: 2.5, 2: 1.1, 3: 1.0}}, SHORT, "failed", "train/loss at step 3"),
        ({**SERIES, "train/loss": {1: 2.5, 2: 1.1000001}}, SHORT, "failed", "is 1.1 and 1.1000001"),
    ],
)
def test_metrics_flow(
    database: dict[str, dict[int, float]], tensorboard: dict[str, dict[int, float]], status: str, what: str
) -> None:
    finding = judge_flow(SERIES, database, tensorboard, "run")
    assert finding.status == status, finding.what
    assert what in finding.what


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "metrics.jsonl", tmp_path / "events.jsonl"
    good.write_text('{"global_step": 1, "time": 1.0, "metrics": {"train/loss": 2.5}}\n')
    bad.write_text('{"kind": "note"}\n{"kind": "no\n')
    assert judge_lines([good], "run").status == "passed"
    finding = judge_lines([good, bad], "run")
    assert finding.status == "failed"
    assert "events.jsonl, line 2" in finding.what
    assert judge_lines([tmp_path / "none.jsonl"], "run").status == "failed"
    assert series_of_jsonl(good) == {"train/loss": {1: 2.5}}


def verdict_of(check: str, *statuses: Status) -> Verdict:
    findings = tuple(Finding(f"finding {i}", status, "told") for i, status in enumerate(statuses))
    return Verdict(check, "tiny", findings, "mend it")


@pytest.mark.parametrize(
    ("statuses", "passed"),
    [
        (("passed", "skipped"), True),
        (("passed", "failed"), False),
        (("skipped",), False),
        ((), False),
    ],
)
def test_a_verdict_needs_something_that_passed_and_nothing_that_failed(
    statuses: tuple[Status, ...], passed: bool
) -> None:
    verdict = verdict_of("loss", *statuses)
    assert verdict.passed is passed
    assert ("PASSED" in verdict.line) is passed
    assert ("error" in verdict.as_dict()) is not passed


def test_a_check_that_cannot_run_fails_the_gate_and_the_others_still_run() -> None:
    def broken() -> Verdict:
        raise DataError("no rows", why="the file is empty", fix="write some")

    verdicts = pipeline._run_all([("loss", broken), ("resume", lambda: verdict_of("resume", "passed"))])
    assert [one.passed for one in verdicts] == [False, True]
    assert "no rows" in verdicts[0].findings[0].what
    assert verdicts[0].check == "loss"


@pytest.mark.parametrize("passed", [True, False])
def test_the_report_is_an_artifact_over_model_and_rows(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, passed: bool
) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path)
    part = verdict_of("loss", "passed" if passed else "failed")
    whole = replace(part, check="pipeline")
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"a picture")
    written = pipeline.write_report(spec, whole, [part], plot)
    artifact = open_artifact(Location(str(written.location)), kind="check_report")
    assert sorted(artifact.manifest.parents) == ["base_model", "dataset"]
    assert artifact.manifest.parents["dataset"].startswith("sha256:")
    report = json.loads((artifact.path / "report.json").read_text())
    assert report["passed"] is passed
    assert report["recipe"]["run_id"] == spec.run_id
    assert report["recipe"]["identity"] == spec.identity
    assert [one["check"] for one in report["checks"]] == ["loss"]
    assert (artifact.path / "reproducibility.png").read_bytes() == b"a picture"


def test_a_report_is_found_for_the_recipe_that_passed_and_no_other(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path)
    assert pipeline.find_report(spec) is None
    for status in ("failed", "passed"):
        part = verdict_of("loss", status)
        written = pipeline.write_report(spec, replace(part, check="pipeline"), [part], tmp_path / "none.png")
        found = pipeline.find_report(spec)
        assert (found is not None and found.digest == written.digest) is (status == "passed")
        if status == "failed":
            written.location.delete()  # two reports of one second would have one place
    other = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": 99})})
    assert pipeline.find_report(other) is None
