"""What DeepSpeed is told: a user's own JSON, checked against the recipe, and what raytrain decides for it.

Pure: nothing here imports DeepSpeed, so that a recipe is checked where it is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.training.section import DeepSpeedSection, ScalingSection, TrainSection

DEFAULT_ZERO_STAGE = 2

PASSED_ON = frozenset({
    "zero_optimization", "communication_data_type", "prescale_gradients", "gradient_predivide_factor",
    "disable_allgather", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "activation_checkpointing",
    "steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state", "comms_logger", "flops_profiler",
    "timers", "log_level", "disable_python_gc",
})  # fmt: skip
"""Keys of a DeepSpeed JSON that say how the work is spread, which the recipe does not."""

BY_THE_RECIPE = {
    "train_batch_size": "train.global_batch_size",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size and train.micro_batch_size",
    "gradient_clipping": "train.max_grad_norm",
    "optimizer": "train.learning_rate, train.weight_decay, train.adam_betas and train.adam_epsilon",
    "scheduler": "train.schedule and train.warmup_steps",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "torch_autocast": "train.precision",
}
"""Keys that a recipe decides, and where."""

NOT_OFFERED = frozenset({
    "amp", "autotuning", "aio", "checkpoint", "compile", "compression_training", "csv_monitor", "curriculum_learning",
    "data_efficiency", "data_types", "dataloader_drop_last", "datastates_ckpt", "eigenvalue", "elasticity",
    "expert_parallel", "gradient_allreduce_op", "hybrid_engine", "managed_gradient_accumulation", "nebula", "pipeline",
    "progressive_layer_drop", "quantize_training", "sequence_parallel_size", "sparse_attention", "tensor_parallel",
    "tensorboard", "wandb", "weight_quantization", "comet",
})  # fmt: skip
"""Keys that DeepSpeed knows and raytrain has no use for, or has by itself."""

ZERO_KEYS = frozenset({
    "stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce",
    "allgather_partitions", "allgather_bucket_size", "overlap_comm", "compute_grad_norm", "load_from_fp32_weights",
    "elastic_checkpoint", "offload_param", "offload_optimizer", "zenflow", "sub_group_size", "cpu_offload_param",
    "cpu_offload_use_pin_memory", "cpu_offload", "prefetch_bucket_size", "stage3_prefetch_bucket_size",
    "param_persistence_threshold", "stage3_param_persistence_threshold", "model_persistence_threshold",
    "stage3_model_persistence_threshold", "max_live_parameters", "stage3_max_live_parameters", "max_reuse_distance",
    "stage3_max_reuse_distance", "gather_16bit_weights_on_model_save", "stage3_gather_16bit_weights_on_model_save",
    "module_granularity_threshold", "stage3_module_granularity_threshold", "use_all_reduce_for_fetch_params",
    "stage3_use_all_reduce_for_fetch_params", "allgather_sequential", "stage3_allgather_sequential",
    "stage3_gather_fp16_weights_on_model_save", "ignore_unused_parameters", "legacy_stage1", "round_robin_gradients",
    "parameter_alignment", "zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_nontrainable_weights",
    "zero_quantized_gradients", "memory_efficient_linear", "pipeline_loading_checkpoint", "override_module_apply",
    "log_trace_cache_warnings", "enable_sanity_checks", "save_muon_momentum_buffer_in_memory", "leaf_module",
})  # fmt: skip
"""Keys of `zero_optimization`, with the long names of some."""

_ZERO_NOT_OFFERED = ("zenflow", "cpu_offload", "cpu_offload_param", "compute_grad_norm", "legacy_stage1")


def check_deepspeed(scaling: ScalingSection, train: TrainSection) -> None:
    """Raise ConfigError that names every key of the user's JSON which is unknown or contradicts the recipe."""
    given = _without_auto(_content(scaling.deepspeed))
    faults = [
        *_key_faults(given),
        *_zero_faults(given, scaling.deepspeed),
        *_offload_faults(scaling.deepspeed),
    ]
    for check in (_batch_faults, _optimizer_faults, _precision_faults):
        faults += check(given, scaling, train)
    if faults:
        raise ConfigError(
            "scaling.deepspeed.config does not fit the recipe"
            if len(faults) == 1
            else f"scaling.deepspeed.config does not fit the recipe in {len(faults)} places",
            why="; ".join(why for _, why in faults),
            fix="remove from the DeepSpeed JSON: " + ", ".join(dict.fromkeys(key for key, _ in faults))
            + " (what the recipe decides may also stand there with the recipe's value, or as \"auto\")",
        )  # fmt: skip


