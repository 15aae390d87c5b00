"""The `openai` client, against a server over a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from answering_backends import BASE_DIGEST, EngineBackend, listening
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from raytrain.models.inference import load_for_inference
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.section import EngineSection
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.storage.location import Location

PROMPT = "What is the sum"
MESSAGES = [{"role": "user", "content": "What is the sum of two and three?"}]


@pytest.fixture(scope="module")
def client(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    loaded = load_for_inference(str(base), cache=Location(str(tmp_path_factory.mktemp("cache"))))
    engine = ContinuousEngine(loaded, EngineSection(max_rows=8))
    app = build_app(EngineBackend(engine, loaded.tokenizer), HttpSection(insecure=True))
    with listening(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
    engine.close()


def test_a_completion_has_openais_shape_and_says_who_answered(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt=PROMPT, max_tokens=6, temperature=0, extra_headers={"x-request-id": "mine-1"}
    )
    answer = raw.parse()
    Completion.model_validate(raw.http_response.json(), strict=True)  # the client itself checks nothing
    assert raw.headers["x-raytrain-digest"] == BASE_DIGEST
    assert raw.headers["x-raytrain-model"] == "tiny"
    assert raw.headers["x-request-id"] == "mine-1"
    assert answer.object == "text_completion"
    assert answer.model == "tiny"
    assert answer.system_fingerprint == BASE_DIGEST[:12]
    assert answer.model_extra == {
        "raytrain": {"model": "tiny", "digest": BASE_DIGEST, "base_digest": BASE_DIGEST}
    }
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
    assert answer.usage.prompt_tokens_details is not None


def test_what_is_streamed_is_what_is_answered_at_once(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "seed": 7}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    ChatCompletion.model_validate(whole.model_dump())
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump())
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == whole.choices[
        0
    ].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, "the same prompt was read before"
    assert {one.model_extra["raytrain"]["digest"] for one in chunks} == {BASE_DIGEST}
    assert all(one.usage is None for one in chunks[:-1])


def test_n_answers_to_several_prompts_come_in_order_and_draw_differently(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "prompt": [PROMPT, "two"], "n": 3, "max_tokens": 10, "seed": 3}
    answer = client.completions.create(**asked)  # type: ignore[call-overload]
    again = client.completions.create(**asked)  # type: ignore[call-overload]
    texts = [one.text for one in answer.choices]
    assert [one.index for one in answer.choices] == [0, 1, 2, 3, 4, 5]
    assert len(set(texts[:3])) == 3
    assert texts == [one.text for one in again.choices]
    alone = client.completions.create(model="tiny", prompt="two", max_tokens=10, seed=3)
    assert alone.choices[0].text == texts[3], "an answer does not depend on what is asked beside it"
    once = client.completions.create(model="tiny", prompt=[PROMPT, "two"], max_tokens=1)
    assert once.usage is not None
    assert answer.usage.prompt_tokens == once.usage.prompt_tokens, "a prompt counts once"
    assert 6 <= answer.usage.completion_tokens <= 60
    streamed = ["" for _ in texts]
    for chunk in client.completions.create(**asked, stream=True):  # type: ignore[call-overload]
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_without_a_seed_answers_differ(client: openai.OpenAI) -> None:
    texts = {
        client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12).choices[0].text
        for _ in range(4)
    }
    assert len(texts) > 1


def test_token_ids_are_a_prompt(client: openai.OpenAI) -> None:
    one = client.completions.create(model="tiny", prompt=[60, 61, 62], max_tokens=4, temperature=0)
    two = client.completions.create(model="tiny", prompt=[[60, 61, 62], [65]], max_tokens=4, temperature=0)
    assert one.usage is not None
    assert one.usage.prompt_tokens == 3
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].text == one.choices[0].text


def test_an_answer_ends_before_a_stop_text(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text  # type: ignore[call-overload]
    stop = whole[len(whole) // 2 :][:2]
    cut = client.completions.create(**asked, stop=["never there", stop]).choices[0]  # type: ignore[call-overload]
    assert cut.text == whole.partition(stop)[0]
    assert cut.finish_reason == "stop"


def test_logprobs_have_the_shape_of_each_route(client: openai.OpenAI) -> None:
    old = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2)
    told = old.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 4
    assert told.text_offset is not None
    assert told.text_offset[0] == 0
    assert told.text_offset == sorted(told.text_offset)
    assert all(told.tokens[i] in told.top_logprobs[i] for i in range(4))
    new = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3  # type: ignore[arg-type]
    )  # fmt: skip
    said = new.choices[0].logprobs
    assert said is not None
    assert said.content is not None
    assert len(said.content) == 4
    for token in said.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(one.logprob for one in token.top_logprobs), "the likeliest is chosen"
        assert token.bytes is None or bytes(token.bytes).decode() == token.token


def test_json_is_json_and_impossible_alternatives_have_numbers(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"],
              "additionalProperties": False}  # fmt: skip
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=40, seed=1, logprobs=True, top_logprobs=20,  # type: ignore[arg-type]
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert isinstance(json.loads(answer.choices[0].message.content or "")["yes"], bool)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert min(one.logprob for token in told.content for one in token.top_logprobs) == -9999.0


def test_a_schema_that_cannot_be_held_to_is_refused(client: openai.OpenAI) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=MESSAGES, response_format=wrong)  # type: ignore[call-overload]
    assert refused.value.param == "response_format"


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "raytrain"
    with pytest.raises(openai.NotFoundError, match="Models: tiny"):
        client.models.retrieve("tinny")


def test_a_prompt_beyond_the_context_is_refused_with_the_limit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="256") as refused:
        client.completions.create(model="tiny", prompt="word " * 300)
    assert refused.value.code == "context_length_exceeded"


def test_an_answer_of_a_chat_can_be_sent_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4, temperature=0)  # type: ignore[arg-type]
    second = client.chat.completions.create(
        model="tiny",
        messages=[
            *MESSAGES,
            first.choices[0].message,
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
        ],  # type: ignore[arg-type,list-item]
        max_completion_tokens=2,
    )
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
