"""How much memory training takes on one worker, from a model's config alone: no weight is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.data.tasks import CLASSIFICATION_TASKS, TaskName
from raytrain.errors import ConfigError
from raytrain.models.adapter import attach_adapter
from raytrain.models.base import ResolvedModel, locate_base_model
from raytrain.models.model_files import first_line
from raytrain.models.quiet import quiet_loading
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.models.tasks import MODEL_TASKS

if TYPE_CHECKING:
    from torch import nn

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PROCESS_BYTES = 380 * 2**20
"""Python with torch, transformers and peft imported, as measured."""
_LOGITS_COPIES = 7.5
"""Tensors of tokens x vocabulary in float32 that live at once around the loss, as measured on a CPU."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one worker at the peak, which is the start of the backward pass. AdamW; nothing is sharded."""

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    process_bytes: int
    num_parameters: int
    num_trainable: int

    @property
    def total_bytes(self) -> int:
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.process_bytes
        )

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "total_bytes": self.total_bytes}


def read_model_config(section: ModelSection) -> Any:
    """The model's config alone: a few kilobytes from a folder, the hub, or the head of a .gguf file.

    Raises ConfigError where it cannot be had.
    """
    from transformers import AutoConfig

    place = locate_base_model(section.base_model)
    options: dict[str, Any] = {"trust_remote_code": section.trust_remote_code}
    if isinstance(place, Path) and place.is_file():
        source, options["gguf_file"] = str(place.parent), place.name
    elif isinstance(place, Path):
        source = str(place)
    else:
        source, options["revision"] = place, section.revision
    try:
        with quiet_loading():
            return AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"the config of `{section.base_model}` cannot be read",
            why=first_line(error),
            fix="check model.base_model; offline, only local folders and .gguf files can be read",
        ) from error


def estimate_memory(
    config: Any,
    model: ModelSection,
    adapter: AdapterSection,
    *,
    micro_batch_size: int,
    max_seq_len: int,
) -> MemoryEstimate:
    """Weights, gradients, AdamW's two moments, activations and logits of one worker.

    Counts are exact: the model is built on the meta device. Activations count what the backward pass of a
    gated (Llama-like) layer keeps, after Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
    Transformer Models", section 4, without their attention scores (sdpa keeps none), dropout masks, or tensor
    parallelism; with checkpointing one input a layer and one layer in full.

    Against the peak resident memory of SmolLM2-135M on a CPU in float32 the error was within 4 % for LoRA
    over all linear layers, and 18 % too high for full training without accumulation (figures:
    tests/unit/models/test_memory.py).
    """
    base_parameters, trainable = _count_on_meta(config, adapter, model.task)
    dtype_bytes = _BYTES[model.dtype]
    # NF4 takes half a byte, and about 0.06 more for its doubly quantized scales.
    weights = base_parameters * (0.56 if adapter.method == "qlora" else dtype_bytes)
    if adapter.method == "full":
        trainable_bytes = trainable * dtype_bytes
    else:
        trainable_bytes = trainable * 4
        weights += trainable_bytes
    tokens = micro_batch_size * _positions(config, model, max_seq_len)
    text = config.get_text_config()
    is_classification = model.task in CLASSIFICATION_TASKS
    num_classes = int(config.num_labels if is_classification else text.vocab_size)
    return MemoryEstimate(
        weights_bytes=int(weights),
        gradients_bytes=trainable_bytes,
        optimizer_bytes=2 * trainable_bytes,
        activations_bytes=tokens * _activation_elements(text, model, adapter) * dtype_bytes,
        logits_bytes=int(_LOGITS_COPIES * 4 * tokens * num_classes),
        process_bytes=_PROCESS_BYTES,
        num_parameters=base_parameters,
        num_trainable=trainable,
    )


def _positions(config: Any, model: ModelSection, max_seq_len: int) -> int:
    """Tokens of the longest row: of an image its patches and one for the whole."""
    patch = getattr(config, "patch_size", None)
    if model.task != "image_classification" or not isinstance(patch, int):
        return max_seq_len
    return int((config.image_size // patch) ** 2 + 1)


def _activation_elements(text: Any, model: ModelSection, adapter: AdapterSection) -> int:
    """Numbers kept per token, over all layers."""
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    if model.task == "seq2seq":
        layers *= 2  # an encoder and a decoder
    heads = int(text.num_attention_heads)
    head_size = int(getattr(text, "head_dim", None) or hidden // heads)
    queries = heads * head_size
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    # Two norms keep input, normalised and scaled output; attention keeps rotated queries, keys and values
    # (both repeated to all heads) and its output; the gated MLP keeps gate, up, activation and product.
    layer = 6 * hidden + 4 * queries + 4 * inner
    if adapter.method != "full":
        layer += 7 * adapter.lora_rank
    if model.gradient_checkpointing:
        return layers * hidden + layer
    return layers * layer


def _count_on_meta(config: Any, adapter: AdapterSection, task: TaskName) -> tuple[int, int]:
    """Parameters of the base model, and trainable ones."""
    import torch

    lora = adapter if adapter.method == "full" else adapter.model_copy(update={"method": "lora"})
    with torch.device("meta"), quiet_loading():
        model: nn.Module = MODEL_TASKS[task].load_class().from_config(config)
        num_parameters = sum(p.numel() for p in model.parameters())
        model = attach_adapter(model, lora, base=ResolvedModel("", "", ""), seed=0, task=task)
    return num_parameters, sum(p.numel() for p in model.parameters() if p.requires_grad)
