"""Attention over rows that lie after each other in one sequence: no row sees another.

On a CPU each row's part of the sequence goes through scaled-dot-product attention by itself. That is the cheapest mask
there is, none at all: the kernel's own causal flag does, no score across rows is ever computed, and the result is that
of the row alone. On a GPU in half precision torch's own FlashAttention takes all rows in one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raytrain.models.inner import inner_model
from raytrain.models.quiet import quiet_loading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn

DOCUMENT_ATTENTION = "raytrain_documents"
"""The name under which transformers knows `document_attention`, once registered."""

KERNEL_ATTENTION = "raytrain_documents_kernel"
"""The same for `kernel_attention`."""

_TOLERANCE = (
    1e-3  # of the largest logit, for a model held in float32; packed and alone differ by rounding only
)
_LEAK_TOLERANCE = 1e-5  # the same; another row beside it changes not even the order of a row's sums


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
    _refuse_unknown(options)
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
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As `document_attention`, all rows in one call of torch's FlashAttention, which needs half precision.

    `document_bounds` (rows + 1,) int32 on the query's device: 0, then `document_ends`.
    """
    if document_ends is None or document_bounds is None or dropout > 0.0:  # the kernel knows no dropout
        return document_attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            document_ends=document_ends, sliding_window=sliding_window, **options,
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


def try_packing(
    model: nn.Module, dtype: torch.dtype | None = None, note: Callable[[str], None] | None = None
) -> str | None:
    """Switch the model to attention over packed rows and prove it on two short ones; the reason where it cannot be.

    The rows are run alone and packed; their logits must agree to rounding. dtype: what the forward pass computes in;
    None = the model's own. Where the one kernel for all rows fails its proof, `note` is told and each row goes by
    itself. A model that fails altogether is switched back.
    """
    inside = inner_model(model)
    before = inside.config._attn_implementation
    if before not in ("sdpa", DOCUMENT_ATTENTION, KERNEL_ATTENTION):
        return f"it works with model.attention sdpa, and the model is loaded with {before}"
    register_document_attention()
    first = next(model.parameters())
    if uses_kernel(first.device.type, dtype or first.dtype):
        reason = _failed_proof(model, KERNEL_ATTENTION, dtype)
        if reason is None:
            return None
        if note is not None:
            note(f"each row's attention is a call of its own, as FlashAttention for all rows fails: {reason}")
    reason = _failed_proof(model, DOCUMENT_ATTENTION, dtype)
    if reason is not None:
        inside.set_attn_implementation(before)
    return reason


def uses_kernel(device_type: str, dtype: torch.dtype) -> bool:
    """Whether all rows are tried in one call: FlashAttention is there for half precision on a GPU."""
    import torch

    return device_type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def _failed_proof(model: nn.Module, attention: str, dtype: torch.dtype | None) -> str | None:
    try:
        with quiet_loading():
            inner_model(model).set_attn_implementation(attention)
        difference, leak = packed_difference(model, dtype), leak_between_rows(model, dtype)
        if attention == KERNEL_ATTENTION:
            _go_back(model, dtype)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError) as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    used = dtype or next(model.parameters()).dtype
    if leak <= _tolerance(_LEAK_TOLERANCE, used) and difference <= _tolerance(_TOLERANCE, used):
        return None
    found = max(difference, leak)
    return f"rows that lie after each other see each other: logits differ by {found:.2g} of the largest"


def _tolerance(of_float32: float, dtype: torch.dtype) -> float:
    import torch

    return of_float32 * (1.0 if dtype == torch.float32 else 50.0)


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


def packed_difference(model: Any, dtype: torch.dtype | None = None) -> float:
    """Largest difference of a logit between two rows alone and the same rows packed, of the largest logit.

    The model has been switched to attention over packed rows; the forward pass computes in `dtype`.
    """
    import torch

    rows = _proof_rows(model)
    with _still(model, dtype), torch.no_grad():
        alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows]).float()
        packed = _packed_logits(model, rows)
    return float((packed - alone).abs().max()) / max(1.0, float(alone.abs().max()))


def leak_between_rows(model: Any, dtype: torch.dtype | None = None) -> float:
    """Largest change of a logit of the second of two packed rows when the first is another, of the largest logit.

    Whatever looks across rows, attention or not, shows here however little it looks.
    """
    import torch

    first, second = _proof_rows(model)
    with _still(model, dtype), torch.no_grad():
        one, other = (_packed_logits(model, [row, second])[len(first) :] for row in (first, first.flip(0)))
    return float((one - other).abs().max()) / max(1.0, float(one.abs().max()))


def _go_back(model: Any, dtype: torch.dtype | None) -> None:
    """Gradients of the packed rows' embeddings: a kernel may know the way forward only. No parameter keeps one."""
    import torch

    rows = _proof_rows(model)
    embedded = model.get_input_embeddings()(torch.cat(rows)[None]).detach().requires_grad_()
    arguments = packed_arguments([len(row) for row in rows], embedded.device)
    with _still(model, dtype), torch.enable_grad():
        logits = model(inputs_embeds=embedded, **arguments).logits.float()
        (gradient,) = torch.autograd.grad(logits.square().mean(), embedded)
    if not torch.isfinite(gradient).all():
        raise RuntimeError("its gradients are not finite")


def _proof_rows(model: Any) -> list[torch.Tensor]:
    import torch

    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = torch.arange(14, device=next(model.parameters()).device) * 7919 % vocabulary
    return [ids[:5], ids[5:]]


def _packed_logits(model: Any, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    ids = torch.cat(list(rows))
    arguments = packed_arguments([len(row) for row in rows], ids.device)
    logits: torch.Tensor = model(input_ids=ids[None], **arguments).logits[0].float()
    return logits


@contextmanager
def _still(model: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Evaluation mode, computing in `dtype`."""
    import torch

    first = next(model.parameters())
    is_mixed = dtype is not None and dtype != first.dtype
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(first.device.type, dtype=dtype, enabled=is_mixed):
            yield
    finally:
        model.train(was_training)
