"""What training changes, a LoRA adapter or all weights: attached, counted, saved, restored."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.data.tasks import CLASSIFICATION_TASKS, TaskName
from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.base import ResolvedModel
from raytrain.models.heads import head_modules, train_in_float32
from raytrain.models.model_files import first_line
from raytrain.models.quiet import quiet_saving
from raytrain.models.section import AdapterSection
from raytrain.models.tasks import MODEL_TASKS

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def attach_adapter(
    model: nn.Module,
    adapter: AdapterSection,
    *,
    base: ResolvedModel,
    seed: int,
    task: TaskName = "causal_lm",
) -> nn.Module:
    """Make trainable what `adapter` says. Every rank calls it with the same seed, for the same first values.

    A classifier's head is trained whole and saved with the adapter.

    The caller's random state is left as it was. Adapter weights are float32 whatever the base is held in.
    Raises ConfigError where a module that is named is not in the model.
    """
    if adapter.method == "full":
        model.requires_grad_(True)
        return model
    import torch
    from peft import get_peft_model, prepare_model_for_kbit_training

    _check_module_names(model, adapter.target_modules, "adapter.target_modules")
    _check_module_names(model, adapter.modules_to_save, "adapter.modules_to_save")
    if adapter.method == "qlora":
        # load_base_model has set gradient checkpointing; here only norms and head are raised to float32.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    heads = head_modules(model) if task in CLASSIFICATION_TASKS else []
    config = _lora_config(adapter, task, heads)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        # PEFT asks transformers in a way that transformers has deprecated; nobody here can change that.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        try:
            peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)
        except (ValueError, NotImplementedError, TypeError) as error:
            raise ConfigError(
                "the adapter cannot be attached",
                why=first_line(error),
                fix=f"set adapter.target_modules to all-linear, or to some of: {_adaptable_names(model)}",
            ) from error
    # What the user wrote, not the folder on this machine: the same run must give the same bytes anywhere.
    peft_model.peft_config["default"].base_model_name_or_path = base.reference
    adapted: nn.Module = peft_model
    if heads:
        train_in_float32(adapted, heads)
    return adapted


def _lora_config(adapter: AdapterSection, task: TaskName, heads: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type=MODEL_TASKS[task].peft_type,
        r=adapter.lora_rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=adapter.target_modules,
        modules_to_save=sorted({*heads, *(adapter.modules_to_save or ())}) or None,
        exclude_modules=_inside_any(heads) if heads else None,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True if adapter.init_lora_weights == "default" else adapter.init_lora_weights,
    )


def _inside_any(modules: list[str]) -> str:
    """A regular expression for these modules and all below them: what is trained whole takes no LoRA besides."""
    return rf"(?:{'|'.join(map(re.escape, modules))})(?:\..*)?"


def _check_module_names(model: nn.Module, wanted: list[str] | str | None, key: str) -> None:
    """PEFT passes over a name that matches nothing, as long as another one matches; here that is an error."""
    if wanted is None or wanted == "all-linear":
        return
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(wanted, str):
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise ConfigError(
                f"{key}: `{wanted}` is not a regular expression",
                why=str(error),
                fix="give a list of module names, a regular expression, or all-linear",
            ) from error
        missing = [] if any(pattern.fullmatch(name) for name in names) else [wanted]
    else:
        missing = [one for one in wanted if not any(f".{name}".endswith(f".{one}") for name in names)]
    if missing:
        last_parts = sorted({name.rsplit(".", 1)[-1] for name in names})
        near = difflib.get_close_matches(missing[0], last_parts, n=3, cutoff=0.5)
        raise ConfigError(
            f"{key}: the model has no module `{missing[0]}`",
            why=f"nearest names in it: {', '.join(near)}" if near else "no name in it is like that",
            fix=f"modules that can be adapted: {_adaptable_names(model)}; or set all-linear",
        )


def _adaptable_names(model: nn.Module) -> str:
    from torch import nn

    kinds = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)
    found = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, kinds)}
    return ", ".join(sorted(found)) or "none"


def unwrapped(model: nn.Module) -> Any:
    """The model inside DistributedDataParallel and torch.compile."""
    inside: Any = model
    while type(inside).__name__ in ("DistributedDataParallel", "OptimizedModule"):
        inside = inside.module if hasattr(inside, "module") else inside._orig_mod
    return inside


def _is_adapted(model: Any) -> bool:
    return hasattr(model, "peft_config")


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by the names that the saved file uses: references to live tensors, no copies.

    For an adapter PEFT's names; for a full model its state dict, with a tied tensor under one name only.
    Whoever keeps it beyond the next step copies it first.
    """
    inside = unwrapped(model)
    if _is_adapted(inside):
        from peft import get_peft_model_state_dict

        # The base is frozen: what PEFT would add for targeted embeddings is in the base model already.
        live = inside.state_dict(keep_vars=True)
        state: dict[str, Tensor] = get_peft_model_state_dict(inside, live, save_embedding_layers=False)
        return dict(sorted(state.items()))
    state = inside.state_dict(keep_vars=True)
    tied = set(getattr(inside, "all_tied_weights_keys", None) or {})
    kept: dict[tuple[object, ...], str] = {}
    # Names that transformers declares as the copies come last: the name it loads from is kept.
    for name in sorted(state, key=lambda one: (one in tied, one)):
        tensor = state[name]
        kept.setdefault(_memory_of(tensor), name)
    return {name: state[name] for name in sorted(kept.values())}


