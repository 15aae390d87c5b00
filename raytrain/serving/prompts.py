"""What is asked, as the engine takes it: tokens, and how much room they leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raytrain.models.text_generation import ids_of
from raytrain.serving.adapters.opening import Servable
from raytrain.serving.backend import Ask, BadPrompt, Message, Prompt, PromptTooLong
from raytrain.serving.engine.request import Engine, GenerationRequest

_CHARACTERS_PER_TOKEN = 32
"""No tokenizer's tokens are so long on average: longer prompts are refused without being read. A message counts as a
token beside its content: no template tells one from the next by less."""


def num_characters(prompt: Prompt) -> int:
    """That there are to be read, or as good as; none of token ids."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(one["content"]) + _CHARACTERS_PER_TOKEN for one in prompt if not isinstance(one, int))


class Prompts:
    """Of one model."""

    def __init__(self, tokenizer: Any, engine: Engine, num_embeddings: int) -> None:
        """num_embeddings: tokens that the model knows; its tokenizer may have more."""
        self._tokenizer, self._engine = tokenizer, engine
        self._num_tokens = min(len(tokenizer), num_embeddings)

    def request(self, ask: Ask, route: Servable | None) -> GenerationRequest:
        """Raises BadPrompt where it cannot be read, or leaves no room for the answer; ConfigError for a JSON schema."""
        prompt = ask.prompt
        most = self._engine.max_context_tokens
        if prompt and isinstance(prompt[0], int):
            _refuse_more(len(prompt), most)
            ids = tuple(int(one) for one in prompt)  # type: ignore[arg-type]
        else:
            ids = self._encoded(prompt, route, most)  # type: ignore[arg-type]
        if any(not 0 <= one < self._num_tokens for one in ids):
            raise BadPrompt(
                f"a token of the prompt is none of the {self._num_tokens} that the model has", "prompt"
            )
        if not ids:
            raise BadPrompt("the prompt is empty", "prompt")
        _refuse_more(len(ids), most)
        room = most - len(ids)
        wanted = ask.sampling.max_new_tokens
        if wanted > room:
            raise PromptTooLong(
                f"{len(ids)} tokens of prompt and {wanted} of answer exceed the model's context of {most}",
                "max_tokens",
            )
        sampling = ask.sampling if wanted else replace(ask.sampling, max_new_tokens=room)
        if sampling.json_schema is not None:
            self._engine.check_schema(sampling.json_schema)
        return GenerationRequest(ask.id, ids, sampling, None if route is None else route.digest)

    def _encoded(
        self, prompt: str | tuple[Message, ...], route: Servable | None, most: int
    ) -> tuple[int, ...]:
        tokenizer, num_read = self._tokenizer, num_characters(prompt)
        if num_read > most * _CHARACTERS_PER_TOKEN:
            raise PromptTooLong(_too_long(prompt, num_read, most), "prompt")
        if isinstance(prompt, str):
            return tuple(ids_of(tokenizer, prompt))
        template = (route.chat_template if route is not None else None) or tokenizer.chat_template
        if not template:
            raise BadPrompt("the model has no chat template: ask /v1/completions", "messages")
        from jinja2 import TemplateError

        try:
            text = tokenizer.apply_chat_template(
                list(prompt), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise BadPrompt(f"the chat template refuses these messages: {error}", "messages") from error
        return tuple(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def _refuse_more(num_tokens: int, most: int) -> None:
    if num_tokens >= most:
        raise PromptTooLong(
            f"the prompt has {num_tokens} tokens, and the model's context is {most} with the answer", "prompt"
        )


def _too_long(prompt: str | tuple[Message, ...], num_read: int, most: int) -> str:
    what = f"{num_read} characters"
    if not isinstance(prompt, str):
        written = num_read - len(prompt) * _CHARACTERS_PER_TOKEN
        what = f"{len(prompt)} messages of {written} characters"
    return f"the prompt has {what}, and the model's context is {most} tokens"
