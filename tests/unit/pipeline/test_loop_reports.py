"""The reports that a retraining's gate asks for: each is made once, whoever was killed between two of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import evaluation_of, records_with
from suites import write_rows, write_suite

from raytrain.config.document import Document
from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection
from raytrain.errors import ConfigError, DataError, PlatformError
from raytrain.evaluation import baseline
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.items import load_items
from raytrain.evaluation.suite import load_suite
from raytrain.pipeline.loop import evidence
from raytrain.pipeline.loop.evidence import Candidate, reports_for
from raytrain.release.gate.policy import TargetSection
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.training.spec import spec_from_document

BEFORE = [1.0] * 6 + [0.0] * 4


class Killed(BaseException):
    """In the place of a kill -9: nobody handles it."""


class Refuses:
    """A model that answers every probe alike."""

    notes: tuple[str, ...] = ()

    def __init__(self, _: object) -> None:
        """What was loaded."""

    def __call__(self, conversations: Sequence[object]) -> list[str | None]:
        return ["I cannot help with that."] * len(conversations)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """Rows of which the suite's first item is one."""
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"question": f"add {n} to itself", "answer": f"it is {2 * n}"} for n in range(30)],
    )
    storage = Location(str(tmp_path / "storage"))
    values = {"sources": [{"path": str(rows)}], "val_fraction": 0, "test_fraction": 0}
    content = {
        "name": "n", "model": {"base_model": "models/tiny"}, "data": values, "storage": {"path": str(storage)},
    }  # fmt: skip
    suite = load_items(load_suite(write_suite(tmp_path, "sums")))
    return Candidate(
        "runs/n/adapter",
        "sha256:" + "5" * 64,
        prepare_dataset(DataSection.model_validate(values), storage),
        spec_from_document(Document(content), default_name="n"),
        [suite],
        EvaluateSettings(),
    )


def target(*reports: str, **more: Any) -> TargetSection:
    return TargetSection.model_validate(
        {"to": "production", "reports": list(reports), "documents": [], **more}
    )


def made(
    candidate: Candidate, *targets: TargetSection, tell: Callable[[str], None] = print
) -> list[Artifact]:
    return reports_for(candidate, targets, candidate.spec.storage.location / "order", tell)


def test_nothing_is_made_that_no_target_asks_for(candidate: Candidate) -> None:
    told: list[str] = []
    assert made(candidate, target("evaluation"), tell=told.append) == [] and told == []
    assert not (candidate.spec.storage.location / "order").exists()


def test_contamination_is_searched_once_for_each_suite(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = made(candidate, target("contamination"), target("contamination"))
    assert (
        first.kind == "contamination_report" and first.manifest.parents["dataset"] == candidate.dataset.digest
    )
    monkeypatch.setattr(evidence, "search_rows", lambda *_: pytest.fail("it is searched again"))
    (again,) = made(candidate, target("contamination"))
    assert again.digest == first.digest


def test_killed_between_two_reports_the_next_call_makes_the_other(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = target("contamination", "safety")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(evidence, "load_for_inference", lambda *_, **__: (_ for _ in ()).throw(Killed))
        made(candidate, both)
    (kept,) = (candidate.spec.storage.location / "order").children()
    assert kept.name.startswith("contamination-")

    monkeypatch.setattr(evidence, "load_for_inference", lambda *_, **__: None)
    monkeypatch.setattr(evidence, "ModelAnswers", Refuses)
    monkeypatch.setattr(evidence, "search_rows", lambda *_: pytest.fail("it is searched again"))
    assert [one.kind for one in made(candidate, both)] == ["contamination_report", "safety_report"]
    monkeypatch.setattr(evidence, "ModelAnswers", lambda _: pytest.fail("it is asked again"))
    assert [one.kind for one in made(candidate, both)] == ["contamination_report", "safety_report"]


@pytest.fixture
def golden(candidate: Candidate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The golden set of the storage, six of ten right; a candidate that has lost two of them. Returns who was asked."""
    first = evaluation_of(tmp_path / "first", {"sums": records_with(BEFORE)})
    baseline.freeze(first, baseline.baseline_place(candidate.spec.storage.location, "golden"))
    lost = evaluation_of(tmp_path / "now", {"sums": records_with([0.0, 0.0, *BEFORE[2:]])})
    asked: list[str] = []

    def evaluate(model: str, *_: Any) -> Any:
        asked.append(model)
        return SimpleNamespace(evaluation=lost, stopped_by=None)

    monkeypatch.setattr(evidence, "evaluate", evaluate)
    return asked


def test_each_target_holds_the_golden_set_to_its_own_limits(candidate: Candidate, golden: list[str]) -> None:
    strict, lax = target("drift", max_lost=0.1), target("drift", max_lost=0.5)
    reports = made(candidate, strict, lax)
    told = [json.loads((one.path / "report.json").read_text()) for one in reports]
    assert [(one["num_lost"], one["passed"]) for one in told] == [(2, False), (2, True)]
    assert golden == [candidate.model] * 2


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [(None, ConfigError, "there is none"), ("sha256:" + "1" * 64, DataError, "is not at hand")],
)
def test_a_golden_set_that_is_not_there_is_told(
    candidate: Candidate, named: str | None, error: type[PlatformError], words: str
) -> None:
    with pytest.raises(error, match=words):
        made(candidate, target("drift", golden=named))
