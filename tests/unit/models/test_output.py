from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput, Seq2SeqLMOutput

from raytrain.models.output import ModelOutput

LOGITS, LOSS = torch.arange(6.0).view(2, 3), torch.tensor(1.5)


@pytest.mark.parametrize(
    ("raw", "loss"),
    [
        (LOGITS, None),
        ((LOGITS,), None),
        ((LOGITS, torch.zeros(2, 5)), None),
        ((LOSS, LOGITS), LOSS),
        ((LOSS, LOGITS, ("hidden",)), LOSS),
        ({"logits": LOGITS}, None),
        (OrderedDict(loss=LOSS, logits=LOGITS), LOSS),
        (CausalLMOutput(logits=LOGITS), None),
        (Seq2SeqLMOutput(loss=LOSS, logits=LOGITS), LOSS),
        (SimpleNamespace(logits=LOGITS, loss=None), None),
        (ModelOutput(LOGITS, LOSS), LOSS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_shape_is_read(raw: Any, loss: torch.Tensor | None) -> None:
    found = ModelOutput.from_raw(raw)
    assert found.logits is LOGITS
    assert found.loss is loss


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"scores": LOGITS}, "a mapping with the keys scores"),
        ({}, "a mapping with the keys none"),
        ((), "a tuple of nothing"),
        (("text", 3), "a tuple of str, int"),
        ((LOSS,), "a tuple of Tensor"),
        (None, "NoneType"),
        ("logits", "str"),
        (SimpleNamespace(logits=[1.0]), "SimpleNamespace"),
        (LOSS, "a single number"),
    ],
    ids=str,
)
def test_an_answer_without_logits_is_a_type_error(raw: Any, told: str) -> None:
    with pytest.raises(TypeError, match="holds no logits") as caught:
        ModelOutput.from_raw(raw)
    assert told in str(caught.value)
    assert "tensor of logits" in str(caught.value), "it says what to return instead"
