"""What a replica may come to need is known before it does."""

from __future__ import annotations

import pytest

from raytrain.errors import ConfigError
from raytrain.models.inference import LoadedModel
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.memory import Needs, key_value_bytes
from raytrain.serving.engine.section import EngineSection

MIB = 1 << 20


def test_a_token_s_bytes_are_those_that_the_model_s_cache_takes(loaded: LoadedModel) -> None:
    import torch

    with torch.no_grad():
        cache = loaded.model(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 3 * key_value_bytes(loaded.model.config, loaded.model.dtype.itemsize)


def test_what_fits_is_said() -> None:
    needs = Needs(100 * MIB, 1024, num_rows=16, context_tokens=8192, kept_bytes=28 * MIB)
    needs.check(256 * MIB)
    with pytest.raises(ConfigError) as refused:
        needs.check(192 * MIB)
    assert refused.value.what.endswith("256 MiB of memory, and there are 192 MiB")
    assert "128 MiB for 16 answers of 8192 tokens" in refused.value.why
    assert refused.value.fix == "set engine.max_context_tokens=4096 or engine.max_rows=8"
    Needs(100 * MIB, 1024, num_rows=16, context_tokens=4096, kept_bytes=28 * MIB).check(192 * MIB)
    Needs(100 * MIB, 1024, num_rows=8, context_tokens=8192, kept_bytes=28 * MIB).check(192 * MIB)
    with pytest.raises(ConfigError, match="memory") as none:
        needs.check(100 * MIB)
    assert "smaller base model" in none.value.fix


def test_an_engine_that_cannot_hold_its_answers_is_not_started(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytrain.serving.engine.memory.memory_bytes", lambda: 20 * MIB)
    room = {"prefix_cache_mib": 1, "adapter_mib": 1}
    with pytest.raises(ConfigError, match="may come to need"):
        ContinuousEngine(loaded, EngineSection.model_validate({"max_rows": 1024, **room}))
    ContinuousEngine(loaded, EngineSection.model_validate({"max_rows": 4, **room})).close()
