"""A fluent way to the same RunSpec for people who write Python."""

from __future__ import annotations

from typing import Any, Self

from raytrain.config.document import Document
from raytrain.training.spec import RunSpec, spec_from_document


class RunSpecBuilder:
    """Collects sections and checks them as a recipe is checked.

        spec = RunSpecBuilder("mine").model("HuggingFaceTB/SmolLM2-135M").data("rows.jsonl").lora(rank=8).build()

    Each call returns the builder; a repeated call adds to what was said before.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: dict[str, Any] = {}

    def _add(self, section: str, **values: Any) -> Self:
        self._values.setdefault(section, {}).update(values)
        return self

    def model(self, base_model: str, **values: Any) -> Self:
        return self._add("model", base_model=base_model, **values)

    def data(self, *sources: str | dict[str, Any], **values: Any) -> Self:
        return self._add("data", sources=list(sources), **values)

    def lora(self, rank: int = 16, **values: Any) -> Self:
        return self._add("adapter", method="lora", lora_rank=rank, **values)

    def full(self) -> Self:
        """Train every parameter."""
        return self._add("adapter", method="full")

    def train(self, **values: Any) -> Self:
        return self._add("train", **values)

    def scaling(self, num_workers: int | tuple[int, int], **values: Any) -> Self:
        return self._add("scaling", num_workers=num_workers, **values)

    def storage(self, path: str, **values: Any) -> Self:
        return self._add("storage", path=path, **values)

    def tracking(self, **values: Any) -> Self:
        return self._add("tracking", **values)

    def cost(self, **values: Any) -> Self:
        return self._add("cost", **values)

    def build(self) -> RunSpec:
        """Raises ConfigError as a recipe with the same content would."""
        return spec_from_document(
            Document(self._values, {(): f"RunSpecBuilder({self._name!r})"}), default_name=self._name
        )