def _memory_of(tensor: Tensor) -> tuple[object, ...]:
    """Equal for names of one tensor."""
    # What is spread over workers (a DTensor, or emptied by ZeRO-3) has no address; its tied names share the object.
    if hasattr(tensor, "placements") or not tensor.numel():
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())


def save_trained(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write `state` (from `trained_state`, copied to the CPU) in the layout that peft or transformers loads.

    Touches no live parameter, so a thread may call it while the model trains on. The same state gives the
    same bytes.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    inside = unwrapped(model)
    tensors = {name: state[name].contiguous() for name in sorted(state)}
    if _is_adapted(inside):
        from safetensors.torch import save_file

        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        _write_json(folder / ADAPTER_CONFIG, _adapter_config(inside))
    else:
        with quiet_saving(), torch.no_grad():
            # The names of the live model, so that load_trained compares name by name.
            inside.save_pretrained(folder, state_dict=tensors, save_original_format=False)
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Off only while training; whoever loads the result generates with it.
        if "use_cache" in settings:
            settings["use_cache"] = True
        _write_json(folder / "config.json", settings)


def _adapter_config(model: Any) -> dict[str, Any]:
    settings = dict(model.peft_config["default"].to_dict())
    settings["inference_mode"] = True
    return {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_trained(
    model: nn.Module, folder: Path, put: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], None]
) -> None:
    """Read what `save_trained` wrote and hand it to `put(live, saved)`; an adapter is attached already.

    Raises IntegrityError that names the first tensor which is missing, too many, or of another shape or
    dtype; the model is unchanged then.
    """
    live = trained_state(model)
    pattern = ADAPTER_WEIGHTS if _is_adapted(unwrapped(model)) else "model*.safetensors"
    saved = read_tensors(folder, pattern)
    check_fits(live, saved, folder)
    put(live, saved)


def read_tensors(folder: Path, pattern: str) -> dict[str, Tensor]:
    """All tensors of the files that match; IntegrityError where there is none, or one is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob(pattern))
    if not files:
        raise IntegrityError(
            f"{folder} holds no trained weights",
            why=f"there is no {pattern}",
            fix="give a folder of the same adapter.method, or take another copy",
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors.update(load_file(file))
        except (SafetensorError, OSError, ValueError) as error:
            raise IntegrityError(
                f"{file} is damaged", why=first_line(error), fix="take an older checkpoint or another copy"
            ) from error
    return tensors


def check_fits(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], folder: Path) -> None:
    """IntegrityError that names the first tensor which differs in name, shape or dtype."""

    def first_misfit() -> str | None:
        for name in sorted(live.keys() | saved.keys()):
            if name not in saved:
                return f"{name} is missing in the file"
            if name not in live:
                return f"{name} is not in the model"
            # A parameter that ZeRO-3 has partitioned away keeps its shape in ds_shape.
            shape = getattr(live[name], "ds_shape", live[name].shape)
            if shape != saved[name].shape:
                return f"{name} has shape {list(saved[name].shape)}, the model {list(shape)}"
            if live[name].dtype != saved[name].dtype:
                return f"{name} is {_short(saved[name])}, in the model {_short(live[name])}"
        return None

    misfit = first_misfit()
    if misfit is not None:
        raise IntegrityError(
            f"the weights in {folder} do not fit this model",
            why=misfit,
            fix="take the base model, method, rank and target_modules that they were trained with",
        )


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
