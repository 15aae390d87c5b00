"""How jobs/demo.py ends when it is stopped."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from guide import ROOT

from raytrain import pipeline
from raytrain.evaluation.evaluate import EvaluateResult


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_job", ROOT / "jobs" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(
        sys.modules, spec.name, module
    )  # where dataclasses look for the module that they are in
    spec.loader.exec_module(module)
    return module


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


def test_ctrl_c_between_two_steps_is_130(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_items", interrupted)
    assert demo.main([]) == 130
