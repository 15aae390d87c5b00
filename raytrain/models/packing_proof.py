"""The proof that rows which lie after each other do not see each other: given by a model before it may pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raytrain.models.attention import (
    DOCUMENT_ATTENTION,
    KERNEL_ATTENTION,
    packed_arguments,
    register_document_attention,
)
from raytrain.models.inner import inner_model
from raytrain.models.model_files import first_line
from raytrain.models.prefix_trees import LIMB_TOKENS, tree_arguments, tree_of
from raytrain.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch
    from torch import nn

_TOLERANCE = (
    1e-3  # of the largest logit, for a model held in float32; packed and alone differ by rounding only
)
_LEAK_TOLERANCE = 1e-5  # the same; another row beside it changes not even the order of a row's sums

CANNOT = (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError, IndexError)
"""What models raise over a way of being asked that they do not know."""

_NUM_SHARED = 4  # tokens that the texts of the second proof begin with
_LIMB_TOKENS = (0, LIMB_TOKENS)  # each limb in a call of its own, and several in one


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
    if stretches_positions(model):
        return "its positions are stretched by the longest row beside a row"
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


def stretches_positions(model: Any) -> bool:
    """Whether the rotary embedding of all rows follows from the longest among them, as `longrope` and `dynamic` do:
    short rows, as in a proof, do not show it. In transformers `dynamic` even goes on as the longest row so far left it,
    until a short one comes."""
    kinds = [getattr(module, "rope_type", "") for module in model.modules()]
    told = [kind for one in kinds for kind in (one.values() if isinstance(one, dict) else [one])]
    return any("dynamic" in str(kind) or str(kind) == "longrope" for kind in told)


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
    except CANNOT as error:
        return first_line(error)
    return _refuted(
        "rows that lie after each other", difference, leak, dtype or next(model.parameters()).dtype
    )


def _refuted(what: str, difference: float, leak: float, dtype: torch.dtype) -> str | None:
    """What a proof comes to; None where it holds."""
    if leak <= _tolerance(_LEAK_TOLERANCE, dtype) and difference <= _tolerance(_TOLERANCE, dtype):
        return None
    return f"{what} see each other: logits differ by {max(difference, leak):.2g} of the largest"


def tolerance(dtype: torch.dtype) -> float:
    """Of a difference of logits, of the largest logit: what is computed otherwise differs by rounding."""
    return _tolerance(_TOLERANCE, dtype)


def _tolerance(of_float32: float, dtype: torch.dtype) -> float:
    import torch

    return of_float32 * (1.0 if dtype == torch.float32 else 50.0)


def try_sharing(model: nn.Module, dtype: torch.dtype | None = None) -> str | None:
    """Whether texts that begin alike may be read as one tree by a model that packs; the reason where not.

    As in `try_packing` logits must be those of each text alone, and one branch must not change another.
    """
    try:
        difference, leak = shared_difference(model, dtype), leak_between_branches(model, dtype)
    except CANNOT as error:
        return first_line(error)
    return _refuted(
        "texts that share their beginning", difference, leak, dtype or next(model.parameters()).dtype
    )


def packed_difference(model: Any, dtype: torch.dtype | None = None) -> float:
    """Largest difference of a logit between two rows alone and the same rows packed, of the largest logit.

    The model has been switched to attention over packed rows; the forward pass computes in `dtype`.
    """
    import torch

    rows = proof_rows(model)
    with _still(model, dtype), torch.no_grad():
        alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows]).float()
        packed = _packed_logits(model, rows)
    return float((packed - alone).abs().max()) / max(1.0, float(alone.abs().max()))


def leak_between_rows(model: Any, dtype: torch.dtype | None = None) -> float:
    """Largest change of a logit of the second of two packed rows when the first is another, of the largest logit.

    Whatever looks across rows, attention or not, shows here however little it looks.
    """
    import torch

    first, second = proof_rows(model)
    with _still(model, dtype), torch.no_grad():
        one, other = (_packed_logits(model, [row, second])[len(first) :] for row in (first, first.flip(0)))
    return float((one - other).abs().max()) / max(1.0, float(one.abs().max()))


def _go_back(model: Any, dtype: torch.dtype | None) -> None:
    """Gradients of the packed rows' embeddings: a kernel may know the way forward only. No parameter keeps one."""
    import torch

    rows = proof_rows(model)
    embedded = model.get_input_embeddings()(torch.cat(rows)[None]).detach().requires_grad_()
    arguments = packed_arguments([len(row) for row in rows], embedded.device)
    with _still(model, dtype), torch.enable_grad():
        logits = model(inputs_embeds=embedded, **arguments).logits.float()
        (gradient,) = torch.autograd.grad(logits.square().mean(), embedded)
    if not torch.isfinite(gradient).all():
        raise RuntimeError("its gradients are not finite")


def shared_difference(model: Any, dtype: torch.dtype | None = None) -> float:
    """As `packed_difference`, of texts that share their beginning: alone, and as a tree beside another row."""
    import torch

    texts = _proof_texts(model)
    with _still(model, dtype), torch.no_grad():
        alone = [
            model(input_ids=torch.tensor([text], device=model.device)).logits[0].float() for text in texts
        ]
        found = 0.0
        for limb_tokens in _LIMB_TOKENS:
            shared = _shared_logits(model, texts, limb_tokens)
            found = max(
                found, *(float((one - other).abs().max()) for one, other in zip(shared, alone, strict=True))
            )
    return found / max(1.0, *(float(one.abs().max()) for one in alone))


def leak_between_branches(model: Any, dtype: torch.dtype | None = None) -> float:
    """As `leak_between_rows`: what the last tokens of the first text do to the others, which do not share them."""
    import torch

    first, *others = _proof_texts(model)
    flipped = [*first[:_NUM_SHARED], *first[_NUM_SHARED:][::-1]]
    found = 0.0
    with _still(model, dtype), torch.no_grad():
        for limb_tokens in _LIMB_TOKENS:
            one, other = (
                torch.cat(_shared_logits(model, [text, *others], limb_tokens)[1:])
                for text in (first, flipped)
            )
            found = max(found, float((one - other).abs().max()) / max(1.0, float(one.abs().max())))
    return found


def _proof_texts(model: Any) -> list[list[int]]:
    """Three that share their beginning, of which the last two share more."""
    first, second = (row.tolist() for row in proof_rows(model))
    return [
        [*second[:_NUM_SHARED], *first],
        [*second, *first[:3]],
        [*second, *first[3:]],
    ]


def _shared_logits(model: Any, texts: Sequence[Sequence[int]], limb_tokens: int) -> list[torch.Tensor]:
    """Of each text, from one pass over their tree and a row beside it."""
    import torch

    trees = [tree_of([texts[-1]]), tree_of(texts, limb_tokens)]
    ids = torch.tensor([[token for tree in trees for token in tree.ids]], device=model.device)
    logits = model(input_ids=ids, **tree_arguments(trees, model.device)).logits[0, len(texts[-1]) :].float()
    return [logits[list(path)] for path in trees[1].paths]


def proof_rows(model: Any) -> list[torch.Tensor]:
    """Token ids of two short rows of different lengths."""
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
