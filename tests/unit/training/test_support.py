"""The support matrix, and a user's DeepSpeed JSON against the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raytrain.errors import ConfigError
from raytrain.training.builder import RunSpecBuilder
from raytrain.training.section import DeepSpeedSection, ScalingSection, TrainSection
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.deepspeed_config import build_config, check_deepspeed, zero_stage
from raytrain.training.support import STRATEGIES, support_rows

ZERO = {stage: {"strategy": "deepspeed", "deepspeed": {"zero_stage": stage}} for stage in (1, 2, 3)}


def build(scaling: dict[str, Any], **sections: dict[str, Any]) -> RunSpec:
    builder = RunSpecBuilder("mine").model("some/model", **sections.get("model", {})).data("rows.jsonl")
    builder = builder.train(**sections.get("train", {}))._add("adapter", **sections.get("adapter", {}))
    return builder.scaling(**{"num_workers": 2, **scaling}).build()


@pytest.mark.parametrize(
    ("scaling", "sections", "told"),
    [
        ({"strategy": "single"}, {}, "num_workers above 1 does not work with strategy single"),
        ({"strategy": "single", "num_workers": [1, 2]}, {}, "strategy single"),
        ({"strategy": "fsdp"}, {"adapter": {"method": "qlora"}}, "qlora does not work with strategy fsdp"),
        (ZERO[3], {"adapter": {"method": "qlora"}}, "qlora does not work with strategy zero3"),
        (
            {**ZERO[2], "use_gpu": True},
            {"train": {"precision": "float16"}},
            "float16 does not work with strategy zero2",
        ),
        (
            ZERO[1],
            {"model": {"dtype": "bfloat16"}, "adapter": {"method": "full"}},
            "full does not work with strategy zero1",
        ),
        (
            {"strategy": "fsdp", "deepspeed": {"offload_optimizer": True}},
            {},
            "offload_optimizer does not work with strategy fsdp",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_recipe(
    scaling: dict[str, Any], sections: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        build(scaling, **sections)
    assert caught.value.why and caught.value.fix.startswith("set ")


@pytest.mark.parametrize("scaling", [{}, {"strategy": "fsdp"}, ZERO[1], ZERO[2], ZERO[3]])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_works_is_let_through(scaling: dict[str, Any], method: str) -> None:
    build(scaling, adapter={"method": method}, train={"precision": "bfloat16"})


def test_the_strategy_is_no_part_of_what_a_run_is() -> None:
    assert len({build(scaling).run_id for scaling in ({}, {"strategy": "fsdp"}, ZERO[3])}) == 1


def test_the_matrix_is_whole_and_gives_reasons() -> None:
    rows = support_rows()
    assert len({row.feature for row in rows}) == len(rows) > 10
    for row in rows:
        assert set(row.cells) == set(STRATEGIES)
        for name, cell in row.cells.items():
            assert (cell.reason == "") is (cell.status == "tested"), (row.feature, name)
            assert (cell.fix != "") is (cell.status == "refused"), (row.feature, name)


# A user's DeepSpeed JSON

AGREEING = {
    "train_batch_size": 16,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "optimizer": {"type": "AdamW", "params": {"lr": 2e-4, "betas": [0.9, 0.999], "eps": "auto"}},
    "bf16": {"enabled": False},
    "fp16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, "stage3_prefetch_bucket_size": "auto", "overlap_comm": True},
    "wall_clock_breakdown": False,
}


def scaling_with(config: dict[str, Any], **deepspeed: Any) -> ScalingSection:
    section = DeepSpeedSection(config=config, **deepspeed)
    return ScalingSection(num_workers=2, strategy="deepspeed", deepspeed=section)


def test_a_json_that_agrees_is_taken_over() -> None:
    scaling = scaling_with(AGREEING)
    check_deepspeed(scaling, TrainSection())
    assert zero_stage(scaling.deepspeed) == 3
    config = build_config(scaling.deepspeed, micro_batch_size=4, is_cpu=True)
    assert config["zero_optimization"] == {"stage": 3, "overlap_comm": True}
    # raytrain accumulates, clips and steps AdamW itself.
    assert (config["gradient_accumulation_steps"], config["gradient_clipping"]) == (1, 0.0)
    assert not config.keys() & {"optimizer", "bf16", "fp16", "train_batch_size"}


@pytest.mark.parametrize(
    ("config", "key", "why"),
    [
        ({"zero_optimisation": {}}, "zero_optimisation", "did you mean `zero_optimization`"),
        ({"zero_optimization": {"stagee": 2}}, "zero_optimization.stagee", "did you mean `stage`"),
        ({"zero_optimization": {"stage": 0}}, "zero_optimization.stage", "scaling.strategy: ddp"),
        ({"zero_optimization": 2}, "zero_optimization", "takes keys of its own"),
        ({"pipeline": {}}, "pipeline", "not offered"),
        ({"train_batch_size": 32}, "train_batch_size", "32 there, 16 here (train.global_batch_size)"),
        ({"gradient_accumulation_steps": 8}, "gradient_accumulation_steps", "8 there, 2 here"),
        ({"gradient_clipping": 0.5}, "gradient_clipping", "0.5 there, 1.0 here (train.max_grad_norm)"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler", "train.schedule"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer", "AdamW here"),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1.0}}},
            "optimizer.params.lr",
            "1.0 there, 0.0002 here",
        ),
        ({"optimizer": {"params": {"beta": [0, 0]}}}, "optimizer.params.beta", "did you mean `betas`"),
        ({"bf16": {"enabled": True}}, "bf16", "train.precision float32"),
        ({"fp16": {"enabled": True}}, "fp16", "train.precision float32"),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
            "zero_optimization.offload_param",
            "only cpu works",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "zero_optimization.offload_param",
            "ZeRO-3 alone",
        ),
    ],
)
def test_what_contradicts_the_recipe_is_named(config: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_deepspeed(scaling_with(config), TrainSection())
    assert why in caught.value.why
    assert f"remove from the DeepSpeed JSON: {key} (" in caught.value.fix


def test_batch_sizes_that_do_not_multiply_are_named_with_every_other_conflict() -> None:
    config = {
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 3,
        "scheduler": {"type": "WarmupLR"},
    }
    with pytest.raises(ConfigError, match="in 3 places") as caught:
        check_deepspeed(scaling_with(config), TrainSection())
    assert "4 x 3 steps x 2 workers is not 16" in caught.value.why
    assert "scheduler" in caught.value.fix


def test_two_stages_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="does not fit") as caught:
        check_deepspeed(scaling_with({"zero_optimization": {"stage": 3}}, zero_stage=2), TrainSection())
    assert "stage 3 there, scaling.deepspeed.zero_stage 2 here" in caught.value.why


def test_a_fixed_accumulation_contradicts_a_changing_number_of_workers() -> None:
    scaling = ScalingSection(
        num_workers=[1, 2], strategy="deepspeed", deepspeed={"config": {"gradient_accumulation_steps": 2}}
    )
    with pytest.raises(ConfigError) as caught:
        check_deepspeed(scaling, TrainSection())
    assert "the number of workers may change" in caught.value.why


def test_a_json_is_read_from_its_file_and_stands_in_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    spec = build({"strategy": "deepspeed", "deepspeed": {"config": str(file)}})
    file.unlink()
    assert zero_stage(RunSpec.model_validate(spec.to_dict()).scaling.deepspeed) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read"), ("{,}", "is not JSON: line 1"), ("[1]", "holds no JSON object, but a list")],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "zero.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"scaling\.deepspeed\.config") as caught:
        build({"strategy": "deepspeed", "deepspeed": {"config": str(file)}})
    assert told in str(caught.value)


def test_the_guide_shows_the_matrix_as_it_is() -> None:
    told = {"tested": "yes", "not tested": "not tested", "refused": "no"}
    text = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
    for row in support_rows():
        cells = " | ".join(told[row.cells[name].status] for name in STRATEGIES)
        assert f"| {row.feature} | {cells} |\n" in text
