"""How much likelier an item became by fine-tuning: of what was trained on, more than of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raytrain.errors import ConfigError, PlatformError
from raytrain.evaluation.contamination.parts import question_texts
from raytrain.evaluation.items import Item, Suite
from raytrain.models.inference import LoadedModel
from raytrain.models.likelihood import Likelihood, Passage, log_likelihoods, passage_of

MIN_K = 0.2
"""Share of the unlikeliest tokens: Shi et al. 2024, "Detecting pretraining data from large language models"."""


@dataclass(frozen=True)
class ItemLoss:
    """What one model thinks of an item."""

    loss: float
    """Mean negative log-likelihood of a token of question and answer, in nats."""
    answer_loss: float
    """Of a token of the answer alone: what supervised fine-tuning is trained on."""
    min_k: float
    """Mean log-likelihood of the unlikeliest fifth of the tokens."""
    num_tokens: int


@dataclass(frozen=True)
class LossRatio:
    """An item under the fine-tuned model over the same under its base: low where it was trained on."""

    ratio: float
    """Of question and answer. Where prompts carry no loss, the question's part of it is noise."""
    answer_ratio: float
    """Of the answer alone: what accuses."""
    min_k: float
    """Of the fine-tuned model alone, a second opinion: high where it was trained on."""


def loss_ratio(tuned: ItemLoss, base: ItemLoss) -> LossRatio:
    """Losses of 0 are of text that cannot be otherwise; such a base loss makes the ratio 1."""
    return LossRatio(
        tuned.loss / base.loss if base.loss > 0 else 1.0,
        tuned.answer_loss / base.answer_loss if base.answer_loss > 0 else 1.0,
        tuned.min_k,
    )


def item_losses(
    loaded: LoadedModel,
    suite: Suite,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, ItemLoss | str]:
    """By item id; a text says why an item has none."""
    found: dict[str, ItemLoss | str] = {}
    asked: list[tuple[str, list[Passage]]] = []
    for item in suite.items:
        try:
            asked.append((item.id, _passages(loaded, suite, item)))
        except PlatformError as error:
            found[item.id] = error.line
    passages = [one for _, several in asked for one in several]
    judged = iter(log_likelihoods(loaded.model, passages, on_progress=on_progress))
    for name, several in asked:
        one = _loss([next(judged) for _ in several])
        found[name] = one if math.isfinite(one.loss) else "the model's log-likelihood is not finite"
    return found


def min_k(token_log_likelihoods: Sequence[float], share: float = MIN_K) -> float:
    """Mean of the lowest `share` of them, at least one."""
    lowest = sorted(token_log_likelihoods)[: max(1, int(share * len(token_log_likelihoods)))]
    return math.fsum(lowest) / len(lowest)


def _loss(parts: Sequence[Likelihood]) -> ItemLoss:
    tokens = [token for part in parts for token in part.token_log_likelihoods]
    answer = parts[-1]
    return ItemLoss(
        -math.fsum(tokens) / len(tokens),
        -answer.log_likelihood / answer.num_targets,
        min_k(tokens),
        len(tokens),
    )


def _passages(loaded: LoadedModel, suite: Suite, item: Item) -> list[Passage]:
    """The question after what goes before it, then the answer after the question: as a row would have been trained on,
    without worked examples."""
    limit = getattr(loaded.model.config, "max_position_embeddings", None)
    positions = None if limit is None else int(limit)
    asked = "\n".join(question_texts(item))
    (answer, *_) = item.references
    if suite.section.kind == "perplexity":
        return [passage_of(loaded.tokenizer, "", answer, positions)]
    before, prompt = _rendered(loaded, item, asked)
    question = passage_of(loaded.tokenizer, before, prompt, positions)
    whole = before + prompt
    told = passage_of(loaded.tokenizer, whole, answer, positions)
    # Spaces at the end of the prompt are the template's, not the answer's; among few tokens they would count.
    num_spaces = len(loaded.tokenizer(whole)["input_ids"]) - len(
        loaded.tokenizer(whole.rstrip())["input_ids"]
    )
    return [question, replace(told, num_targets=max(1, told.num_targets - num_spaces))]


def _rendered(loaded: LoadedModel, item: Item, asked: str) -> tuple[str, str]:
    """What stands before the question, and the question with all that follows it up to the answer."""
    if isinstance(item.prompt, str):
        return "", f"{asked}\n"
    if not loaded.tokenizer.chat_template:
        raise ConfigError(
            "the model cannot be asked in chat mode",
            why="its tokenizer has no chat template",
            fix="ask in mode: completion",
        )
    asked = item.prompt[-1]["content"]
    systems = [one for one in item.prompt if one["role"] == "system"]
    text: str = loaded.tokenizer.apply_chat_template(
        [*systems, {"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    before, found, after = text.rpartition(asked)
    return (before, found + after) if found else ("", text)
