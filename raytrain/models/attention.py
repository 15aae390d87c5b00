"""Attention over rows that lie after each other in one sequence: no row sees another.

Each row's part of the sequence goes through scaled-dot-product attention by itself. That is the cheapest mask there is,
none at all: the kernel's own causal flag does, no score across rows is ever computed, and the result is that of the row
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raytrain.models.inner import inner_model
from raytrain.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DOCUMENT_ATTENTION = "raytrain_documents"
"""The name under which transformers knows `document_attention`, once registered."""

_TOLERANCE = (
    1e-3  # of the largest logit, for a model held in float32; packed and alone differ by rounding only
)


def register_document_attention() -> None:
    """Make DOCUMENT_ATTENTION a name that `attn_implementation` takes; a second call changes nothing."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(DOCUMENT_ATTENTION, document_attention)
    AttentionMaskInterface.register(DOCUMENT_ATTENTION, _mask_of_padding)


def _mask_of_padding(*args: Any, **options: Any) -> Any:
    """sdpa's mask; None where rows are packed, for which `document_attention` needs none.

    transformers finds packed rows by their positions, and forbids the kernel's plain causal flag for them.
    """
    from transformers.masking_utils import sdpa_mask

    is_packed = options.get("attention_mask") is None and not options.get("allow_is_causal_skip", True)
    return None if is_packed else sdpa_mask(*args, **options)


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
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; without `document_ends` the batch is ordinary and goes to sdpa.

    query: (1, heads, tokens, size); key and value may have fewer heads. `document_ends` are the ends of the rows,
    counted in tokens from the start of the sequence. Returns (1, tokens, heads, size).
    """
    import torch
    from torch.nn import functional
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if document_ends is None:
        extra = {} if sliding_window is None else {"sliding_window": sliding_window}
        answer: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask,
            dropout=dropout, scaling=scaling, is_causal=is_causal, **extra, **options,
        )  # fmt: skip
        return answer
    for unknown in ("softcap", "position_bias", "s_aux"):
        if options.get(unknown) is not None:
            raise NotImplementedError(f"packed rows cannot be used with attention that has a {unknown}")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    outputs, start = [], 0
    for end in document_ends:
        mask = _window(end - start, sliding_window, query.device) if sliding_window and causal else None
        outputs.append(
            functional.scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, start:end],
                value[:, :, start:end],
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None,
                scale=scaling,
                enable_gqa=key.shape[1] != query.shape[1],
            )
        )
        start = end
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _window(length: int, sliding_window: int, device: torch.device) -> Tensor | None:
    """True where position i may look at j: the last `sliding_window` positions up to its own."""
    import torch

    if length <= sliding_window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) & (distance < sliding_window)


def try_packing(model: nn.Module) -> str | None:
    """Switch the model to document attention and prove it on two short rows; the reason where it cannot be used.

    The rows are run alone and packed; their logits must agree to rounding. A model that fails is switched back.
    """
    inside = inner_model(model)
    before = inside.config._attn_implementation
    if before not in ("sdpa", DOCUMENT_ATTENTION):
        return f"it works with model.attention sdpa, and the model is loaded with {before}"
    register_document_attention()
    try:
        with quiet_loading():
            inside.set_attn_implementation(DOCUMENT_ATTENTION)
        difference = packed_difference(model)
        reason = None
        if not difference <= _tolerance(model):
            reason = f"rows that lie after each other see each other: logits differ by {difference:.2g} of the largest"
    except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if reason is not None:
        inside.set_attn_implementation(before)
    return reason


def _tolerance(model: nn.Module) -> float:
    import torch

    return _TOLERANCE * (1.0 if next(model.parameters()).dtype == torch.float32 else 50.0)


def packed_difference(model: Any) -> float:
    """Largest difference of a logit between two rows alone and the same rows packed, of the largest logit.

    The model has been switched to document attention.
    """
    import torch

    vocabulary = int(model.get_input_embeddings().num_embeddings)
    lengths = [5, 9]
    ids = (torch.arange(sum(lengths)) * 7919 % vocabulary).to(next(model.parameters()).device)
    parts = torch.split(ids, lengths)
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat([model(input_ids=part[None]).logits[0] for part in parts]).float()
            packed = model(
                input_ids=ids[None], position_ids=positions[None], document_ends=[lengths[0], sum(lengths)]
            ).logits[0]
    finally:
        model.train(was_training)
    return float((packed.float() - alone).abs().max()) / max(1.0, float(alone.abs().max()))
