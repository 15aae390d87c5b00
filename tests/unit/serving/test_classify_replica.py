"""A replica serves classifiers that a real registry has released, beside adapters that write, or alone over BERT."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from answering_backends import wait_until
from served_classifiers import peft_probabilities
from served_models import peft_answer
from served_releases import Releases
from tiny_task_models import save_tiny_bert
from transformers import AutoTokenizer

from raytrain.serving.backend import (
    Ask,
    BadPrompt,
    Classified,
    ClassifyAsk,
    OtherTask,
    RefusedModel,
    Served,
    UnknownModel,
)
from raytrain.serving.engine.request import Overloaded, Piece, Sampling
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.whole

TEXTS = ("What is the sum", "five", "two and three and two and three")


def replica_of(releases: Releases, **more: Any) -> Replica:
    section = {
        "base_model": str(releases.base),
        "releases": {
            "registry": releases.registry.place, "keys": str(releases.ring.folder), "poll_s": 0.05,
        },
        "engine": {"max_rows": 4, "prefix_cache_mib": 1},
        "classification": {"max_waiting": 16, **more},
        "storage": {"path": str(releases.folder / "cache")},
    }  # fmt: skip
    return Replica(ServingSection.model_validate(section))


def classified(replica: Replica, model: str, texts: Sequence[str] = TEXTS) -> Classified:
    return asyncio.run(replica.classify(ClassifyAsk(f"r{time.monotonic_ns()}", model, tuple(texts))))


async def written(replica: Replica, model: str, num: int = 6) -> tuple[str, list[int]]:
    """Digest and tokens."""
    digest, tokens = "", []
    settings = Sampling(max_new_tokens=num, top_logprobs=0)
    async for one in replica.generate(Ask(f"w{time.monotonic_ns()}", model, TEXTS[0], settings)):
        if isinstance(one, Served):
            digest = one.digest
        else:
            assert isinstance(one, Piece)
            tokens += [token.id for token in one.tokens]
    return digest, tokens


def is_found(releases: Releases, found: Classified, texts: Sequence[str] = TEXTS) -> None:
    """The probabilities are those of PEFT with the adapter of the digest that the answer names."""
    tokenizer = AutoTokenizer.from_pretrained(releases.base)
    adapter = releases.adapters[found.served.digest]
    expected = peft_probabilities(releases.base, adapter, [tokenizer(one)["input_ids"] for one in texts])
    for answer, row in zip(found.answers, expected, strict=True):
        assert answer.probabilities == pytest.approx(row, abs=1e-5)


@pytest.fixture(scope="module")
def releases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Over a Llama: `sums` writes, `tools` and `moods` classify."""
    releases = Releases(tmp_path_factory.mktemp("mixed"), base)
    releases.release("sums", "1.0.0", seed=1)
    releases.release("tools", "1.0.0", seed=2, labels=["clock", "sum", "weather"])
    releases.release("tools", "1.1.0", seed=3, labels=["clock", "sum", "weather"])
    releases.release("moods", "1.0.0", seed=4, labels=["bad", "good"], rank=2)
    for name in ("sums", "tools", "moods"):
        releases.promote(f"{name}@1.0.0")
    return releases


@pytest.fixture(scope="module")
def replica(releases: Releases) -> Iterator[Replica]:
    replica = replica_of(releases)
    yield replica
    replica.close()


def test_classifiers_and_what_writes_answer_side_by_side(releases: Releases, replica: Replica) -> None:
    digests = dict(zip(("sums", "tools", "tools 1.1.0", "moods"), releases.adapters, strict=True))

    async def at_once() -> list[Any]:
        asks = [
            replica.classify(ClassifyAsk(f"{one}{i}", one, TEXTS))
            for i in range(2)
            for one in ("tools", "moods")
        ]
        return list(await asyncio.gather(*asks, written(replica, "sums"), written(replica, "base")))

    *found, (digest, tokens), (_, alone) = asyncio.run(at_once())
    for one, name in zip(found, ["tools", "moods"] * 2, strict=True):
        assert (one.served.model, one.served.digest) == (f"{name}@1.0.0", digests[name])
        is_found(releases, one)
    assert found[0].labels == ("clock", "sum", "weather") and found[1].labels == ("bad", "good")
    ids = AutoTokenizer.from_pretrained(releases.base)(TEXTS[0])["input_ids"]
    assert digest == digests["sums"]
    assert tokens == peft_answer(releases.base, releases.adapters[digest], ids, 6, ends=[2])
    assert alone == peft_answer(releases.base, None, ids, 6, ends=[2])


