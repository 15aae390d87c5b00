"""A suite's items through a model on this machine: each comes out as one record, whatever happens to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from jinja2 import TemplateError

from raytrain.errors import DataError, PlatformError, line_of
from raytrain.evaluation.answering.outcomes import failed_record, scored_record
from raytrain.evaluation.items import Item, Suite
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.scoring.registry import build_scorer
from raytrain.models.decoding.greedy import decode_greedily, holds_stop
from raytrain.models.inference import LoadedModel
from raytrain.models.likelihood import Passage, log_likelihoods, passage_of, windows_of
from raytrain.models.text_generation import encode_prompt, end_tokens_of

_CANNOT_BE_ASKED = (PlatformError, TemplateError, TypeError, ValueError)
"""What templates and tokenizers raise over one prompt: a role that the template refuses, text that is no Unicode."""


def answer_items(
    loaded: LoadedModel, suite: Suite, items: Sequence[Item], *, batch_size: int = 8
) -> Iterator[ItemRecord]:
    """One record an item, as they are found. Raises ConfigError where the suite does not fit the model at all."""
    if suite.section.kind == "generation":
        yield from _generate(loaded, suite, items, batch_size)
        return
    is_choice = suite.section.kind == "multiple_choice"
    yield from _judge(loaded, items, *((_of_choices, _chosen) if is_choice else (_of_text, _weighed)))


def _positions(loaded: LoadedModel) -> int | None:
    limit = getattr(loaded.model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def _prompt_text(loaded: LoadedModel, item: Item) -> str:
    if isinstance(item.prompt, str):
        return item.prompt
    text: str = loaded.tokenizer.apply_chat_template(item.prompt, tokenize=False, add_generation_prompt=True)
    return text


def _generate(
    loaded: LoadedModel, suite: Suite, items: Sequence[Item], batch_size: int
) -> Iterator[ItemRecord]:
    settings, section = suite.section.generation, suite.section.scorer
    assert section is not None, "the suite has been checked"
    scorer = build_scorer(section.name, section.options)
    limit = _positions(loaded)
    asked: list[tuple[Item, list[int]]] = []
    room = math.inf if limit is None else limit - settings.max_new_tokens
    for item in items:
        try:
            ids = encode_prompt(loaded.tokenizer, item.prompt)
        except _CANNOT_BE_ASKED as error:
            yield failed_record(item, line_of(error))
            continue
        if ids and len(ids) <= room:
            asked.append((item, ids))
        else:
            too_long = f"the prompt has {len(ids)} tokens, and there is room for {room}"
            yield failed_record(item, too_long if ids else "the prompt is empty")
    answers = decode_greedily(
        loaded.model,
        [ids for _, ids in asked],
        max_new_tokens=settings.max_new_tokens,
        end_tokens=end_tokens_of(loaded.model, loaded.tokenizer),
        pad_id=int(loaded.tokenizer.pad_token_id or 0),
        batch_size=batch_size,
        is_complete=partial(holds_stop, loaded.tokenizer, settings.stop) if settings.stop else None,
    )
    for place, answer in answers:
        item, ids = asked[place]
        if answer.stop_reason == "nan":
            why = f"the model gave NaN or infinity after {len(answer.tokens)} tokens"
            yield failed_record(item, why, _prompt_text(loaded, item))
            continue
        text = loaded.tokenizer.decode(answer.tokens, skip_special_tokens=True)
        yield replace(
            scored_record(item, _prompt_text(loaded, item), str(text), settings.stop, scorer),
            num_prompt_tokens=len(ids),
            num_new_tokens=len(answer.tokens),
            stop_reason=answer.stop_reason,
            least_margin=answer.least_margin,
            seconds=answer.seconds,
        )


def _judge(
    loaded: LoadedModel,
    items: Sequence[Item],
    passages_of: Callable[[LoadedModel, Item, str], list[Passage]],
    record_of: Callable[[Item, str, list[Passage], list[float]], ItemRecord],
) -> Iterator[ItemRecord]:
    """The passages of all items together through the model; an item that has none is told as failed."""
    several: list[tuple[Item, str, list[Passage]]] = []
    for item in items:
        try:
            prompt = _prompt_text(loaded, item)
            several.append((item, prompt, passages_of(loaded, item, prompt)))
        except _CANNOT_BE_ASKED as error:
            yield failed_record(item, line_of(error))
    began = time.perf_counter()
    judged = iter(log_likelihoods(loaded.model, [one for _, _, passages in several for one in passages]))
    share = (time.perf_counter() - began) / max(1, len(several))
    for item, prompt, passages in several:
        found = [next(judged).log_likelihood for _ in passages]
        if any(math.isnan(one) for one in found):
            yield failed_record(item, "the model's log-likelihood is NaN", prompt)
        else:
            yield replace(record_of(item, prompt, passages, found), seconds=share)


def _of_choices(loaded: LoadedModel, item: Item, prompt: str) -> list[Passage]:
    return [passage_of(loaded.tokenizer, prompt, choice, _positions(loaded)) for choice in item.choices]


def _chosen(item: Item, prompt: str, passages: list[Passage], found: list[float]) -> ItemRecord:
    """The likeliest choice is taken, the first of equals."""
    best = max(range(len(found)), key=found.__getitem__)
    return ItemRecord(
        item.id,
        item.digest(),
        prompt,
        item.choices[best],
        item.references,
        float(best == item.right),
        group=item.group,
        category=item.category,
        num_prompt_tokens=len(passages[0].ids) - passages[0].num_targets,
        log_likelihoods=tuple(found),
        num_bytes=tuple(_num_bytes(choice) for choice in item.choices),
        choices=item.choices,
        right=item.right,
        was_cut=any(one.was_cut for one in passages),
    )


def _of_text(loaded: LoadedModel, item: Item, prompt: str) -> list[Passage]:
    """After its context in one piece, or by itself in windows."""
    (text,) = item.references
    limit = _positions(loaded)
    if prompt or limit is None or not text:
        return [passage_of(loaded.tokenizer, prompt, text, limit)]
    windows = windows_of(loaded.tokenizer, text, limit)
    if not windows:
        raise DataError(
            "there is nothing to judge", why="the text has no tokens", fix="give every item a text"
        )
    return windows


def _weighed(item: Item, prompt: str, passages: list[Passage], found: list[float]) -> ItemRecord:
    """The score is the mean probability of a byte, 2 to the power of minus its bits: from 0 to 1, more is better."""
    total, num_bytes = math.fsum(found), _num_bytes(item.references[0])
    return ItemRecord(
        item.id,
        item.digest(),
        prompt,
        "",
        item.references,
        math.exp(total / num_bytes),
        group=item.group,
        category=item.category,
        num_new_tokens=sum(one.num_targets for one in passages),
        log_likelihoods=(total,),
        num_bytes=(num_bytes,),
        was_cut=any(one.was_cut for one in passages),
    )


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
