from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.adapter import attach_adapter, save_trained, trained_state
from raytrain.models.base import load_base_model, resolve_base_model
from raytrain.models.inference import load_for_inference
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

IDS = torch.tensor([[5, 17, 90]])


@pytest.fixture
def cache(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "cache"))


@pytest.fixture
def adapter(tiny_llama: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """An adapter artifact as training writes it, and the logits that it must give."""
    section = ModelSection(base_model=str(tiny_llama))
    base = resolve_base_model(section, Location(str(tmp_path)))
    settings = AdapterSection(lora_rank=2, target_modules=["q_proj", "v_proj"])
    model = attach_adapter(load_base_model(base, section, adapter=settings), settings, base=base, seed=0)
    with torch.no_grad():
        for tensor in trained_state(model).values():
            tensor.normal_()
    place = Location(str(tmp_path / "adapter"))
    with ArtifactWriter(place, kind="adapter", parents={"base_model": base.digest}) as writer:
        save_trained(model, trained_state(model), writer.path)
        for file in tiny_llama.glob("tokenizer*"):
            shutil.copy(file, writer.path)
        (writer.path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        record = {"base_model": base.reference, "base_digest": base.digest}
        (writer.path / "training.json").write_text(json.dumps(record))
        writer.commit()
    return place.path, model.eval()(input_ids=IDS).logits.detach()


def test_an_adapter_artifact_answers_as_it_was_trained(
    adapter: tuple[Path, torch.Tensor], cache: Location
) -> None:
    folder, expected = adapter
    for reference in (str(folder), f"file://{folder}"):
        loaded = load_for_inference(reference, cache=cache)
        assert loaded.adapted
        assert not loaded.model.training
        assert torch.equal(loaded.model(input_ids=IDS).logits, expected)


def test_the_base_model_answers_alone_with_the_adapters_template(
    adapter: tuple[Path, torch.Tensor], cache: Location
) -> None:
    folder, expected = adapter
    loaded = load_for_inference(str(folder), cache=cache, base_model_only=True)
    assert not loaded.adapted
    assert not torch.equal(loaded.model(input_ids=IDS).logits, expected)
    assert loaded.tokenizer.chat_template == "{{ messages[0]['content'] }}"


def test_a_base_model_loads_too(tiny_llama: Path, cache: Location) -> None:
    assert not load_for_inference(str(tiny_llama), cache=cache).adapted
    with pytest.raises(ConfigError, match="no base model"):
        load_for_inference("./nowhere", cache=cache)


def loose(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    """The adapter as a plain PEFT folder, without manifest and record."""
    folder = Path(shutil.copytree(adapter[0], tmp_path / "loose"))
    (folder / "manifest.json").unlink()
    (folder / "training.json").unlink()
    return folder


def test_a_plain_peft_folder_loads(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path, cache: Location
) -> None:
    loaded = load_for_inference(str(loose(adapter, tmp_path)), cache=cache)
    assert torch.equal(loaded.model(input_ids=IDS).logits, adapter[1])


def test_damaged_adapters_are_refused(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path, cache: Location
) -> None:
    from safetensors.torch import load_file, save_file

    folder = loose(adapter, tmp_path)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)
    with pytest.raises(IntegrityError, match="is missing in the file"):
        load_for_inference(str(folder), cache=cache)
    save_file({name: torch.zeros(3, 3) for name in tensors}, weights)
    with pytest.raises(IntegrityError, match="does not fit"):
        load_for_inference(str(folder), cache=cache)
    weights.write_bytes(b"nonsense")
    with pytest.raises(IntegrityError, match="is damaged"):
        load_for_inference(str(folder), cache=cache)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_for_inference(str(folder), cache=cache)


def test_another_base_model_under_the_same_name_is_refused(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path, cache: Location
) -> None:
    folder = Path(shutil.copytree(adapter[0], tmp_path / "other"))
    (folder / "manifest.json").unlink()
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**record, "base_digest": "sha256:0"}))
    with pytest.raises(IntegrityError, match="another base model"):
        load_for_inference(str(folder), cache=cache)
