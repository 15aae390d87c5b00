"""Classifiers over one body: each finds what transformers and PEFT find with it alone, whatever is read beside."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from answering_backends import wait_until
from served_classifiers import peft_probabilities, save_classifier
from tiny_models import save_tiny_llama, spoil_token
from tiny_task_models import save_tiny_bert

from raytrain.errors import RefusedError
from raytrain.models.classifier import ClassifierTrunk, load_body, writes_text
from raytrain.models.inference import LoadedModel, find_for_inference
from raytrain.serving.adapters.weights import AdapterWeights, ClassifierWeights, Matrices, read_classifier
from raytrain.serving.backend import AnswerFailed, ReplicaLost
from raytrain.serving.classification.engine import ClassifyingEngine
from raytrain.serving.classification.passes import Passes
from raytrain.serving.classification.section import ClassificationSection
from raytrain.serving.classification.waiting import Asked, Text, choose_together
from raytrain.serving.engine.request import Overloaded
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

_BASES: dict[str, Callable[[Path], Path]] = {"llama": save_tiny_llama, "bert": save_tiny_bert}
_OTHERS: dict[str, dict[str, Any]] = {
    "a": {"labels": ["no", "yes"]},
    "b": {"labels": ["high", "low", "middle"], "rank": 2},
    "c": {"labels": ["x", "y"], "rank": 8, "use_rslora": True},
}
SPOILED = 41


class Made:
    """A base model with its classifiers, by a digest that is none."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.base = _BASES[kind](folder / kind)
        self.adapters = {
            name: save_classifier(self.base, folder / f"{kind}-{name}", seed=seed, **settings)
            for seed, (name, settings) in enumerate(_OTHERS.items())
        }
        self.cache = Location(str(folder / "cache"))

    def load(self, dtype: str = "float32") -> LoadedModel:
        found = find_for_inference(str(self.base), cache=self.cache, dtype=dtype)
        return found.load() if writes_text(self.base) else load_body(found)

    def trunk(self, loaded: LoadedModel | None = None) -> ClassifierTrunk:
        loaded = loaded or self.load()
        return ClassifierTrunk(loaded.model, int(loaded.tokenizer.pad_token_id))  # type: ignore[arg-type]

    def expected(self, adapter: str, texts: list[tuple[int, ...]]) -> list[list[float]]:
        return peft_probabilities(self.base, self.adapters[adapter], texts)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    known: dict[str, Made] = {}

    def make(kind: str) -> Made:
        return known.setdefault(kind, known.get(kind) or Made(kind, tmp_path_factory.mktemp(kind)))

    return make


Start = Callable[..., ClassifyingEngine]


@pytest.fixture
def start(made: Callable[[str], Made]) -> Iterator[Start]:
    """With all classifiers of the tiny Llama."""
    started: list[ClassifyingEngine] = []

    def begin(trunk: ClassifierTrunk | None = None, **settings: Any) -> ClassifyingEngine:
        section = ClassificationSection.model_validate({"adapter_mib": 4, **settings})
        started.append(ClassifyingEngine(trunk or made("llama").trunk(), section))
        for digest, folder in made("llama").adapters.items():
            started[-1].load(digest, read_classifier(folder))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def texts(num: int, seed: int = 0, longest: int = 30) -> list[tuple[int, ...]]:
    """Of ids that every tiny model has, without padding and what is spoiled."""
    chance = random.Random(seed)
    return [tuple(chance.randrange(5, 40) for _ in range(chance.randint(1, longest))) for _ in range(num)]


