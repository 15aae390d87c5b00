"""How jobs/demo.py ends when it is stopped."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from guide import ROOT
from real_model import SMOLLM2
from transformers import AutoTokenizer

from raytrain.evaluation.evaluate import EvaluateResult
from raytrain.evaluation.items import load_items
from raytrain.evaluation.suite import load_suite
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.pipeline import steps as pipeline
from raytrain.storage.location import Location


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("jobs.demo")


@pytest.mark.parametrize(
    ("by", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("raytrain runs stop", 4)], ids=str
)
def test_a_demo_that_is_stopped_ends_as_other_commands_do(
    demo: ModuleType,
    by: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cancelled = EvaluateResult("base-eval", "cancelled", None, by)
    monkeypatch.setattr(pipeline, "evaluate", lambda *_, **__: cancelled)
    assert demo.main([]) == code
    assert f"stopped by {by}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_no_right_answer_is_longer_than_the_demo_lets_one_be(smollm2_cache: Location) -> None:
    base = resolve_base_model(ModelSection(base_model=SMOLLM2), smollm2_cache)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    suite = load_items(load_suite(ROOT / "jobs" / "suites" / "tool_calls.yaml"))
    longest = max(len(tokenizer(one.references[0])["input_ids"]) for one in suite.items)
    assert 1.5 * longest <= suite.section.generation.max_new_tokens, (
        "there is room for another way to write it"
    )


def test_ctrl_c_between_two_steps_is_130(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_items", interrupted)
    assert demo.main([]) == 130
