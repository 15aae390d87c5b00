"""A model of ours, as lm-evaluation-harness asks one. Imported where the extra raytrain[eval] is installed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from lm_eval.api.model import LM

from raytrain.errors import ConfigError
from raytrain.models.decoding.greedy import decode_greedily, holds_stop, text_before
from raytrain.models.inference import LoadedModel
from raytrain.models.likelihood import log_likelihoods, passage_of, windows_of
from raytrain.models.text_generation import encode_prompt, end_tokens_of

_log = logging.getLogger(__name__)

_MOST_TOKENS = 256  # of an answer, where the task does not say; the harness's own default
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names by which a task may say it, the first that is there counts."""


class RaytrainLM(LM):  # type: ignore[misc]  # untyped upstream
    """Answers the three kinds of requests: likelihood of a continuation, of a whole text, and a text of its own."""

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        super().__init__()
        self._loaded = loaded
        self._batch_size = batch_size
        self._device = loaded.model.device
        limit = getattr(loaded.model.config, "max_position_embeddings", None)
        self._limit = None if limit is None else int(limit)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding gives it) of each (context, continuation)."""
        passages = [
            passage_of(self._loaded.tokenizer, context, continuation, self._limit)
            for context, continuation in (one.args[:2] for one in requests)
        ]
        found = log_likelihoods(self._loaded.model, passages)
        return self._kept("loglikelihood", requests, [(one.log_likelihood, one.is_greedy) for one in found])

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """The log-likelihood of each text by itself, in windows where it is longer than the model reads at once."""
        tokenizer = self._loaded.tokenizer
        parts = [
            windows_of(tokenizer, text, self._limit)
            if self._limit is not None
            else [passage_of(tokenizer, "", text, None)]
            for text in (one.args[0] for one in requests)
        ]
        found = iter(log_likelihoods(self._loaded.model, [one for windows in parts for one in windows]))
        sums = [math.fsum(next(found).log_likelihood for _ in windows) for windows in parts]
        return self._kept("loglikelihood_rolling", requests, sums)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The likeliest continuation of each context up to a stop text. Raises ConfigError where a task samples."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for i, one in enumerate(requests):
            groups.setdefault(read_settings(one.args[1]), []).append(i)
        answers = [""] * len(requests)
        for (stops, most), numbers in groups.items():
            texts = self._generate([requests[i].args[0] for i in numbers], stops, most)
            for i, text in zip(numbers, texts, strict=True):
                answers[i] = text
        return self._kept("generate_until", requests, answers)

    def _generate(self, contexts: list[str], stops: Sequence[str], most: int) -> list[str]:
        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        prompts = [encode_prompt(tokenizer, context) for context in contexts]
        if self._limit is not None:
            room = self._limit - most
            num_cut = sum(len(ids) > room for ids in prompts)
            if num_cut:  # as the harness's own models do
                _log.warning("%d contexts lose their beginning: there is room for %d tokens", num_cut, room)
            prompts = [ids[-room:] for ids in prompts]
        answers = decode_greedily(
            model,
            prompts,
            max_new_tokens=most,
            end_tokens=end_tokens_of(model, tokenizer),
            pad_id=int(tokenizer.pad_token_id or 0),
            batch_size=self._batch_size,
            is_complete=partial(holds_stop, tokenizer, stops) if stops else None,
        )
        texts = [""] * len(prompts)
        for place, answer in answers:
            texts[place] = text_before(tokenizer.decode(answer.tokens, skip_special_tokens=True), stops)
        return texts

    def _kept(self, kind: str, requests: list[Any], found: list[Any]) -> list[Any]:
        """What was found, told to the harness's own cache."""
        for one, result in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, one.args, result)
        return found

    @property
    def tokenizer_name(self) -> str:
        """Part of the name that the harness keeps requests under."""
        return str(self._loaded.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's template, where one is asked for."""
        return str(self._loaded.tokenizer.chat_template or "") if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as the model reads them; without a generation prompt its last message is gone on with."""
        text: str = self._loaded.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text


def read_settings(given: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """(stop texts, longest answer in tokens) of a task's generation_kwargs. Raises ConfigError where it samples."""
    if given.get("do_sample") or float(given.get("temperature") or 0.0) > 0.0:
        raise ConfigError(
            "the task samples its answers",
            why="raytrain evaluates the likeliest answer, which comes out the same each time",
            fix="set do_sample: false and temperature: 0 in its generation_kwargs",
        )
    until = given.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    lengths = [given[name] for name in _LENGTHS if given.get(name) is not None]
    return tuple(stop for stop in stops if stop), int(lengths[0]) if lengths else _MOST_TOKENS