class Held:
    """A trunk whose passes wait until they are let go."""

    def __init__(self, trunk: ClassifierTrunk) -> None:
        self.trunk, self._read = trunk, trunk.read
        self.begun, self.gate = threading.Event(), threading.Event()
        trunk.read = self._wait  # type: ignore[method-assign]

    def _wait(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.begun.set()
        assert self.gate.wait(30)
        return self._read(ids, mask)


@pytest.mark.parametrize("kind", _BASES)
def test_each_classifier_finds_its_own_beside_all_others(kind: str, made: Callable[[str], Made]) -> None:
    one = made(kind)
    trunk, asked = one.trunk(), texts(12)
    passes = Passes(trunk, 1 << 22)
    with torch.inference_mode():
        for digest, folder in one.adapters.items():
            weights = read_classifier(folder)
            passes.put(digest, weights.lora, trunk.build_head(len(weights.labels), weights.head))
        mixed = [Text(Asked("abc"[place % 3], 1), place, ids) for place, ids in enumerate(asked)]
        found = passes.read(mixed)
    assert passes.stats.passes == 1 and passes.stats.texts == 12 and passes.stats.padding_tokens > 0
    answers: dict[str, list[list[float]]] = {}
    for text, answer in zip(mixed, found, strict=True):
        assert answer is not None and answer.num_tokens == len(text.ids)
        (expected,) = one.expected(text.asked.adapter, [text.ids])
        assert answer.probabilities == pytest.approx(expected, abs=1e-5)
        answers.setdefault(text.asked.adapter, []).append(expected)
    spread = [max(row[0] for row in rows) - min(row[0] for row in rows) for rows in answers.values()]
    assert min(spread) > 1e-3, "the test can tell texts apart"
    assert one.expected("a", asked[:1]) != one.expected("c", asked[:1]), "and classifiers"


@pytest.mark.parametrize("kind", _BASES)
def test_over_half_precision_the_head_is_whole(kind: str, made: Callable[[str], Made]) -> None:
    one = made(kind)
    trunk, weights = one.trunk(one.load("bfloat16")), read_classifier(one.adapters["b"])
    passes = Passes(trunk, 1 << 22)
    assert {its.dtype for its in trunk.module.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        head = trunk.build_head(3, weights.head)
        assert torch.get_default_dtype() == torch.float32
        passes.put("b", weights.lora, head)
        (found,) = passes.read([Text(Asked("b", 1), 0, (5, 6, 7))])
    assert found is not None
    (expected,) = one.expected("b", [(5, 6, 7)])
    assert found.probabilities == pytest.approx(expected, abs=0.03)


def test_a_base_that_cannot_write_is_told_by_its_files(made: Callable[[str], Made]) -> None:
    assert {kind: writes_text(made(kind).base) for kind in _BASES} == {"llama": True, "bert": False}


def test_weights_are_shared_and_nothing_else_is(made: Callable[[str], Made]) -> None:
    loaded = made("llama").load()
    trunk = made("llama").trunk(loaded)
    theirs = {one.data_ptr() for one in loaded.model.parameters()}
    assert {one.data_ptr() for one in trunk.module.parameters()} <= theirs
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = loaded.model(input_ids=ids).logits
        passes = Passes(trunk, 1 << 22)
        weights = read_classifier(made("llama").adapters["a"])
        passes.put("a", weights.lora, trunk.build_head(2, weights.head))
        passes.read([Text(Asked("a", 1), 0, (5, 6, 7))])
        assert torch.equal(loaded.model(input_ids=ids).logits, before)


@pytest.mark.parametrize(
    ("lengths", "most", "together"),
    [
        ([5], 1, [0]),
        ([5, 5, 5], 15, [0, 1, 2]),
        ([5, 5, 5], 14, [0, 1]),
        ([2, 9, 2, 2], 8, [0, 2, 3]),
        ([9, 1, 1], 8, [0]),
        ([3, 5, 3], 9, [0, 2]),
        ([3, 3], 0, [0]),
    ],
)
def test_texts_are_read_together_as_far_as_a_pass_holds(
    lengths: list[int], most: int, together: list[int]
) -> None:
    assert choose_together(lengths, most) == together


def test_many_requests_at_a_time_share_passes_and_get_their_own(
    start: Start, made: Callable[[str], Made]
) -> None:
    engine = start(tokens_per_pass=256)
    asked = [("abc"[place % 3], texts(1 + place % 4, seed=place)) for place in range(30)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: engine.submit(one[1], one[0]).result(30), asked))
    for (adapter, ids), answers in zip(asked, found, strict=True):
        for answer, expected in zip(answers, made("llama").expected(adapter, ids), strict=True):
            assert answer.probabilities == pytest.approx(expected, abs=1e-5)
    numbers = engine.numbers()
    assert numbers["classify_texts"] == sum(len(ids) for _, ids in asked)
    assert numbers["classify_passes"] < numbers["classify_texts"]
    assert set(numbers["classifiers"]) == {"a", "b", "c"} and numbers["classify_waiting"] == 0


def test_a_full_queue_and_an_unknown_classifier_are_refused(
    start: Start, made: Callable[[str], Made]
) -> None:
    held = Held(made("llama").trunk())
    engine = start(held.trunk, max_waiting=4)
    first = engine.submit([(5,)], "a")
    assert held.begun.wait(30)
    waiting = engine.submit([(5,)] * 3, "a")
    with pytest.raises(Overloaded) as refused:
        engine.submit([(5,)] * 2, "a")
    assert refused.value.waiting == 3
    last = engine.submit([(5,)], "b")
    with pytest.raises(KeyError):
        engine.submit([(5,)], "nobody")
    held.gate.set()
    assert [len(one.result(30)) for one in (first, waiting, last)] == [1, 3, 1]


def test_what_nobody_waits_for_is_not_read(start: Start, made: Callable[[str], Made]) -> None:
    held = Held(made("llama").trunk())
    engine = start(held.trunk, max_waiting=4)
    first = engine.submit([(5,)], "a")
    assert held.begun.wait(30)
    gone = engine.submit([(6,)] * 4, "b")
    assert gone.cancel()
    engine.unload("b")
    held.gate.set()
    assert first.result(30)
    wait_until(lambda: "b" not in engine._turns._adapters, "what left the queue holds no classifier")
    assert engine.numbers()["classify_texts"] == 1


def test_an_unloaded_classifier_answers_what_was_accepted(start: Start, made: Callable[[str], Made]) -> None:
    held = Held(made("llama").trunk())
    engine = start(held.trunk)
    first = engine.submit([(5,)], "a")
    assert held.begun.wait(30)
    accepted = engine.submit([(5, 6, 7)], "b")
    engine.unload("b")
    with pytest.raises(KeyError):
        engine.submit([(5,)], "b")
    held.gate.set()
    (answer,) = accepted.result(30)
    assert answer.probabilities == pytest.approx(made("llama").expected("b", [(5, 6, 7)])[0], abs=1e-5)
    assert first.result(30)
    engine.load("b", read_classifier(made("llama").adapters["b"]))
    assert engine.submit([(5, 6, 7)], "b").result(30)[0].probabilities == answer.probabilities


def test_a_text_that_gives_no_number_fails_by_itself(start: Start, made: Callable[[str], Made]) -> None:
    loaded = made("llama").load()
    spoil_token(loaded.model, SPOILED)
    engine = start(made("llama").trunk(loaded))
    both = engine.submit([(5, 6), (5, SPOILED)], "a")
    other = engine.submit([(5, 6)], "b")
    with pytest.raises(AnswerFailed):
        both.result(30)
    assert other.result(30)[0].probabilities == pytest.approx(
        made("llama").expected("b", [(5, 6)])[0], abs=1e-5
    )
    assert engine.is_alive


def test_passes_that_fail_one_after_another_end_the_engine(
    start: Start, made: Callable[[str], Made], caplog: pytest.LogCaptureFixture
) -> None:
    trunk = made("llama").trunk()
    engine = start(trunk)

    def break_(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    trunk.read = break_  # type: ignore[method-assign]
    for _ in range(3):
        assert engine.is_alive
        with pytest.raises(AnswerFailed):
            engine.submit([(5,)], "a").result(30)
        time.sleep(0.02)
    wait_until(lambda: not engine.is_alive, "the engine ends")
    assert "the engine ends" in caplog.text
    with pytest.raises(Overloaded):
        engine.submit([(5,)], "a")


def test_when_it_is_closed_what_waits_is_lost(start: Start, made: Callable[[str], Made]) -> None:
    held = Held(made("llama").trunk())
    engine = start(held.trunk)
    first = engine.submit([(5,)], "a")
    assert held.begun.wait(30)
    waiting = engine.submit([(5,)], "a")
    closing = threading.Thread(target=engine.close)
    closing.start()
    wait_until(lambda: not engine.is_alive, "it is being closed")
    held.gate.set()
    closing.join(30)
    assert first.result(30)
    with pytest.raises(ReplicaLost):
        waiting.result(30)


def test_what_does_not_fit_is_refused_by_name(start: Start, made: Callable[[str], Made]) -> None:
    engine, whole = start(), read_classifier(made("llama").adapters["a"])
    (name,) = whole.head

    def refused(head: dict[str, torch.Tensor], labels: tuple[str, ...] = ("no", "yes")) -> str:
        with pytest.raises(RefusedError) as raised:
            engine.load("other", ClassifierWeights(whole.lora, head, labels))
        return raised.value.why

    assert f"the head's {name} is not in it" in refused({})
    assert "more.weight is no part of the head" in refused({**whole.head, "more.weight": whole.head[name]})
    assert "size mismatch" in refused(whole.head, ("no", "yes", "perhaps"))
    bert = read_classifier(made("bert").adapters["a"])
    with pytest.raises(RefusedError, match="does not fit"):
        engine.load("other", bert)
    wide = {
        one: Matrices(its.a.repeat(900, 1), its.b.repeat(900, 1)) for one, its in whole.lora.modules.items()
    }
    with pytest.raises(RefusedError, match="too large"):
        engine.load("wide", ClassifierWeights(AdapterWeights(wide), whole.head, whole.labels))
