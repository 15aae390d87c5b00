"""What every engine does; one is there, and another is to pass the same."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking_engines import Asked
from served_models import peft_answer
from tiny_models import spoil_token

from raytrain.errors import ConfigError, RefusedError
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.serving.adapters.weights import read_adapter
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.request import GenerationRequest, Overloaded, Piece, Sampling
from raytrain.serving.engine.section import EngineSection
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

END = 2
SPOILED = 383


def section(**settings: object) -> EngineSection:
    few = {"max_rows": 4, "prompt_tokens_per_step": 32, "prefix_cache_mib": 1, "adapter_mib": 4}
    return EngineSection.model_validate({**few, **settings})


@pytest.fixture(scope="module")
def engine(
    base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContinuousEngine]:
    """With all adapters; whoever uses it leaves it so."""
    loaded = load_for_inference(str(base), cache=Location(str(tmp_path_factory.mktemp("cache"))))
    spoil_token(loaded.model, SPOILED)
    engine = ContinuousEngine(loaded, section())
    for digest, folder in adapters.items():
        engine.load(digest, read_adapter(folder))
    yield engine
    engine.close()


@pytest.fixture
def own_engine(loaded: LoadedModel) -> Iterator[ContinuousEngine]:
    engine = ContinuousEngine(loaded, section())
    yield engine
    engine.close()


def prompts(num: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(3, 380) for _ in range(chance.randint(1, longest))] for _ in range(num)]


def test_each_answer_is_the_adapter_s_own_whatever_is_answered_beside(
    engine: ContinuousEngine, base: Path, adapters: dict[str, Path]
) -> None:
    before, chance = engine.stats(), random.Random(1)
    wanted = [(ids, chance.choice([None, *adapters]), chance.randint(1, 12)) for ids in prompts(30)]
    asked = [Asked(engine, ids, one, max_new_tokens=num, top_logprobs=0) for ids, one, num in wanted]
    for (ids, adapter, num), one in zip(wanted, asked, strict=True):
        expected = peft_answer(base, adapters.get(adapter or ""), ids, num, ends=[END])
        assert one.tokens == expected, (adapter, ids)
        finish = one.wait()
        assert finish.reason == ("length" if len(expected) == num else "stop")
        assert finish.num_prompt_tokens == len(ids)
        assert 0 <= finish.queue_s <= finish.first_token_s
    after = engine.stats()
    assert after.running == after.waiting == 0
    assert 1.5 < (after.rows_in_steps - before.rows_in_steps) / (after.steps - before.steps) <= 4, (
        "they were written side by side"
    )


def test_a_beginning_that_was_read_is_not_read_again_under_the_same_adapter(
    engine: ContinuousEngine, base: Path, adapters: dict[str, Path]
) -> None:
    shared = prompts(1, seed=3, longest=1)[0] * 30
    first, others = [*shared, 7, 8], [[*shared, 9], [*shared, 7, 8], [*shared, 10, 11, 12]]
    Asked(engine, first, "a").wait()
    for ids in others:
        asked = Asked(engine, ids, "a", top_logprobs=0)
        assert asked.tokens == peft_answer(base, adapters["a"], ids, 8, ends=[END])
        assert asked.wait().num_cached_tokens >= 30
    under_another = Asked(engine, first, "c", top_logprobs=0)
    assert under_another.wait().num_cached_tokens == 0
    assert under_another.tokens == peft_answer(base, adapters["c"], first, 8, ends=[END])


def test_a_prompt_longer_than_a_turn_is_read_in_parts(
    engine: ContinuousEngine, base: Path, adapters: dict[str, Path]
) -> None:
    ids = prompts(1, seed=5)[0] * 200
    asked = Asked(engine, ids[:200], "d", top_logprobs=0)
    assert asked.tokens == peft_answer(base, adapters["d"], ids[:200], 8, ends=[END])


def test_the_same_seed_draws_the_same_alone_and_beside_others(engine: ContinuousEngine) -> None:
    ids = prompts(1, seed=6)[0]
    drawn = {"temperature": 1.5, "seed": 11, "top_logprobs": 0, "max_new_tokens": 12}
    alone = Asked(engine, ids, "a", **drawn).tokens
    beside = [Asked(engine, one, "b", temperature=2.0, seed=3) for one in prompts(3, seed=7)]
    among = Asked(engine, ids, "a", **drawn).tokens
    other = Asked(engine, ids, "a", **{**drawn, "seed": 12}).tokens
    assert alone == among != other
    for one in beside:
        one.wait()


def test_top_p_keeps_the_likeliest_only(engine: ContinuousEngine) -> None:
    ids = prompts(1, seed=8)[0]
    greedy = Asked(engine, ids, top_logprobs=0).tokens
    assert Asked(engine, ids, top_logprobs=0, temperature=3.0, top_p=1e-9, seed=5).tokens == greedy
    assert Asked(engine, ids, top_logprobs=0, temperature=1e-310, seed=5).tokens == greedy


def test_logprobs_are_of_the_model_and_alternatives_in_order(engine: ContinuousEngine, base: Path) -> None:
    from served_models import peft_logits

    ids = prompts(1, seed=9)[0]
    asked = Asked(engine, ids, max_new_tokens=1, top_logprobs=3)
    asked.wait()
    (token,) = (one for piece in asked.pieces for one in piece.tokens)
    wanted = peft_logits(base, None, ids)[-1].double().log_softmax(0)
    assert token.logprob == pytest.approx(float(wanted[token.id]), abs=1e-4)
    best = wanted.topk(3)
    assert [one for one, _, _ in token.alternatives] == best.indices.tolist()
    assert [value for *_, value in token.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_stop_text_ends_it_and_is_not_told(engine: ContinuousEngine) -> None:
    ids = prompts(1, seed=10)[0]
    drawn = {"max_new_tokens": 60, "temperature": 1.0, "seed": 4}
    whole = Asked(engine, ids, **drawn).text
    at = next(at for at in range(10, len(whole)) if whole[at : at + 2].isascii())
    stop = whole[at : at + 2]
    asked = Asked(engine, ids, **drawn, stop=("never written at all", stop))
    assert asked.text == whole[: whole.index(stop)] != whole
    assert asked.wait().reason == "stop"
    assert asked.wait().num_new_tokens < 60


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 5}}, "required": ["n"],
         "additionalProperties": False},
        {"enum": ["left", "right"]},
    ],
)  # fmt: skip
def test_json_by_construction_from_a_model_that_knows_none(
    engine: ContinuousEngine, schema: dict[str, object]
) -> None:
    import jsonschema

    for seed in range(3):
        asked = Asked(
            engine, [70, 71], "a", max_new_tokens=200, temperature=1.0, seed=seed, json_schema=schema
        )
        if asked.wait().reason == "stop":
            jsonschema.validate(json.loads(asked.text), schema or {"type": "object"})
        else:
            assert not schema, "an object may go on, the others are short"


def test_a_schema_that_cannot_be_kept_is_refused(engine: ContinuousEngine) -> None:
    with pytest.raises(ConfigError, match="JSON schema"):
        Asked(engine, [5], json_schema={"type": "no such type"})
    assert engine.stats().waiting == 0


def test_a_full_queue_refuses_and_those_in_it_are_answered(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(loaded, section(max_rows=1, max_waiting=2))
    try:
        asked, refused = [], 0
        for ids in prompts(12, longest=4):
            try:
                asked.append(Asked(engine, ids, max_new_tokens=100))
            except Overloaded as overloaded:
                refused += 1
                assert overloaded.retry_after_s >= 1
        assert refused and len(asked) >= 3
        for one in asked:
            assert one.wait().reason in ("stop", "length")
    finally:
        engine.close()


def test_who_goes_away_frees_his_place(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(loaded, section(max_rows=1, max_waiting=4))
    try:
        long = Asked(engine, [5, 6], max_new_tokens=250)
        waiting = Asked(engine, [5, 7], max_new_tokens=250)
        assert long.begun.wait(60)
        waiting.cancel()
        long.cancel()
        assert (long.wait().reason, waiting.wait().reason) == ("cancelled", "cancelled")
        assert long.wait().num_new_tokens < 250 and waiting.wait().num_new_tokens == 0
        assert Asked(engine, [5, 6], max_new_tokens=2).wait().reason in ("stop", "length")
    finally:
        engine.close()


def test_what_gives_no_numbers_ends_alone(
    engine: ContinuousEngine, base: Path, adapters: dict[str, Path]
) -> None:
    ids = [20, 21, 22]
    good = [Asked(engine, ids, "a", top_logprobs=0) for _ in range(2)]
    bad = Asked(engine, [20, 21, SPOILED], "a")
    good += [Asked(engine, ids, "a", top_logprobs=0)]
    assert bad.wait().reason == "error"
    wanted = peft_answer(base, adapters["a"], ids, 8, ends=[END])
    assert [one.tokens for one in good] == [wanted] * 3


def test_a_turn_that_fails_ends_what_was_answered_and_no_more(
    own_engine: ContinuousEngine, base: Path, loaded: LoadedModel
) -> None:
    engine = own_engine
    model, calls = loaded.model, []

    def fail(*_: object) -> None:
        if len(calls) < 1:
            calls.append(1)
            raise MemoryError("no room for this pass")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    assert Asked(engine, [5, 6]).wait().reason == "error"
    handle.remove()
    asked = Asked(engine, [5, 6], top_logprobs=0)
    assert asked.tokens == peft_answer(base, None, [5, 6], 8, ends=[END])
    assert engine.is_alive


def test_whoever_cannot_be_told_harms_nobody(engine: ContinuousEngine, base: Path) -> None:
    def fail(_: Piece) -> None:
        raise RuntimeError("the event loop is closed")

    request = GenerationRequest("deaf", (5, 6), Sampling(max_new_tokens=100))
    engine.submit(request, fail)
    asked = Asked(engine, [5, 7], top_logprobs=0)
    assert asked.tokens == peft_answer(base, None, [5, 7], 8, ends=[END])
    assert engine.is_alive


def test_an_engine_that_only_fails_ends_and_says_so(
    own_engine: ContinuousEngine, loaded: LoadedModel
) -> None:
    engine = own_engine

    def fail(*_: object) -> None:
        raise MemoryError("no room for any pass")

    loaded.model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(Overloaded):
        for _ in range(100):
            assert Asked(engine, [5, 6]).wait().reason in ("error", "cancelled")
            time.sleep(0.05)
    assert not engine.is_alive


def test_an_adapter_that_is_unloaded_answers_what_was_accepted(
    engine: ContinuousEngine, base: Path, adapters: dict[str, Path]
) -> None:
    accepted = [Asked(engine, ids, "a", top_logprobs=0) for ids in prompts(6, seed=12)]
    engine.unload("a")
    with pytest.raises(KeyError):
        Asked(engine, [5], "a")
    assert "a" not in engine.stats().adapters
    for ids, one in zip(prompts(6, seed=12), accepted, strict=True):
        assert one.tokens == peft_answer(base, adapters["a"], ids, 8, ends=[END])
    engine.load("a", read_adapter(adapters["a"]))
    assert Asked(engine, [5], "a", top_logprobs=0).tokens == peft_answer(
        base, adapters["a"], [5], 8, ends=[END]
    )


def test_an_adapter_without_room_is_refused_and_nothing_else_changes(
    loaded: LoadedModel, adapters: dict[str, Path]
) -> None:
    engine = ContinuousEngine(loaded, section(adapter_mib=1))
    try:
        before = read_adapter(adapters["a"])
        num = 0
        with pytest.raises(RefusedError, match="no room"):
            for num in range(10_000):
                engine.load(f"digest-{num}", before)
        assert num > 1 and len(engine.stats().adapters) == num
        assert sum(engine.stats().adapters.values()) <= 1 << 20
    finally:
        engine.close()


def test_closing_ends_everything(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(loaded, section(max_rows=1))
    asked = [Asked(engine, ids, max_new_tokens=200) for ids in prompts(4, longest=4)]
    engine.close()
    assert all(one.wait().reason in ("cancelled", "stop", "length") for one in asked)
    with pytest.raises(Overloaded):
        Asked(engine, [5])
