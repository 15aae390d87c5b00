"""Texts that begin alike and are read as one tree are what each is alone; a branch that sees another is found out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from raytrain.models import attention, likelihood, packed_reading
from raytrain.models.attention import KERNEL_ATTENTION, register_document_attention
from raytrain.models.likelihood import Passage, log_likelihoods
from raytrain.models.packing_proof import shared_difference, try_packing, try_sharing
from raytrain.models.prefix_trees import grow_trees, num_tokens, tree_of

pytestmark = pytest.mark.whole

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


def build(name: str) -> Any:
    torch.manual_seed(0)
    if name == "GPT-2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=256)
        ).eval()
    if name == "Mistral, sliding window":
        return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=7)).eval()
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def alone(model: Any, passage: Passage) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([passage.ids])).logits[0].double().log_softmax(-1)
    places = range(len(passage.ids) - passage.num_targets, len(passage.ids))
    return sum(float(logits[i - 1, passage.ids[i]]) for i in places)


def questions(num: int, shots: int = 20) -> list[Passage]:
    """Choices of items whose prompts begin alike: of one token and of many, one the beginning of another, and twice."""
    generator = np.random.default_rng(5)

    def drawn(count: int) -> list[int]:
        return [int(one) for one in generator.integers(3, 96, count)]

    found = []
    beginning = drawn(shots)
    for _ in range(num):
        asked = [*beginning, *drawn(int(generator.integers(5, 30)))]
        long = drawn(9)
        for choice in ([7], [8], long, [*long, 4, 5], long, drawn(80), [7, 8]):
            found.append(Passage((*asked, *choice), len(choice)))
    return [found[i] for i in generator.permutation(len(found))]


@pytest.mark.parametrize("max_tokens", [1, 150, 4096])
@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Mistral, sliding window"])
def test_shared_is_as_alone(name: str, max_tokens: int) -> None:
    given = questions(6)
    model = build(name)
    for one, passage in zip(log_likelihoods(model, given, max_tokens=max_tokens), given, strict=True):
        assert one.log_likelihood == pytest.approx(alone(model, passage), abs=1e-4)
        assert one.num_targets == passage.num_targets


def test_what_is_shared_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = questions(6)
    model = build("Llama")
    log_likelihoods(model, given[:1])  # the proofs
    read: list[int] = []
    right = likelihood._judge

    def counting(model: Any, groups: list[list[Passage]], **options: Any) -> Any:
        read.extend(len(tree_of([one.ids[:-1] for one in group]).ids) for group in groups)
        return right(model, groups, **options)

    monkeypatch.setattr(likelihood, "_judge", counting)
    log_likelihoods(model, given)
    apart = sum(len(one.ids) - 1 for one in given)
    assert sum(read) * 2 < apart
    assert sum(read) == 20 + sum(len(set_of) for set_of in suffixes(given))


def suffixes(given: list[Passage]) -> list[set[tuple[int, ...]]]:
    """Of each item every beginning that is read beyond the twenty tokens that all share."""
    items: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for one in given:
        read = one.ids[:-1]
        items.setdefault(read[:25], set()).update(read[: i + 1] for i in range(20, len(read)))
    return list(items.values())


def test_each_text_finds_its_tokens_and_positions_in_the_tree() -> None:
    texts = sorted(list(one.ids) for one in questions(5))
    tree = tree_of(texts)
    for text, path in zip(texts, tree.paths, strict=True):
        assert [tree.ids[place] for place in path] == text
        assert [tree.positions[place] for place in path] == list(range(len(text)))
    assert len(tree.ids) == num_tokens(texts)
    assert tree.root == 20
    assert [place for limb in tree.limbs for place in limb] == list(range(20, len(tree.ids)))


def test_texts_that_share_little_stay_apart() -> None:
    long = [list(range(3, 60)), [3, *range(40, 90)]]
    assert sorted(grow_trees(long, 1000)) == [[0], [1]]
    assert grow_trees([[3, 4, 5, 6, 7], [3, 4, 5, 6, 9]], 1000) == [[0, 1]]
    assert grow_trees([[3, 4, 5, 6, 7], [3, 4, 5, 6, 9]], 5) == [[0], [1]], "not more tokens than may be"


@pytest.mark.parametrize("leak", ["limbs", "inside a limb", "a shift by one"])
def test_branches_that_see_each_other_are_found_out_and_nothing_is_shared(
    monkeypatch: pytest.MonkeyPatch, leak: str
) -> None:
    right = attention._limbs

    def leaking(attend: Any, parts: Any, branching: Any, sliding_window: Any) -> Any:
        if leak == "limbs":  # the whole document before each, causal as a plain row
            length = parts[0].shape[2]
            return [attend(*parts, is_causal=True)[:, :, branching.root : length]]
        shift = 0 if leak == "inside a limb" else 1
        sees = tuple(torch.ones_like(one).tril(branching.root - shift) for one in branching.sees)
        changed = attention.Branching(branching.root, branching.limbs, sees, branching.positions)
        return right(attend, parts, changed, sliding_window)

    monkeypatch.setattr(attention, "_limbs", leaking)
    model = build("Llama")
    assert try_packing(model) is None, "rows do not share anything"
    reason = try_sharing(model)
    assert reason is not None and "see each other" in reason
    given = questions(3)
    for one, passage in zip(log_likelihoods(model, given), given, strict=True):
        assert one.log_likelihood == pytest.approx(alone(model, passage), abs=1e-4)


def test_where_rows_go_through_one_kernel_trees_go_by_themselves() -> None:
    """No kernel on the CPU: it is not asked for."""
    model = build("Llama")
    assert try_packing(model) is None
    register_document_attention()
    model.set_attn_implementation(KERNEL_ATTENTION)
    assert shared_difference(model) < 1e-5


def test_a_model_proves_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama")
    given = questions(1)
    first = log_likelihoods(model, given)
    monkeypatch.setattr(packed_reading, "try_packing", lambda _: pytest.fail("proven again"))
    assert log_likelihoods(model, given) == first
    assert model.config._attn_implementation == "sdpa"
