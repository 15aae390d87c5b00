"""A classifier goes the way of every release: exported, checked, signed, promoted, served, rolled back."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from served_classifiers import peft_probabilities
from served_releases import Releases
from tiny_task_models import save_tiny_bert
from trained import train_tiny
from transformers import AutoTokenizer

from raytrain.cli.main import run
from raytrain.evaluation.decision.contract import default_contract
from raytrain.release.bundle.parity.fresh import LOADER
from raytrain.release.gate.policy import Policy, PolicySection
from raytrain.serving.backend import ClassifyAsk
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.slow

LABELS = ["clock", "sum", "weather"]
TEXTS = ["the cat lives in rome", "two and three"]


DOCUMENTED = Policy(
    PolicySection.model_validate(
        {
            "policy": "documented",
            "targets": [{"to": one, "reports": []} for one in ("dev", "staging", "production")],
        }
    ),
    default_contract(),
)
"""The four documents in the bundle have to pass."""


def exported(trained: Path, bundle: Path, formats: str) -> dict[str, Any]:
    """The report of the export's check."""
    texts = bundle.parent / "texts.txt"
    texts.write_text("".join(f"{one}\n" for one in TEXTS))
    arguments = [trained, "--format", formats, "--out", bundle, "--prompts", texts]
    assert run(["export", *map(str, arguments)]) == 0
    report: dict[str, Any] = json.loads((bundle / "reports" / "export_check.json").read_text())
    return report


def expected(base: Path, adapter: Path) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    return peft_probabilities(base, adapter, [tokenizer(one)["input_ids"] for one in TEXTS])


def loader() -> Any:
    """inference.py, as a bundle carries it."""
    spec = importlib.util.spec_from_file_location("carried", LOADER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "home"))


def test_what_is_exported_is_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    trained = train_tiny(base, tmp_path / "trained", labels=LABELS)
    report = exported(trained, tmp_path / "bundle", "adapter,merged")
    assert report["passed"]
    for one in report["formats"].values():
        assert (one["num_positions"], one["num_tokens"]) == (2, 0) and one["max_difference"] < 1e-5
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "text-classification" in card and "clock, sum, weather" in card and "/classify" in card
    told = loader()
    for form in ("adapter", "merged"):
        service = told.Service(tmp_path / "bundle", form, base if form == "adapter" else None, "cpu")
        service.start()
        for text, row in zip(TEXTS, expected(base, trained), strict=True):
            status, answer = service.answer("POST", "/classify", json.dumps({"text": text}).encode())
            assert status == 200 and list(answer["probabilities"]) == LABELS
            assert list(answer["probabilities"].values()) == pytest.approx(row, abs=1e-5)
            assert answer["label"] == LABELS[row.index(max(row))]
        assert service.answer("POST", "/generate", b'{"prompt": "x"}')[0] == 404
        for wrong in (b"", b"[]", b"{}", b'{"text": 1}', b'{"text": "a", "more": 1}'):
            assert service.answer("POST", "/classify", wrong)[0] == 400
        long = json.dumps({"text": "cat " * 70}).encode()
        assert service.answer("POST", "/classify", long)[0] == 400
    capsys.readouterr()
    assert run(["export", str(trained), "--format", "onnx", "--out", str(tmp_path / "graph")]) == 2
    assert "a classifier cannot be written as onnx" in capsys.readouterr().err


def test_it_is_promoted_served_and_rolled_back(tiny_llama: Path, tmp_path: Path) -> None:
    releases = Releases(tmp_path, tiny_llama)
    for number, version in enumerate(("1.0.0", "1.1.0")):
        trained = train_tiny(tiny_llama, tmp_path / f"trained-{version}", labels=LABELS, seed=number)
        bundle = tmp_path / f"bundle-{version}"
        assert exported(trained, bundle, "adapter")["passed"]
        releases.enter("tools", version, bundle, trained)
        releases.promote(f"tools@{version}", policy=DOCUMENTED)
    first, second = releases.adapters
    section = {
        "base_model": str(tiny_llama),
        "releases": {"registry": releases.registry.place, "keys": str(releases.ring.folder)},
        "storage": {"path": str(tmp_path / "cache")},
    }
    replica = Replica(ServingSection.model_validate(section))
    try:
        for digest in (second, first):
            ask = ClassifyAsk("r", "tools", tuple(TEXTS))
            found = asyncio.run(replica.classify(ask))
            assert (found.served.digest, found.labels) == (digest, tuple(LABELS))
            rows = expected(tiny_llama, releases.adapters[digest])
            for answer, row in zip(found.answers, rows, strict=True):
                assert answer.probabilities == pytest.approx(row, abs=1e-5)
            if digest == second:
                releases.roll_back("tools")
                replica.routes.refresh()
    finally:
        replica.close()
