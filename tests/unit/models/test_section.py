from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from raytrain.config.document import parse_document
from raytrain.config.recipe import build
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.models.section import AdapterSection, ModelSection


class Recipe(Section):
    model: ModelSection
    adapter: AdapterSection = AdapterSection()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lora_rank: 0", "1 or more; `adapter.method: full` trains all weights"),
        ("lora_rank: many", "integer"),
        ("lora_dropout: 1.0", "less than 1"),
        ("method: prefix", "'lora', 'qlora' or 'full'"),
        ("target_modules: []", "at least one module"),
        ("lora_rang: 4", "did you mean `lora_rank`?"),
    ],
)
def test_a_wrong_adapter_value_is_told_with_its_line(line: str, said: str) -> None:
    document = parse_document(f"model:\n  base_model: tiny\nadapter:\n  {line}\n", "recipe.yaml")
    with pytest.raises(ConfigError) as caught:
        build(Recipe, document)
    assert caught.value.what.startswith("recipe.yaml:4: adapter.")
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_base_model_must_be_named() -> None:
    with pytest.raises(ConfigError, match="name a hub id"):
        build(Recipe, parse_document("model:\n  base_model: ''\n", "recipe.yaml"))


@pytest.mark.parametrize("section", [ModelSection, AdapterSection])
def test_every_field_is_documented(section: Any) -> None:
    assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_sections_cost_no_heavy_import() -> None:
    heavy = "('torch', 'transformers', 'peft', 'ray')"
    code = f"import sys, raytrain.models.section; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
