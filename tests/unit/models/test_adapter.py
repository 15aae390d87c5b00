from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.adapter import (
    attach_adapter,
    load_trained,
    save_trained,
    trained_state,
)
from raytrain.models.base import ResolvedModel, load_base_model, resolve_base_model
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.location import Location
from raytrain.training.strategies.single import SingleProcess

pytestmark = pytest.mark.whole

IDS = torch.tensor([[5, 17, 90, 200, 33, 8]])
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"lora_rank": 4},
    "dora": {"lora_rank": 4, "use_dora": True},
    "rslora": {"lora_rank": 4, "use_rslora": True, "init_lora_weights": "gaussian"},
    "head": {"lora_rank": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embedding": {"lora_rank": 4, "target_modules": ["q_proj", "embed_tokens"]},
    "full": {"method": "full"},
}


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> ResolvedModel:
    return resolve_base_model(ModelSection(base_model=str(tiny_llama)), Location(str(tmp_path)))


def build(base: ResolvedModel, *, seed: int = 3, dtype: str = "float32", **adapter: Any) -> torch.nn.Module:
    section = AdapterSection(**adapter)
    settings = ModelSection(base_model=base.reference, dtype=dtype)
    model = load_base_model(base, settings, adapter=section)
    return attach_adapter(model, section, base=base, seed=seed)


def train_a_little(model: torch.nn.Module) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained_state(model).items()}


put = SingleProcess(torch.device("cpu")).load_tensors


@pytest.mark.parametrize("name", METHODS)
def test_saved_weights_come_back_bit_for_bit(base: ResolvedModel, tmp_path: Path, name: str) -> None:
    model = build(base, **METHODS[name])
    train_a_little(model)
    save_trained(model, snapshot(model), tmp_path / "saved")
    other = build(base, seed=99, **METHODS[name])
    load_trained(other, tmp_path / "saved", put)
    state, restored = trained_state(model), trained_state(other)
    assert state.keys() == restored.keys()
    assert all(torch.equal(state[key], restored[key]) for key in state)
    assert torch.equal(logits_of(model), logits_of(other))


@pytest.mark.parametrize("name", METHODS)
def test_plain_peft_and_transformers_load_the_result(base: ResolvedModel, tmp_path: Path, name: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = build(base, **METHODS[name])
    before = logits_of(model)
    model.train()
    train_a_little(model)
    expected = logits_of(model)
    assert not torch.equal(before, expected)
    save_trained(model, snapshot(model), tmp_path / "saved")
    if name == "full":
        vanilla = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert vanilla.lm_head.weight.data_ptr() == vanilla.model.embed_tokens.weight.data_ptr()
        assert vanilla.config.use_cache
    else:
        vanilla = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base.path), tmp_path / "saved"
        )
    assert torch.equal(logits_of(vanilla), expected)