def test_long_texts_let_nobody_else_wait_while_they_are_made_tokens(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, threads = replica.classifier.encoded, []

    def encoded_somewhere(ask: ClassifyAsk) -> Any:
        threads.append(threading.current_thread())
        return encoded(ask)

    monkeypatch.setattr(replica.classifier, "encoded", encoded_somewhere)
    for texts in (TEXTS, ("two and three " * 20,) * 16):
        assert len(asyncio.run(replica.classify(ClassifyAsk("r", "tools", texts))).answers) == len(texts)
    short, long = threads
    assert short is threading.main_thread() and long is not short


def test_it_is_ready_and_lists_what_each_does(releases: Releases, replica: Replica) -> None:
    readiness = asyncio.run(replica.readiness())
    assert readiness.is_ready and readiness.problems == ()
    assert readiness.production.keys() == {"sums", "tools", "moods"}
    assert len(readiness.numbers["local"]["classifiers"]) == 2
    cards = {one.id: one.task for one in asyncio.run(replica.models())}
    assert cards["base"] == cards["sums"] == "causal_lm"
    assert cards["tools"] == cards["moods@production"] == "sequence_classification"


def test_each_does_what_it_was_trained_for(replica: Replica) -> None:
    for model in ("sums", "sums@1.0.0", "base"):
        with pytest.raises(OtherTask, match=r"writes texts and classifies none: ask /v1/completions"):
            classified(replica, model)
    with pytest.raises(OtherTask, match=r"`tools@1.0.0` classifies texts and writes none: ask /v1/classify"):
        asyncio.run(written(replica, "tools"))


def test_what_cannot_be_read_is_refused(replica: Replica) -> None:
    with pytest.raises(BadPrompt, match=r"text 1 has 402 tokens, and the model's context is 256"):
        classified(replica, "tools", ["x", "five " * 400])
    with pytest.raises(BadPrompt, match="characters, and the model's context is 256 tokens"):
        classified(replica, "tools", ["x" * 100_000])
    with pytest.raises(BadPrompt, match="17 texts are more than the 16 of one request"):
        classified(replica, "tools", ["x"] * 17)
    with pytest.raises(UnknownModel) as unknown:
        classified(replica, "tool")
    assert "tools" in unknown.value.known
    with pytest.raises(RefusedModel):
        classified(replica, "tools@1.1.0")  # nobody let it in


def test_a_full_queue_is_told(replica: Replica) -> None:
    async def many() -> list[Any]:
        asks = [replica.classify(ClassifyAsk(f"m{i}", "tools", TEXTS * 2)) for i in range(8)]
        return list(await asyncio.gather(*asks, return_exceptions=True))

    found = asyncio.run(many())
    assert any(isinstance(one, Classified) for one in found)
    assert {type(one) for one in found} <= {Classified, Overloaded}
    assert any(isinstance(one, Overloaded) for one in found)


def test_promoted_rolled_back_and_revoked(releases: Releases, replica: Replica) -> None:
    """The last over this base: its key counts no more after it."""
    digests = list(releases.adapters)

    def production() -> str | None:
        return asyncio.run(replica.readiness()).production.get("tools")

    releases.promote("tools@1.1.0")
    wait_until(lambda: production() == digests[2], "the new one is in production")
    found = classified(replica, "tools")
    assert found.served.model == "tools@1.1.0"
    is_found(releases, found)
    assert classified(replica, "tools@previous").served.digest == digests[1]
    releases.roll_back("tools")
    wait_until(lambda: production() == digests[1], "the old one is back")
    is_found(releases, classified(replica, "tools"))
    (key,) = releases.ring.known()
    releases.ring.revoke(key.id, "lost on a train")
    wait_until(lambda: production() is None, "its versions answer no more")
    with pytest.raises((RefusedModel, UnknownModel)):
        classified(replica, "tools")


def test_over_bert_there_is_nothing_to_write_with(tmp_path: Path) -> None:
    releases = Releases(tmp_path, save_tiny_bert(tmp_path / "bert"))
    releases.release("moods", "1.0.0", seed=1, labels=["bad", "good", "so so"])
    releases.release("places", "1.0.0", seed=2, labels=["no", "yes"], rank=8)
    releases.promote("moods@1.0.0")
    releases.promote("places@1.0.0")
    replica = replica_of(releases)
    try:
        assert asyncio.run(replica.readiness()).is_ready and replica.is_alive
        names = [one.id for one in asyncio.run(replica.models())]
        assert names == ["moods", "moods@production", "places", "places@production"]
        for name in ("moods", "places"):
            texts = ["the good cat lives in paris", "awful"]
            found = classified(replica, name, texts)
            is_found(releases, found, texts)
            with pytest.raises(OtherTask, match="classifies texts and writes none"):
                asyncio.run(written(replica, name))
        for ask in (lambda: classified(replica, "bert"), lambda: asyncio.run(written(replica, "bert"))):
            with pytest.raises(OtherTask, match="by itself neither writes nor classifies"):
                ask()
        with pytest.raises(BadPrompt, match="70 tokens, and the model's context is 64"):
            classified(replica, "moods", ["cat " * 68])
    finally:
        replica.close()
