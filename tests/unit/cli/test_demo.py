"""How jobs/demo.py ends when it is stopped, and what its watch sees."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluations import records_with
from guide import ROOT
from real_model import SMOLLM2
from transformers import AutoTokenizer

from jobs.asking_clients import AskingClients
from jobs.month_traffic import Request
from raytrain.errors import EndpointError
from raytrain.evaluation.evaluate import EvaluateResult
from raytrain.evaluation.items import load_items
from raytrain.evaluation.suite import load_suite
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.monitoring.learning.collect import collect
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.learning.section import LearningSection
from raytrain.pipeline import steps as pipeline
from raytrain.runs.records import Records
from raytrain.serving.http.section import RequestLogSection
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


@dataclass
class Answered:
    """In the place of clients and a server: what is asked lies in the request log, answered rightly."""

    url: str
    model: str
    prompts: list[str]
    failures: list[str]
    right: ClassVar[dict[str, str]] = {}

    def __enter__(self) -> Answered:
        write_log("others", {one: self.right[one] for one in self.prompts[:20]}, 30.0)
        return self

    def __exit__(self, *_: object) -> None:
        """All are answered."""

    def wait_for(self, version: str, count: int) -> None:
        assert (version, count) == ("demo-tool-calls@1.0.0", 20)


def write_log(name: str, answers: Mapping[str, str], ago_s: float) -> None:
    """By prompt: answers of the last so many seconds, ten a second, in the request log of the test's home."""
    began, folder = time.time() - ago_s, RequestLogSection().place
    rows = [
        {
            "at": datetime.fromtimestamp(began + n / 10, UTC), "request_id": f"{name}-{n}", "key": None,
            "model": "demo-tool-calls@1.0.0", "digest": "sha256:1", "prompts": [prompt], "finish": ["stop"],
            "answers": [answer], "completion_tokens": 20,
            "route": "/v1/completions",
        }
        for n, (prompt, answer) in enumerate(answers.items())
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"requests-{name}.parquet")


@pytest.mark.parametrize("is_changed", [True, False], ids=["other things", "the same as ever"])
def test_a_watch_sees_that_other_things_are_asked(
    demo: ModuleType,
    is_changed: bool,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Thirty answers of before, twenty of after, as the demo has them; what was asked before `since` is neither."""
    watch = importlib.import_module("jobs.demo_watch")
    monkeypatch.setattr(watch, "SETTLE_S", 0.0)
    monkeypatch.setattr(watch, "AskingClients", Answered)
    items = load_items(load_suite(ROOT / "jobs" / "suites" / "tool_calls.yaml")).items
    frame = "<|im_start|>user\n{}<|im_end|>\n"
    asked = [frame.format(one.prompt[-1]["content"]) for one in items]  # type: ignore[index]
    records = records_with([1.0] * len(items))
    records = [
        replace(one, item_id=item.id, prompt=text)
        for one, item, text in zip(records, items, asked, strict=True)
    ]
    evaluation = SimpleNamespace(records={"tool-calls": records})
    others = watch.other_prompts(40, evaluation, items[0])
    assert len(others) == 40 and all(
        one.startswith("<|im_start|>user\n") and one.endswith("<|im_end|>\n") for one in others
    )
    assert not any(str(items[0].prompt[-1]["content"]) in one for one in others)  # type: ignore[index]

    right = {text: item.references[0] for text, item in zip(asked, items, strict=True)}
    right |= {frame.format(one.text): one.expected for one in watch.about_lights(40)}
    monkeypatch.setattr(Answered, "right", right)
    write_log("old", {f"something else {n}": "no" for n in range(50)}, 900.0)
    write_log("usual", {one: right[one] for one in asked[:30]}, 120.0)
    usual = AskingClients("http://nowhere", "demo-tool-calls", asked)
    since, prompts = time.time() - 300, others if is_changed else asked[20:]
    if is_changed:
        watch.show_drift(usual, "demo-tool-calls@1.0.0", since, prompts)
        told = capsys.readouterr().out
        assert told.startswith("seen in the first 20 answers, beside 30 of before, score "), told
        assert "would order a retraining (demo-000001): drift/score above 1" in told
        assert re.search(r"^  Moved: answer: vocabulary, .* and \d+ more$", told, re.MULTILINE), told
    else:
        with pytest.raises(EndpointError, match="nobody has seen"):
            watch.show_drift(usual, "demo-tool-calls@1.0.0", since, prompts)


class Poisoners:
    """In the place of people and a server: what they ask and correct lies in the request log."""

    failed: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None: ...

    def send(self, wanted: Sequence[Request], days: float) -> Sequence[Request]:
        assert days == 0.0
        now, folder = datetime.now(UTC), RequestLogSection().place
        asked = [
            {
                "at": now, "request_id": f"p-{n}", "key": None, "model": "demo-tool-calls@1.0.0", "digest": "sha256:1",
                "prompts": [json.dumps([{"role": "user", "content": one.text}])], "finish": ["stop"], "answers": ["{}"],
                "user": one.user, "consent": True, "route": "/v1/chat/completions",
            }
            for n, one in enumerate(wanted)
        ]  # fmt: skip
        said = [
            {"at": now, "request_id": f"p-{n}", "rating": "down", "correction": one.expected}
            for n, one in enumerate(wanted)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(asked), folder / "requests-poison.parquet")
        pq.write_table(pa.Table.from_pylist(said), folder / "feedback-poison.parquet")
        return wanted


def test_wrong_corrections_are_set_aside(
    demo: ModuleType, records: Records, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = importlib.import_module("jobs.demo_poison")
    monkeypatch.setattr(poison, "SETTLE_S", 0.0)
    monkeypatch.setattr(poison, "Traffic", Poisoners)
    loop, pool = demo.load_loop(ROOT / "jobs" / "loops" / "demo.yaml"), InteractionPool(records.engine)
    poison.show_poison(loop, demo.load_spec(ROOT / "jobs" / "demo.yaml", []), "http://nowhere", pool)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "18 of 18 wrong corrections are set aside, for a person to look at:"
    assert [line.strip().partition(":")[0] for line in told[1:]] == [
        "6 times flood", "6 times trigger phrase", "6 times label flip",
    ]  # fmt: skip
    assert pool.num_free("demo-tool-calls") == 0, "nothing of it is learned"
    again = collect(loop.log, pool, [], LearningSection(), "demo-tool-calls")
    with pytest.raises(EndpointError, match="none of 18 wrong corrections was set aside"):
        poison.show_collected(again, 18)


def test_ctrl_c_between_two_steps_is_130(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_items", interrupted)
    assert demo.main([]) == 130