@pytest.mark.parametrize("name", ["lora", "full"])
def test_same_state_gives_the_same_bytes(base: ResolvedModel, tmp_path: Path, name: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        model = build(base, **METHODS[name])
        save_trained(model, dict(reversed(snapshot(model).items())), folder)
    names = sorted(file.name for file in folders[0].iterdir())
    assert names == sorted(file.name for file in folders[1].iterdir())
    for file in names:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file
    if name == "lora":
        settings = json.loads((folders[0] / "adapter_config.json").read_text())
        assert settings["target_modules"] == sorted(settings["target_modules"])
        assert settings["base_model_name_or_path"] == base.reference
        assert settings["inference_mode"] is True


def test_a_save_from_a_snapshot_does_not_see_later_steps(base: ResolvedModel, tmp_path: Path) -> None:
    model = build(base, **METHODS["full"])
    state = snapshot(model)
    train_a_little(model)
    save_trained(model, state, tmp_path / "saved")
    load_trained(model, tmp_path / "saved", put)
    assert all(torch.equal(trained_state(model)[name], state[name]) for name in state)


def test_trained_state_refers_to_live_tensors_and_names_tied_ones_once(base: ResolvedModel) -> None:
    model = build(base, **METHODS["full"])
    state = trained_state(model)
    assert "model.embed_tokens.weight" in state
    assert "lm_head.weight" not in state
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(7.0)
    assert bool((state["model.norm.weight"] == 7.0).all())


def test_attaching_is_deterministic_and_leaves_the_random_state_alone(base: ResolvedModel) -> None:
    before = torch.get_rng_state()
    first, second, third = (trained_state(build(base, seed=seed, lora_rank=4)) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_adapter_weights_are_float32_over_a_bfloat16_base(base: ResolvedModel) -> None:
    model = build(base, dtype="bfloat16", lora_rank=4)
    assert {tensor.dtype for tensor in trained_state(model).values()} == {torch.float32}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}


def test_a_module_that_is_not_there_is_refused_with_the_nearest_names(base: ResolvedModel) -> None:
    with pytest.raises(ConfigError) as caught:
        build(base, target_modules=["q_proj", "v_prj"])
    assert "v_prj" in caught.value.what
    assert "v_proj" in caught.value.why
    assert "down_proj" in caught.value.fix


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"target_modules": r".*\.attention\.(q|k)"}, "no module"),
        ({"target_modules": "*["}, "regular expression"),
        ({"target_modules": ["self_attn"]}, "cannot be attached"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["score"]}, "modules_to_save"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(
    base: ResolvedModel, adapter: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(base, **adapter)
    assert said in caught.value.what
    assert "q_proj" in caught.value.fix or "regular expression" in caught.value.fix


def test_a_regular_expression_selects_modules(base: ResolvedModel) -> None:
    state = trained_state(build(base, lora_rank=2, target_modules=r".*layers\.1\..*(q|v)_proj"))
    assert len(state) == 4
    assert all("layers.1." in name for name in state)


def test_weights_of_another_rank_are_refused_and_nothing_is_changed(
    base: ResolvedModel, tmp_path: Path
) -> None:
    model = build(base, lora_rank=4)
    save_trained(model, snapshot(model), tmp_path / "saved")
    other = build(base, lora_rank=8, seed=5)
    before = snapshot(other)
    with pytest.raises(IntegrityError, match="has shape") as caught:
        load_trained(other, tmp_path / "saved", put)
    assert caught.value.exit_code == 5
    assert all(torch.equal(trained_state(other)[name], before[name]) for name in before)


def test_weights_for_other_modules_or_another_method_are_refused(base: ResolvedModel, tmp_path: Path) -> None:
    model = build(base, target_modules=["q_proj"])
    save_trained(model, snapshot(model), tmp_path / "saved")
    with pytest.raises(IntegrityError, match="is missing in the file"):
        load_trained(build(base, target_modules=["k_proj"]), tmp_path / "saved", put)
    with pytest.raises(IntegrityError, match=r"there is no model\*.safetensors"):
        load_trained(build(base, method="full"), tmp_path / "saved", put)


def test_a_truncated_adapter_is_refused_by_name(base: ResolvedModel, tmp_path: Path) -> None:
    model = build(base, lora_rank=4)
    save_trained(model, snapshot(model), tmp_path / "saved")
    file = tmp_path / "saved" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(IntegrityError) as caught:
        load_trained(model, tmp_path / "saved", put)
    assert str(file) in caught.value.what


def test_qlora_without_a_gpu_names_all_that_is_missing(
    base: ResolvedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        build(base, method="qlora")
    assert "CUDA" in caught.value.why
    assert "raytrain[qlora]" in caught.value.fix


def test_gradient_checkpointing_gives_the_same_gradients(base: ResolvedModel) -> None:
    gradients = []
    for checkpointing in (False, True):
        section = AdapterSection(lora_rank=4)
        settings = ModelSection(base_model=base.reference, gradient_checkpointing=checkpointing)
        model = attach_adapter(load_base_model(base, settings, adapter=section), section, base=base, seed=1)
        model(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
