"""One new token a row, against PyTorch's own attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny_llama
from torch.nn import functional

from raytrain.models import attention
from raytrain.models.decoding.greedy import decode_greedily
from raytrain.models.decoding.step_attention import FEWEST_TOKENS, is_step, step_attention
from raytrain.models.inference import load_for_inference
from raytrain.storage.location import Location


def a_step(rows: int, heads: int, groups: int, tokens: int, value_size: int = 16) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * tokens)
    query = torch.randn((rows, 1, heads, 16), generator=generator).transpose(1, 2)
    # As a slot's cache gives them: a part of what has room for more.
    key, value = (
        torch.randn((rows, groups, tokens + 7, size), generator=generator) for size in (16, value_size)
    )
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    mask = (torch.arange(tokens) < lengths)[:, None, None]
    return query, key[:, :, :tokens], value[:, :, :tokens], mask


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(
    ("rows", "heads", "groups", "tokens", "value_size"),
    [(1, 4, 4, 96, 16), (1, 9, 3, 300, 16), (16, 9, 3, 100, 16), (5, 8, 1, 131, 16), (2, 4, 4, 100, 12)],
)
def test_it_is_scaled_dot_product_attention(
    rows: int, heads: int, groups: int, tokens: int, value_size: int, scaling: float | None
) -> None:
    query, key, value, mask = a_step(rows, heads, groups, tokens, value_size)
    with torch.inference_mode():
        assert is_step(query, key, mask, 0.0)
        found = step_attention(query, key, value, mask, scaling)
        wanted = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
        )
    torch.testing.assert_close(found, wanted.transpose(1, 2), atol=2e-6, rtol=1e-5)


def test_what_is_no_step_is_left_to_pytorch() -> None:
    query, key, _, mask = a_step(2, 4, 2, 200)
    assert not is_step(query, key, mask, 0.0), "gradients may be wanted"
    with torch.inference_mode():
        assert not is_step(query, key, mask, 0.1)
        assert not is_step(query, key, None, 0.0)
        assert not is_step(query, key, mask.float(), 0.0)
        assert not is_step(query, key[:, :, : FEWEST_TOKENS - 1], mask, 0.0)
        assert not is_step(torch.cat([query, query], 2), key, mask, 0.0)
        assert not is_step(query.bfloat16(), key, mask, 0.0)


def test_long_answers_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_for_inference(
        str(save_tiny_llama(tmp_path / "base")), cache=Location(str(tmp_path / "cache"))
    )
    prompts = [
        [5 + (7 * i + place) % 90 for place in range(length)] for i, length in enumerate((120, 99, 150))
    ]
    calls: list[int] = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(len(arguments[0]))
        return step_attention(*arguments)

    wanted = [
        loaded.model.generate(
            torch.tensor([one]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(one) :].tolist()
        for one in prompts
    ]
    monkeypatch.setattr(attention, "step_attention", counted)
    found = dict(decode_greedily(loaded.model, prompts, max_new_tokens=12, end_tokens=(), pad_id=0))
    assert max(calls) == len(prompts), "all rows side by side"
    assert [list(found[number].tokens) for number in range(len(prompts))] == wanted
