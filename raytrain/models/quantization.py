"""Four-bit loading for QLoRA (Dettmers et al. 2023), through bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError

if TYPE_CHECKING:
    import torch


def quantized_loading_options(device: str | torch.device) -> dict[str, Any]:
    """What `from_pretrained` needs to load weights as NF4. ConfigError that names all that is missing."""
    import torch

    missing = []
    if not torch.cuda.is_available():
        missing.append("no CUDA device is visible")
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes is not installed")
    if torch.device(device).type != "cuda":
        missing.append(f"the model is to stand on `{device}`")
    if missing:
        raise ConfigError(
            "adapter.method: qlora cannot be used here",
            why="; ".join(missing),
            fix="with an NVIDIA GPU: pip install 'raytrain[qlora]'; without one: adapter.method=lora",
        )
    from transformers import BitsAndBytesConfig

    bfloat16 = torch.cuda.is_bf16_supported()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bfloat16 else torch.float16,
    )
    return {"quantization_config": quantization, "device_map": {"": torch.device(device)}}
