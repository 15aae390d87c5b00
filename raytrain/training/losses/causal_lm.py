"""Next-token cross-entropy, computed only where there are labels.

A vocabulary of 50,000 makes the logits the largest thing in the step: 200 KB a token in float32, several times over.
Prompt tokens carry no loss, so their logits are never made; and of the rest only a chunk exists at a time.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from raytrain.data.collators import IGNORED_LABEL
from raytrain.models.inner import inner_model
from raytrain.training.losses.base import LossSetup, take_target_positions
from raytrain.training.losses.batch_checks import ValueChecks, check_shapes, logits_of
from raytrain.training.losses.registry import refuse_other_tasks, register_loss

CHUNK_TOKENS = 256
"""Tokens whose logits exist at one time: 50 MB at a vocabulary of 50,000."""

HeadPath = Literal["frozen", "recomputed", "kept", "whole"]
"""How logits are made: see `CausalLMLoss`."""

_PROOF_TOLERANCE = 1e-3  # of the loss; the paths differ by rounding only


def shifted(labels: torch.Tensor) -> torch.Tensor:
    """Targets at the positions that predict them: the label of t + 1 at t. labels: (rows, length)."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)


class CausalLMLoss:
    """Summed cross-entropy in nats of each next token.

    labels: (rows, length), IGNORED_LABEL where there is no loss. Logits are reduced in float32.

    frozen       the head is a plain matrix that is not trained: its gradient with respect to the hidden state is made
                 with the loss, chunk by chunk, so that nothing is computed twice and no logits are kept
    recomputed   the head is trained or adapted: chunks are computed again in the backward pass
    kept         the model's own forward pass makes the logits, at positions where some row has a target; for models
                 whose weights are whole only during it
    whole        the model's own forward pass makes the logits, all of them; works with every model
    """

    takes_target_positions = True

    def __init__(self, path: HeadPath = "whole", check_values: ValueChecks | None = None) -> None:
        self.path = path
        self._check_values = check_values

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        targets = shifted(labels)
        inputs, positions = take_target_positions(inputs)
        if self._check_values is not None:
            self._check_values(inputs, labels)
        if self.path == "whole":
            logits = logits_of(model, inputs)
            check_shapes(logits, labels)
            return functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
            )
        if self.path == "kept":
            return _kept_loss(model, inputs, targets, positions)
        if positions is None:
            positions = (targets.flatten() != IGNORED_LABEL).nonzero()[:, 0]
        inside = inner_model(model)
        hidden: torch.Tensor = inside.base_model(**inputs).last_hidden_state
        if not len(positions):
            return hidden.float().sum() * 0.0
        chosen, targets = hidden.flatten(0, 1)[positions], targets.flatten()[positions]
        head = inside.get_output_embeddings()
        if self.path == "frozen":
            total: torch.Tensor = _FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
                chosen, head.weight, head.bias, targets
            )
            return total
        sums = [
            checkpoint(
                _chunk_loss,
                head,
                chosen[i : i + CHUNK_TOKENS],
                targets[i : i + CHUNK_TOKENS],
                use_reentrant=False,
            )
            for i in range(0, len(targets), CHUNK_TOKENS)
        ]
        return torch.stack(sums).sum()


def _kept_loss(
    model: torch.nn.Module, inputs: dict[str, Any], targets: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """Columns of `targets` where some row has one are kept, or the first: a forward pass needs some."""
    if positions is not None and len(targets) == 1:
        kept = positions if len(positions) else torch.zeros(1, dtype=torch.int64, device=targets.device)
    else:
        kept = (targets != IGNORED_LABEL).any(dim=0)
        kept[0] |= ~kept.any()
    logits = logits_of(model, {**inputs, "logits_to_keep": kept})
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets[:, kept].flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


def _chunk_loss(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(hidden).float(), targets, reduction="sum")


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy over `hidden @ weight.T + bias`, with its gradient made on the way forward.

    hidden: (targets, size); weight: (vocabulary, size). d loss / d logits = softmax(logits) - onehot(target).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        weight = weight.to(dtype)
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if needs_gradient else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            wanted = targets[part, None]
            logits = functional.linear(
                hidden[part].to(dtype), weight, None if bias is None else bias.to(dtype)
            ).float()
            log_probabilities = torch.log_softmax(logits, dim=1)
            total -= log_probabilities.gather(1, wanted).sum()
            if gradient is not None:
                logits = log_probabilities.exp_()
                logits.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                gradient[part] = logits.to(dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None


@register_loss("causal_lm")
def build_causal_lm_loss(setup: LossSetup) -> CausalLMLoss:
    """The loss by its cheapest path."""
    refuse_other_tasks(setup, "causal_lm", frozenset(["causal_lm"]))
    path, _ = choose_path(setup.model, holds_whole_model=setup.holds_whole_model)
    return CausalLMLoss(path, ValueChecks(setup.model))


def choose_path(model: torch.nn.Module, *, holds_whole_model: bool) -> tuple[HeadPath, str | None]:
    """The cheapest path that gives this model's own loss, proven on a few tokens; why, where it is `whole`.

    Models that do more after their head than a matrix product (a cap, a scale) are found out by the proof.
    """
    inside = inner_model(model)
    try:
        path: HeadPath = "kept"
        if holds_whole_model:
            head = inside.get_output_embeddings()
            is_plain = type(head) is torch.nn.Linear and not any(p.requires_grad for p in head.parameters())
            path = "frozen" if is_plain else "recomputed"
        reason = _proof(model, path)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ("whole", reason) if reason is not None else (path, None)


def _proof(model: torch.nn.Module, path: HeadPath) -> str | None:
    vocabulary = int(inner_model(model).get_input_embeddings().num_embeddings)
    device = next(model.parameters()).device
    ids = (torch.arange(12, device=device) * 7919 % vocabulary).view(2, 6)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = ids.clone()
    labels[:, 2:4] = IGNORED_LABEL
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = float(CausalLMLoss("whole")(model, inputs, labels))
            found = float(CausalLMLoss(path)(model, inputs, labels))
    finally:
        model.train(was_training)
    if abs(found - expected) <= _PROOF_TOLERANCE * max(1.0, abs(expected)):
        return None
    return f"its head does more than a matrix product: loss {found:.6g} instead of {expected:.6g}"