def zero_stage(section: DeepSpeedSection) -> int:
    """What is spread over the workers: 1, 2 or 3."""
    zero = _without_auto(_content(section)).get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    return section.zero_stage or (stage if stage in (1, 2, 3) else DEFAULT_ZERO_STAGE)


def offloads_optimizer(section: DeepSpeedSection) -> bool:
    return section.offload_optimizer or _offload_device(section, "offload_optimizer") == "cpu"


def build_config(section: DeepSpeedSection, *, micro_batch_size: int, is_cpu: bool) -> dict[str, Any]:
    """What `deepspeed.initialize` gets: the user's JSON without what the recipe decides.

    Accumulation, clipping and precision stay raytrain's, which does them alike under every strategy.
    """
    given = _without_auto(_content(section))
    zero = {**given.get("zero_optimization", {}), "stage": zero_stage(section)}
    if offloads_optimizer(section):
        zero["offload_optimizer"] = {"device": "cpu", **zero.get("offload_optimizer", {})}
    if is_cpu:
        for name in ("offload_optimizer", "offload_param"):
            if name in zero:
                zero[name] = {**zero[name], "pin_memory": False}  # there is no device to copy to
    return {
        "steps_per_print": None,
        **{key: value for key, value in given.items() if key in PASSED_ON},
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW steps, on the CPU too
    }


def _content(section: DeepSpeedSection) -> dict[str, Any]:
    return section.config if isinstance(section.config, dict) else {}


