"""A replica follows a real registry: promoted, rolled back, refused, revoked, gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from served_models import peft_answer
from served_releases import Releases, damaged
from tiny_models import save_tiny_llama
from transformers import AutoTokenizer

from raytrain.serving.backend import Ask, BadPrompt, RefusedModel, ReplicaLost, Served, UnknownModel
from raytrain.serving.engine.request import Overloaded, Piece, Sampling
from raytrain.serving.prompts import Prompts
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.whole

END = 2
PROMPT = "What is the sum"


@dataclass
class Told:
    """What came of a request."""

    served: Served
    pieces: list[Piece] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token.id for piece in self.pieces for token in piece.tokens]


async def ask(replica: Replica, model: str, prompt: Any = PROMPT, **sampling: Any) -> Told:
    settings = Sampling(**{"max_new_tokens": 6, "top_logprobs": 0, **sampling})
    answer = replica.generate(Ask(f"r{time.monotonic_ns()}", model, prompt, settings))
    told: Told | None = None
    async for one in answer:
        if isinstance(one, Served):
            told = Told(one)
        else:
            assert told is not None, "who answers is told first"
            told.pieces.append(one)
    assert told is not None and told.pieces[-1].finish is not None
    return told


def asked(replica: Replica, model: str, prompt: Any = PROMPT, **sampling: Any) -> Told:
    return asyncio.run(ask(replica, model, prompt, **sampling))


@pytest.fixture
def releases(base: Path, tmp_path: Path) -> Releases:
    """sums@1.0.0 is in production, 1.1.0 is not."""
    releases = Releases(tmp_path, base)
    releases.release("sums", "1.0.0", seed=1)
    releases.release("sums", "1.1.0", seed=2)
    releases.promote("sums@1.0.0")
    return releases


Start = Callable[..., Replica]


@pytest.fixture
def start(releases: Releases) -> Iterator[Start]:
    started: list[Replica] = []

    def begin(base: Path | None = None, **more: Any) -> Replica:
        section = {
            "base_model": str(base or releases.base),
            "releases": {
                "registry": releases.registry.place,
                "keys": str(releases.ring.folder),
                "poll_s": 0.05,
                **more.pop("releases", {}),
            },
            "engine": {"max_rows": 4, "prefix_cache_mib": 1, **more.pop("engine", {})},
            "storage": {"path": str(releases.folder / "cache")},
            **more,
        }
        started.append(Replica(ServingSection.model_validate(section)))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def wait_for(what: Callable[[], Any]) -> Any:
    for _ in range(600):
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def expected(releases: Releases, digest: str | None, prompt: str = PROMPT, num: int = 6) -> list[int]:
    ids = AutoTokenizer.from_pretrained(releases.base)(prompt)["input_ids"]
    return peft_answer(
        releases.base, None if digest is None else releases.adapters[digest], ids, num, ends=[END]
    )


def production(replica: Replica, name: str = "sums") -> str | None:
    return asyncio.run(replica.readiness()).production.get(name)


def test_the_name_the_alias_the_version_and_the_base(releases: Releases, start: Start) -> None:
    replica = start()
    (first, second) = releases.adapters
    for model in ("sums", "sums@production", "sums@1.0.0"):
        told = asked(replica, model)
        assert (told.served.model, told.served.digest) == ("sums@1.0.0", first)
        assert told.tokens == expected(releases, first)
    alone = asked(replica, "base")
    assert alone.served.digest == alone.served.base_digest and alone.tokens == expected(releases, None)
    with pytest.raises(RefusedModel):
        asked(replica, "sums@1.1.0")  # nobody let it in
    cards = asyncio.run(replica.models())
    assert [(one.id, one.aliases) for one in cards] == [
        ("base", ()), ("sums", ("production",)), ("sums@production", ("production",)),
    ]  # fmt: skip
    assert expected(releases, first) != expected(releases, second), "the test can tell them apart"


def test_promoted_and_rolled_back_while_it_serves(releases: Releases, start: Start) -> None:
    replica = start()
    first, second = releases.adapters
    releases.promote("sums@1.1.0")
    wait_for(lambda: production(replica) == second)
    told = asked(replica, "sums")
    assert (told.served.model, told.tokens) == ("sums@1.1.0", expected(releases, second))
    assert asked(replica, "sums@previous").served.digest == first
    releases.roll_back("sums")
    wait_for(lambda: production(replica) == first)
    assert asked(replica, "sums").tokens == expected(releases, first)


def test_an_answer_that_began_keeps_its_adapter(releases: Releases, start: Start) -> None:
    replica = start()
    first, second = releases.adapters

    async def across() -> Told:
        answer = replica.generate(Ask("long", "sums", PROMPT, Sampling(max_new_tokens=60, top_logprobs=0)))
        served = await anext(answer)
        assert isinstance(served, Served)
        releases.promote("sums@1.1.0")
        while replica.routes.table.production["sums"].digest != second:
            await asyncio.sleep(0.02)
        told = Told(served)
        async for piece in answer:
            assert isinstance(piece, Piece)
            told.pieces.append(piece)
        return told

    told = asyncio.run(across())
    assert told.served.digest == first and told.tokens == expected(releases, first, num=60)


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(
    releases: Releases, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    replica = start()
    first = next(iter(releases.adapters))
    third = releases.release("sums", "1.2.0", seed=3)
    releases.promote("sums@1.2.0", "staging")
    wait_for(lambda: "sums@staging" in replica.routes.table.aliases)
    place = Path(releases.registry.store.bundle_place("sums", third.removeprefix("sha256:")))
    # Let in while it was whole, damaged before a replica has read it.
    replica.routes.stop()
    releases.promote("sums@1.2.0")
    damaged(place / "adapter" / "adapter_model.safetensors")
    replica.routes.refresh()
    assert asked(replica, "sums").served.digest == first
    readiness = asyncio.run(replica.readiness())
    assert readiness.is_ready and readiness.production == {"sums": first}
    assert any("sums@production" in one and "adapter_model" in one for one in readiness.problems)
    assert (readiness.numbers["local"]["alarms"], readiness.numbers["local"]["refused"]) == (1, 1)
    assert "ALARM sums@production is not served" in caplog.text and "sums@1.0.0 goes on" in caplog.text


def test_a_revoked_key_ends_its_versions(releases: Releases, start: Start) -> None:
    replica = start()
    assert asked(replica, "sums").tokens
    (key,) = releases.ring.known()
    releases.ring.revoke(key.id, "lost on a train")
    wait_for(lambda: production(replica) is None)
    for model in ("sums", "sums@1.0.0"):
        with pytest.raises((RefusedModel, UnknownModel)):
            asked(replica, model)
    assert asked(replica, "base").tokens == expected(releases, None)


def test_the_registry_gone_what_was_served_is_served_on(releases: Releases, start: Start) -> None:
    replica = start()
    first = next(iter(releases.adapters))
    place = Path(releases.registry.place)
    place.rename(place.with_name("away"))
    place.write_text("no folder any more")
    complained = wait_for(
        lambda: [one for one in asyncio.run(replica.readiness()).problems if "registry" in one]
    )
    assert str(place) in complained[0]
    assert asyncio.run(replica.readiness()).is_ready
    assert asyncio.run(replica.readiness()).numbers["local"]["registry_unreadable"] == 1
    assert asked(replica, "sums").tokens == expected(releases, first)
    place.unlink()
    place.with_name("away").rename(place)
    wait_for(lambda: not asyncio.run(replica.readiness()).problems)


def test_names_over_another_base_are_passed_over_unless_they_are_named(
    releases: Releases, start: Start, tmp_path: Path
) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=9)
    releases.release("elsewhere", "1.0.0", seed=4, base=other)
    releases.promote("elsewhere@1.0.0")
    quiet = start()
    assert asyncio.run(quiet.readiness()).problems == ()
    with pytest.raises(UnknownModel) as unknown:
        asked(quiet, "elsewhere")
    assert "sums" in unknown.value.known
    loud = start(releases={"names": ["sums", "elsewhere"]})
    told = asyncio.run(loud.readiness())
    assert asyncio.run(quiet.readiness()).is_ready and not told.is_ready
    problem, consequence = told.problems
    assert "elsewhere@production" in problem and problem.count("sha256:") == 2
    assert consequence == "elsewhere is in production and nothing answers as it"


@pytest.mark.slow
def test_more_adapters_than_there_is_room_for(releases: Releases, start: Start) -> None:
    digests = {"sums": next(iter(releases.adapters))}
    for number in range(4):
        name = f"task-{number}"
        digests[name] = releases.release(name, "1.0.0", seed=10 + number, rank=64)
        releases.promote(f"{name}@1.0.0", "staging")
    replica = start(engine={"adapter_mib": 1})  # 64 ranks take 0.25 MiB
    order = ["task-0", "task-1", "task-2", "task-3", "task-0", "sums", "task-1"] * 2
    for name in order:
        told = asked(replica, name if name == "sums" else f"{name}@staging")
        assert told.tokens == expected(releases, digests[name]), name
    assert replica.residents.evictions > 0
    assert digests["sums"] in replica.residents.resident(), "production stays"


def test_a_cold_adapter_lets_nobody_else_wait(
    releases: Releases, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = releases.release("other", "1.0.0", seed=3)
    releases.promote("other@1.0.0", to="staging")
    replica = start()
    load, reading, may_go = replica.residents.load, threading.Event(), threading.Event()

    def slow(digest: str, *arguments: Any, **options: Any) -> None:
        if digest == cold:
            reading.set()
            assert may_go.wait(60)
        load(digest, *arguments, **options)

    monkeypatch.setattr(replica.residents, "load", slow)

    async def both() -> tuple[list[Told], Told]:
        waiting = asyncio.create_task(ask(replica, "other@staging"))
        assert await asyncio.to_thread(reading.wait, 60)
        hot = [await ask(replica, "sums") for _ in range(3)]
        assert not waiting.done()
        may_go.set()
        return hot, await waiting

    hot, late = asyncio.run(both())
    assert late.served.digest == cold and {one.served.model for one in hot} == {"sums@1.0.0"}


def test_who_waits_for_an_adapter_to_load_is_no_hit(releases: Releases, start: Start) -> None:
    releases.release("other", "1.0.0", seed=3)
    releases.promote("other@1.0.0", to="staging")
    replica = start()

    def counted() -> tuple[int, int]:
        told = asyncio.run(replica.readiness()).numbers["local"]
        return told["hits"], told["loads"]

    hits, loads = counted()
    asked(replica, "other@staging")
    assert counted() == (hits, loads + 1)
    asked(replica, "other@staging")
    asked(replica, "base")
    assert counted() == (hits + 1, loads + 1), "the base model by itself needs none"


def test_what_is_wrong_with_a_prompt_is_said(start: Start) -> None:
    replica = start()
    for prompt, sampling, param, part in (
        ("", {}, "prompt", "empty"),
        (tuple([5] * 256), {}, "prompt", "256"),
        ((5, 5), {"max_new_tokens": 255}, "max_tokens", "exceed"),
        ("long " * 10_000, {}, "prompt", "50000 characters"),
        (({"role": "user", "content": ""},) * 300, {}, "prompt", "300 messages of 0 characters"),
        (tuple([400] * 1000), {}, "prompt", "has 1000 tokens"),
        ((400,), {}, "prompt", "none of the 291"),
    ):
        with pytest.raises(BadPrompt) as bad:
            asked(replica, "sums", prompt, **sampling)
        assert bad.value.param == param and part in bad.value.message
    with pytest.raises(UnknownModel):
        asked(replica, "../../etc/passwd")
    with pytest.raises(UnknownModel):
        asked(replica, "sums@../../etc/passwd")
    with pytest.raises(UnknownModel):
        asked(replica, "sums@9.9.9")


def test_a_long_text_lets_nobody_else_wait_while_it_is_made_tokens(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = start()
    request, reading, may_go = replica._prompts.request, threading.Event(), threading.Event()

    def slow(ask: Ask, route: Any) -> Any:
        if len(ask.prompt) > 1000:
            reading.set()
            assert may_go.wait(60)
        return request(ask, route)

    monkeypatch.setattr(replica._prompts, "request", slow)

    async def both() -> tuple[Told, BaseException | Told]:
        waiting = asyncio.create_task(ask(replica, "sums", "two and three " * 400))
        assert await asyncio.to_thread(reading.wait, 60)
        short = await ask(replica, "sums")
        may_go.set()
        (late,) = await asyncio.gather(waiting, return_exceptions=True)
        return short, late

    short, late = asyncio.run(both())
    assert short.tokens and isinstance(late, BadPrompt), "its tokens are more than the context"


def test_messages_go_through_the_adapter_s_template(releases: Releases, start: Start) -> None:
    told = asked(start(), "sums", ({"role": "user", "content": "five"},))
    text = "<|im_start|>user\nfive<|im_end|>\n<|im_start|>assistant\n"
    assert told.tokens == expected(releases, next(iter(releases.adapters)), text)


def test_one_whose_engine_has_ended_sends_away_to_another(start: Start) -> None:
    replica = start()
    replica.engine.close()
    with pytest.raises(ReplicaLost):
        asked(replica, "sums")
    assert not replica.is_alive and replica.answering == 0


def test_a_token_that_the_model_does_not_have_is_refused(start: Start) -> None:
    replica = start()
    prompts = Prompts(replica._loaded.tokenizer, replica.engine, num_embeddings=40)  # its tokenizer has more
    for prompt in ((1, 40), "sum"):
        with pytest.raises(BadPrompt, match="none of the 40"):
            prompts.request(Ask("r", "sums", prompt, Sampling(3)), None)


def test_whoever_goes_away_leaves_his_place(start: Start) -> None:
    replica = start(engine={"max_rows": 1, "max_waiting": 0})

    async def go_away() -> None:
        endless = {"type": "string", "minLength": 5000}
        answer = replica.generate(Ask("gone", "sums", PROMPT, Sampling(200, json_schema=endless)))
        await anext(answer)
        with pytest.raises(Overloaded):
            await ask(replica, "sums")
        await answer.aclose()
        while (now := replica.engine.stats()).running or now.waiting:
            await asyncio.sleep(0.02)

    asyncio.run(go_away())
    assert asked(replica, "sums").tokens
