"""torch.compile where it pays: the feed-forward layers.

Beside matrix products they are sums and products of single elements (adapter, activation, gate), each of which reads
and writes everything once; compiled, everything is read once for all of them. Whole blocks are left
alone: their attention takes the length of each row, so that every batch would be compiled anew.
"""

from __future__ import annotations

import torch

from raytrain.errors import ConfigError
from raytrain.models.inner import inner_model

_FEED_FORWARD = "mlp"
"""What transformers calls the feed-forward layer of a block, in Llama, Mistral, Qwen, Gemma, GPT-2 and their kin."""

_TOLERANCE = 1e-2  # of the largest number; half precision rounds the fused sums in its own way


def compile_feed_forward(model: torch.nn.Module) -> int:
    """Have the feed-forward layers compiled, in place; how many there are.

    Names and modules stay what they are. One of them is run at once, forward and backward, against what it gave before.
    Raises ConfigError where there is none, or where it cannot be compiled on this machine or gives something else.
    """
    layers = [
        module
        for name, module in inner_model(model).named_modules()
        if name.rpartition(".")[2] == _FEED_FORWARD
    ]
    if not layers:
        raise ConfigError(
            "train.compile: true has nothing to compile in this model",
            why=f"{type(inner_model(model)).__name__} has no layer named `{_FEED_FORWARD}`",
            fix="set train.compile: false",
        )
    width = int(inner_model(model).config.hidden_size)
    expected = _tried(layers[0], width)
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        found = _tried(layers[0], width)
    except Exception as error:  # the compiler's faults are of many kinds
        raise ConfigError(
            "train.compile: true cannot be had here",
            why=f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}",
            fix="install a C++ compiler (g++) where the workers run, or set train.compile: false",
        ) from error
    for ours, theirs in zip(found, expected, strict=True):
        difference = float((ours - theirs).abs().max())
        if not difference <= _TOLERANCE * max(1e-6, float(theirs.abs().max())):
            raise ConfigError(
                "train.compile: true gives something else than the model by itself",
                why=f"a compiled layer is off by {difference:.3g}",
                fix="set train.compile: false, and report the model",
            )
    return len(layers)


def _tried(layer: torch.nn.Module, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and gradient of the input, for numbers that are the same at every call; no parameter keeps a gradient."""
    first = next(layer.parameters())
    generator = torch.Generator().manual_seed(0)
    given = torch.randn((1, 5, width), generator=generator).to(first.device, first.dtype).requires_grad_()
    was_training = layer.training
    layer.eval()
    try:
        answer = layer(given)
        (gradient,) = torch.autograd.grad(answer.float().square().sum(), given)
    finally:
        layer.train(was_training)
    return answer.detach().float(), gradient.float()
