"""How much of a device's arithmetic a training speed uses: MFU (Chowdhery et al. 2022, "PaLM", appendix B).

Counted is the least that a step needs: products with the weights for every token, with the head for every target,
attention inside a row up to the token itself; never padding or recomputation. All contenders have the same numerator.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_DATA_SHEETS = {
    "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12,
    "RTX 4090": 165e12,
}  # fmt: skip
"""Dense bfloat16 products a second by the makers' data sheets (SXM boards of H100 and H200)."""


@dataclass(frozen=True)
class Work:
    """Multiplications and additions of one token, forward and backward, LoRA on all linear layers of the blocks."""

    of_token: float
    of_target: float
    of_length_squared: float

    def of_rows(self, lengths: Sequence[int], num_targets: int) -> float:
        """In FLOP, for rows of these lengths in tokens."""
        squares = sum(length * length for length in lengths)
        return self.of_token * sum(lengths) + self.of_target * num_targets + self.of_length_squared * squares


def lora_work(config: Any, rank: int) -> Work:
    """Of a decoder that transformers builds from `config`, its head frozen.

    A frozen weight takes 2 FLOP forward and 2 backward, for the gradient of its input; an adapter's 2 more for its own.
    Attention takes 2 * width * length² forward, the half above the diagonal left out, and twice that backward.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    frozen = sum(one.weight.numel() for one in linear)
    adapters = sum(rank * (one.in_features + one.out_features) for one in linear)
    width = config.num_attention_heads * getattr(
        config, "head_dim", config.hidden_size // config.num_attention_heads
    )
    return Work(
        4.0 * frozen + 6.0 * adapters, 4.0 * head.weight.numel(), 6.0 * config.num_hidden_layers * width
    )


def device_peak(device: str, dtype: torch.dtype) -> tuple[float, str]:
    """FLOP/s that the device can do, and where the number comes from: its data sheet, or a large product measured."""
    if device.startswith("cuda") and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, peak in _DATA_SHEETS.items():
            if re.search(rf"\b{known}\b", name) and not re.search("PCIe|NVL", name):
                return peak, f"data sheet of {name}"
    return _measured_peak(device, dtype), "a square product of that type, measured"


def _measured_peak(device: str, dtype: torch.dtype) -> float:
    size = 8192 if device.startswith("cuda") else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(6):
        started = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - started)
    return 2.0 * size**3 / statistics.median(times[1:])
