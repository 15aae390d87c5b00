"""Attention over rows that lie after each other in one sequence: no row sees another.

On a CPU each row's part of the sequence goes through scaled-dot-product attention by itself. That is the cheapest mask
there is, none at all: the kernel's own causal flag does, no score across rows is ever computed, and the result is that
of the row alone. On a GPU in half precision torch's own FlashAttention takes all rows in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from raytrain.models.decoding.step_attention import is_step, step_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn

DOCUMENT_ATTENTION = "raytrain_documents"
"""The name under which transformers knows `document_attention`, once registered."""

KERNEL_ATTENTION = "raytrain_documents_kernel"
"""The same for `kernel_attention`."""


@dataclass(frozen=True)
class Branching:
    """How a document branches after the tokens that all of it sees."""

    root: int
    """Tokens at its beginning that all others see."""
    limbs: tuple[int, ...]
    """Numbers of tokens of what follows; no limb sees another."""
    sees: tuple[Tensor, ...]
    """Of each limb, True where its token may look at one of the root or of its own: (limb, root + limb)."""
    positions: Tensor
    """(tokens,) of the document: what a sliding window is counted in."""


def register_document_attention() -> None:
    """Make both names ones that `attn_implementation` takes; a second call changes nothing."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    for name, attention in ((DOCUMENT_ATTENTION, document_attention), (KERNEL_ATTENTION, kernel_attention)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, sdpa_mask)


def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    document_ends: list[int] | None = None,
    document_branches: Sequence[Branching | None] | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; without `document_ends` the batch is ordinary and goes to sdpa.

    query: (1, heads, tokens, size); key and value may have fewer heads. `document_ends` are the ends of the rows,
    counted in tokens from the start of the sequence; `document_branches` has one entry a row, None where it is a plain
    one. Returns (1, tokens, heads, size).
    """
    import torch
    from torch.nn import functional
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if document_ends is None:
        if is_step(query, key, attention_mask, dropout):
            assert attention_mask is not None
            return step_attention(query, key, value, attention_mask, scaling), None
        extra = {} if sliding_window is None else {"sliding_window": sliding_window}
        answer: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask,
            dropout=dropout, scaling=scaling, is_causal=is_causal, **extra, **options,
        )  # fmt: skip
        return answer
    _refuse_unknown(options)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    attend: Callable[..., Tensor] = partial(
        functional.scaled_dot_product_attention,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    outputs: list[Tensor] = []
    start = 0
    for number, end in enumerate(document_ends):
        branching = document_branches[number] if document_branches is not None else None
        length = end - start if branching is None else branching.root
        parts = [part[:, :, start:end] for part in (query, key, value)]
        mask = _window(length, sliding_window, query.device) if sliding_window and causal else None
        first = (part[:, :, :length] for part in parts)
        outputs.append(attend(*first, attn_mask=mask, is_causal=causal and mask is None))
        if branching is not None:
            if not causal:
                raise NotImplementedError("rows that share a beginning need causal attention")
            outputs += _limbs(attend, parts, branching, sliding_window)
        start = end
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _limbs(
    attend: Callable[..., Tensor], parts: list[Tensor], branching: Branching, sliding_window: int | None
) -> list[Tensor]:
    """Each limb over the root and itself. parts: query, key and value of one document."""
    import torch

    query, *seen_parts = parts
    roots = [part[:, :, : branching.root] for part in seen_parts]
    outputs, start = [], branching.root
    for length, sees in zip(branching.limbs, branching.sees, strict=True):
        end, mask = start + length, sees
        if sliding_window:
            own = branching.positions[start:end]
            looked_at = torch.cat([branching.positions[: branching.root], own])
            mask = sees & (own[:, None] - looked_at[None] < sliding_window)
        key, value = (
            torch.cat([root, part[:, :, start:end]], dim=2)
            for root, part in zip(roots, seen_parts, strict=True)
        )
        outputs.append(attend(query[:, :, start:end], key, value, attn_mask=mask))
        start = end
    return outputs


def kernel_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    document_ends: list[int] | None = None,
    document_bounds: Tensor | None = None,
    document_branches: Sequence[Branching | None] | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As `document_attention`, all rows in one call of torch's FlashAttention, which needs half precision.

    `document_bounds` (rows + 1,) int32 on the query's device: 0, then `document_ends`.
    """
    is_plain = document_branches is None or not any(document_branches)
    # The kernel knows neither dropout nor rows that branch.
    if document_ends is None or document_bounds is None or dropout > 0.0 or not is_plain:
        return document_attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            document_ends=document_ends, document_branches=document_branches, sliding_window=sliding_window,
            **options,
        )  # fmt: skip
    import torch
    from torch.nn.attention.varlen import varlen_attn

    _refuse_unknown(options)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    longest = max(end - start for start, end in zip([0, *document_ends], document_ends, strict=False))
    before = sliding_window - 1 if sliding_window and causal else -1
    dtype = query.dtype
    if torch.is_autocast_enabled(
        query.device.type
    ):  # which does not know this kernel; rotated queries are float32
        dtype = torch.get_autocast_dtype(query.device.type)

    def by_token(part: Tensor) -> Tensor:  # (1, heads, tokens, size) → (tokens, heads, size)
        return part[0].transpose(0, 1).to(dtype).contiguous()

    answer: Any = varlen_attn(
        by_token(query),
        by_token(key),
        by_token(value),
        document_bounds,
        document_bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(before, 0 if causal else -1),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return answer[None], None


def _refuse_unknown(options: dict[str, Any]) -> None:
    for unknown in ("softcap", "position_bias", "s_aux"):
        if options.get(unknown) is not None:
            raise NotImplementedError(f"packed rows cannot be used with attention that has a {unknown}")


def _window(length: int, sliding_window: int, device: torch.device) -> Tensor | None:
    """True where position i may look at j: the last `sliding_window` positions up to its own."""
    import torch

    if length <= sliding_window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) & (distance < sliding_window)


def packed_arguments(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What a model that packs is given beside `input_ids` (1, tokens), for rows of these lengths after each other."""
    import torch

    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        # Of four dimensions it is a finished mask to transformers, which then looks for no packed rows by itself.
        "attention_mask": torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device),
        "document_ends": bounds[1:].tolist(),
        "document_bounds": bounds.to(device),
    }
