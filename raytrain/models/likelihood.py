"""How likely a model finds given texts: many of them in one forward pass, without padding, logits only where needed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raytrain.errors import ConfigError, DataError
from raytrain.models.packed_reading import Reader, reading
from raytrain.models.text_generation import ids_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Passage:
    """Token ids of which the last `num_targets` are judged; at least one stands before them."""

    ids: tuple[int, ...]
    num_targets: int
    was_cut: bool = False
    """Whether the beginning was left out, as the model has not so many positions."""

    def __post_init__(self) -> None:
        assert 1 <= self.num_targets < len(self.ids), "something is judged, and something stands before it"


@dataclass(frozen=True)
class Likelihood:
    """What the model thinks of a passage's targets."""

    log_likelihood: float
    """Sum of the targets' log-probabilities, in nats; NaN where the model gives NaN."""
    num_targets: int
    is_greedy: bool
    """Whether each target is the model's likeliest token there."""
    token_log_likelihoods: tuple[float, ...] = ()
    """Of each target, in nats."""


def passage_of(
    tokenizer: PreTrainedTokenizerBase, context: str, continuation: str, max_positions: int | None
) -> Passage:
    """A continuation after its context, tokenized together; judged are the tokens beyond as many as the context has.

    Spaces at the end of the context go to the continuation, with which tokenizers join them; an empty context is the
    token that texts begin with. Both are what lm-evaluation-harness does, whose scores these are to equal. Raises
    DataError where the continuation is empty.
    """
    if not continuation:
        raise DataError(
            "there is nothing to judge",
            why=f"the text after {context[-40:]!r} is empty",
            fix="give every item, and every choice, a text",
        )
    bare = context.rstrip()
    context, continuation = bare, context[len(bare) :] + continuation
    ids = ids_of(tokenizer, context + continuation)
    num_context = len(ids_of(tokenizer, context)) if context else 0
    if num_context == 0:
        first = _first_token(tokenizer)
        num_context = 1 if ids[:1] == [first] else 0
        if not num_context:
            ids, num_context = [first, *ids], 1
    num_targets = max(1, len(ids) - num_context)
    if len(ids) <= num_targets:  # both were joined into one token: something has to stand before it
        ids = [_first_token(tokenizer), *ids]
    return _cut(ids, num_targets, max_positions)


def windows_of(tokenizer: PreTrainedTokenizerBase, text: str, max_positions: int) -> list[Passage]:
    """A whole text in windows of at most `max_positions`, each token judged once.

    The first window begins with the token that texts begin with, each other with the last token of the one before it;
    the last reaches back as far as it can, so that its tokens have a full context.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    chain = [_first_token(tokenizer), *ids]
    windows = []
    for start in range(0, len(ids), max_positions - 1):
        end = min(start + max_positions - 1, len(ids))
        begin = start if end < len(ids) or start == 0 else max(0, end + 1 - max_positions)
        windows.append(Passage(tuple(chain[begin : end + 1]), end - start))
    return windows


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for one in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if one is not None:
            return int(one)
    raise ConfigError(
        "a text without a context cannot be judged",
        why="the tokenizer has no token that texts begin with",
        fix="give every item a context",
    )


def _cut(ids: list[int], num_targets: int, max_positions: int | None) -> Passage:
    # The last token is judged and never read, so that one more than there are positions goes in.
    most = None if max_positions is None else max_positions + 1
    if most is None or len(ids) <= most:
        return Passage(tuple(ids), num_targets)
    return Passage(tuple(ids[-most:]), min(num_targets, most - 1), was_cut=True)


def log_likelihoods(
    model: nn.Module,
    passages: Sequence[Passage],
    *,
    max_tokens: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Likelihood]:
    """Each passage's, in their order: packed where the model proves that it can, and what passages share read once.

    `on_progress` gets (done, total) after each forward pass. The model is left as it was.
    """
    import torch

    found: dict[int, Likelihood] = {}
    texts = [one.ids[:-1] for one in passages]  # nothing follows the last token
    with reading(model) as reader, torch.inference_mode():
        for batch in reader.batches(texts, max_tokens):
            judged = _judge(reader, [[passages[i] for i in tree] for tree in batch])
            found.update(zip(itertools.chain.from_iterable(batch), judged, strict=True))
            for i in (i for tree in batch if len(tree) > 1 for i in tree):
                if math.isnan(found[i].log_likelihood):  # maybe another's fault, whom a mask only hides
                    (found[i],) = _judge(reader, [[passages[i]]])
            if on_progress is not None:
                on_progress(len(found), len(passages))
    return [found[i] for i in range(len(passages))]


def _judge(reader: Reader, groups: list[list[Passage]]) -> list[Likelihood]:
    """One forward pass over trees that lie after each other; of one passage where the model cannot pack.

    The logits at a place are made once, however many passages are judged there.
    """
    import torch

    device = reader.model.device
    texts = reader.lay_out([[one.ids[:-1] for one in group] for group in groups])
    passages = [one for group in groups for one in group]
    places = [path[-one.num_targets :] for path, one in zip(texts.paths, passages, strict=True)]
    kept = sorted({place for several in places for place in several})
    row_of = {place: row for row, place in enumerate(kept)}
    logits = (
        reader.model(**texts.arguments(device), logits_to_keep=torch.tensor(kept, device=device))
        .logits[0]
        .float()
    )
    rows = torch.tensor([row_of[place] for several in places for place in several], device=logits.device)
    targets = torch.tensor(
        [token for one in passages for token in one.ids[-one.num_targets :]], device=logits.device
    )
    likely = logits[rows, targets] - logits.logsumexp(dim=1)[rows]
    is_likeliest = logits.argmax(dim=1)[rows] == targets
    wanted = [one.num_targets for one in passages]
    return [
        Likelihood(math.fsum(part.tolist()), len(part), bool(greedy.all()), tuple(part.tolist()))
        for part, greedy in zip(likely.cpu().split(wanted), is_likeliest.cpu().split(wanted), strict=True)
    ]