def _without_auto(given: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' habit: "auto" leaves a value to the trainer."""
    return {
        key: _without_auto(value) if isinstance(value, Mapping) else value
        for key, value in given.items()
        if value != "auto"
    }


Faults = list[tuple[str, str]]
"""(key to remove, why)."""


def _key_faults(given: Mapping[str, Any]) -> Faults:
    faults = []
    for key in given:
        if key in NOT_OFFERED:
            faults.append((key, f"`{key}` is not offered by raytrain"))
        elif key not in PASSED_ON and key not in BY_THE_RECIPE:
            faults.append((key, _unknown(key, PASSED_ON | BY_THE_RECIPE.keys())))
    return faults


def _unknown(key: str, known: frozenset[str]) -> str:
    near = nearest(key.rpartition(".")[2], sorted(known))
    return f"`{key}` is no key of DeepSpeed" + (f", did you mean `{near}`?" if near else "")


def _zero_faults(given: Mapping[str, Any], section: DeepSpeedSection) -> Faults:
    zero = given.get("zero_optimization", {})
    if not isinstance(zero, dict):
        return [("zero_optimization", f"`zero_optimization` takes keys of its own, got {zero!r}")]
    faults: Faults = []
    for key in zero:
        dotted = f"zero_optimization.{key}"
        if key not in ZERO_KEYS:
            faults.append((dotted, _unknown(dotted, ZERO_KEYS)))
        elif key in _ZERO_NOT_OFFERED:
            faults.append((dotted, f"`{dotted}` is not offered by raytrain"))
    stage = zero.get("stage")
    if stage is not None and stage not in (1, 2, 3):
        faults.append(
            ("zero_optimization.stage", f"stage {stage!r} is none of 1, 2, 3 (0 is scaling.strategy: ddp)")
        )
    elif stage is not None and section.zero_stage not in (None, stage):
        faults.append(
            (
                "zero_optimization.stage",
                f"stage {stage} there, scaling.deepspeed.zero_stage {section.zero_stage} here",
            )
        )
    return faults


def _offload_faults(section: DeepSpeedSection) -> Faults:
    faults: Faults = []
    for name in ("offload_optimizer", "offload_param"):
        device = _offload_device(section, name)
        key = f"zero_optimization.{name}"
        if device not in (None, "none", "cpu"):
            faults.append((key, f"`{key}` to {device!r}: checkpoints read it from memory, so only cpu works"))
        elif device == "none" and name == "offload_optimizer" and section.offload_optimizer:
            faults.append((key, "no offload there, scaling.deepspeed.offload_optimizer: true here"))
        elif device == "cpu" and name == "offload_param" and zero_stage(section) != 3:
            faults.append((key, "weights can be offloaded with ZeRO-3 alone"))
    return faults


def _offload_device(section: DeepSpeedSection, name: str) -> Any:
    zero = _without_auto(_content(section)).get("zero_optimization")
    given = zero.get(name) if isinstance(zero, dict) else None
    return given.get("device", "none") if isinstance(given, dict) else given


def _batch_faults(given: Mapping[str, Any], scaling: ScalingSection, train: TrainSection) -> Faults:
    micro, steps, whole = (
        given.get(key)
        for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    )
    workers = scaling.max_workers
    faults: Faults = []
    if all(isinstance(one, int) for one in (micro, steps, whole)) and micro * steps * workers != whole:  # type: ignore[operator]
        faults.append((
            "train_batch_size, train_micro_batch_size_per_gpu, gradient_accumulation_steps",
            f"the batch sizes do not multiply: {micro} x {steps} steps x {workers} workers is not {whole}",
        ))  # fmt: skip
    derived = -(-train.global_batch_size // (train.micro_batch_size * workers))
    for key, value, wanted in (
        ("train_batch_size", whole, train.global_batch_size),
        ("train_micro_batch_size_per_gpu", micro, train.micro_batch_size),
        ("gradient_accumulation_steps", steps, derived),
    ):
        if value is not None and value != wanted:
            faults.append((key, _differs(key, value, wanted)))
    if steps is not None and scaling.is_elastic:
        key = "gradient_accumulation_steps"
        faults.append((key, f"`{key}` is fixed, and the number of workers may change"))
    clipping = given.get("gradient_clipping")
    if clipping is not None and float(clipping) != float(train.max_grad_norm or 0.0):
        faults.append(("gradient_clipping", _differs("gradient_clipping", clipping, train.max_grad_norm)))
    return faults


def _optimizer_faults(given: Mapping[str, Any], scaling: ScalingSection, train: TrainSection) -> Faults:  # noqa: ARG001
    faults: Faults = []
    if given.get("scheduler"):
        faults.append(("scheduler", f"`scheduler` is decided by {BY_THE_RECIPE['scheduler']}"))
    optimizer = given.get("optimizer")
    if not optimizer:
        return faults
    kind = str(optimizer.get("type", "AdamW")) if isinstance(optimizer, dict) else optimizer
    if not isinstance(optimizer, dict) or kind.lower() != "adamw":
        return [*faults, ("optimizer", f"`optimizer` {kind!r} there, AdamW here")]
    wanted = {
        "lr": train.learning_rate,
        "betas": list(train.adam_betas),
        "eps": train.adam_epsilon,
        "weight_decay": train.weight_decay,
    }
    for key, value in optimizer.get("params", {}).items():
        dotted = f"optimizer.params.{key}"
        if key not in wanted:
            faults.append((dotted, _unknown(dotted, frozenset(wanted))))
        elif value != wanted[key]:
            faults.append((dotted, _differs(dotted, value, wanted[key], BY_THE_RECIPE["optimizer"])))
    return faults


def _precision_faults(given: Mapping[str, Any], scaling: ScalingSection, train: TrainSection) -> Faults:  # noqa: ARG001
    faults: Faults = []
    for key, precision in (("bf16", "bfloat16"), ("bfloat16", "bfloat16"), ("fp16", "float16")):
        section = given.get(key)
        is_on = bool(section.get("enabled", False)) if isinstance(section, dict) else bool(section)
        if key in given and is_on != (train.precision == precision):
            faults.append(
                (key, f"`{key}` is {'on' if is_on else 'off'} there, train.precision {train.precision} here")
            )
    if given.get("torch_autocast"):
        faults.append(("torch_autocast", "`torch_autocast` is decided by train.precision"))
    return faults


def _differs(key: str, there: Any, here: Any, place: str | None = None) -> str:
    return f"`{key}` is {there} there, {here} here ({place or BY_THE_RECIPE[key]})"
