"""Whether weights fit what they are said to be of, and can be read to their end."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from releases import Trained, make_release, write_adapter
from safetensors.torch import save_file

from raytrain.errors import IntegrityError
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.release.bundle.description import FORMAT_FOLDERS, read_description
from raytrain.release.fitting import check_weights
from raytrain.release.weight_files import shapes_in
from raytrain.storage.location import Location


def test_weights_are_held_against_their_rank_and_their_base(tiny_llama: Path, tmp_path: Path) -> None:
    cache = Location(str(tmp_path / "cache"))
    found = resolve_base_model(ModelSection(base_model=str(tiny_llama)), cache)
    plain = read_description(make_release(tmp_path / "bundle", Trained()).path)
    base = replace(plain.base_model, reference=str(tiny_llama), digest=found.digest)
    description = replace(plain, base_model=base)
    write_adapter(tmp_path / "adapter")
    assert "1 modules of rank 2; all fit the base model" in check_weights(tmp_path, description, cache)
    assert "not on this machine" in check_weights(tmp_path, plain, cache)
    other = replace(description, base_model=replace(base, digest="sha256:other"))
    with pytest.raises(IntegrityError, match="another base model"):
        check_weights(tmp_path, other, cache)
    write_adapter(tmp_path / "adapter", size=48)
    with pytest.raises(IntegrityError, match="cannot be loaded") as caught:
        check_weights(tmp_path, description, cache)
    assert "the base model's is [32, 32]" in caught.value.why
    write_adapter(tmp_path / "adapter", rank=3)
    with pytest.raises(IntegrityError) as caught:
        check_weights(tmp_path, description, cache)
    assert "its rank is 3, bundle.json says 2" in caught.value.why
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for content, words in (
        (whole[:-4], "-4 bytes more than its tensors"),
        (whole[:-4] + struct.pack("<f", math.nan), "holds infinities, or what is no number"),
        (whole[:-4] + struct.pack("<f", -math.inf), "holds infinities, or what is no number"),
        (whole + b"more", "4 bytes more than its tensors"),
        (b"\xff" * 8 + whole[8:], "it says that its header has"),
        (whole[:20], "its header cannot be read"),
        (struct.pack("<Q", 3) + b'"a"', "its header cannot be read: AttributeError"),
        (struct.pack("<Q", 7) + b'{"a":1}', "its header cannot be read: TypeError"),
        (whole.replace(b"[3,32]", b"[3,31]"), "does not fill the bytes"),
    ):
        weights.write_bytes(content)
        with pytest.raises(IntegrityError) as caught:
            check_weights(tmp_path, description, cache)
        assert words in caught.value.why
    weights.unlink()
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        check_weights(tmp_path, description, cache)


def test_a_head_that_is_tied_to_the_embedding_is_held_against_that(tiny_llama: Path, tmp_path: Path) -> None:
    cache = Location(str(tmp_path / "cache"))
    found = resolve_base_model(ModelSection(base_model=str(tiny_llama)), cache)
    plain = read_description(make_release(tmp_path / "bundle", Trained()).path)
    base = replace(plain.base_model, reference=str(tiny_llama), digest=found.digest)
    description = replace(plain, base_model=base)
    write_adapter(tmp_path / "adapter")
    weights = shapes_in(Path(found.path))
    assert "lm_head.weight" not in weights
    num_tokens, size = weights["model.embed_tokens.weight"]
    for name, num_out, is_there in (
        ("lm_head", num_tokens, True),
        ("lm_head", num_tokens + 1, False),
        ("a.head", num_tokens, False),
    ):
        halves = {"lora_A": torch.ones(2, size), "lora_B": torch.ones(num_out, 2)}
        tensors = {f"base_model.model.{name}.{half}.weight": value for half, value in halves.items()}
        save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
        if is_there:
            assert "all fit the base model" in check_weights(tmp_path, description, cache)
        else:
            with pytest.raises(IntegrityError) as caught:
                check_weights(tmp_path, description, cache)
            assert f"the base model has no {name}" in caught.value.why


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_number_is_read_in_the_type_it_is_kept_in(dtype: torch.dtype, tmp_path: Path) -> None:
    description = replace(
        read_description(make_release(tmp_path / "bundle", Trained()).path), formats=("merged",)
    )
    folder = tmp_path / FORMAT_FOLDERS["merged"]
    folder.mkdir()
    largest = torch.finfo(dtype).max
    weights = torch.tensor([0.0, -0.0, largest, -largest, torch.finfo(dtype).tiny], dtype=dtype)
    for last in (weights[-1].item(), math.inf, -math.inf, math.nan):
        weights[-1] = last
        save_file({"first": torch.ones(3), "second": weights}, folder / "model.safetensors")
        if math.isfinite(last):
            told = check_weights(tmp_path, description, Location(str(tmp_path)))
            assert told == "2 tensors of merged were read, all of them finite"
            continue
        with pytest.raises(IntegrityError) as caught:
            check_weights(tmp_path, description, Location(str(tmp_path)))
        assert "second holds infinities" in caught.value.why
