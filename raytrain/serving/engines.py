"""The two engines of a replica: one writes, the other classifies."""

from __future__ import annotations

from typing import Any

from raytrain.errors import RefusedError
from raytrain.serving.adapters.residents import Holder
from raytrain.serving.adapters.weights import ClassifierWeights
from raytrain.serving.engine.request import EngineStats, GenerationRequest, Tell


class Engines:
    """A `Holder`: adapters that write are held by the one, classifiers by the other."""

    def __init__(self, writing: Holder, classifying: Holder) -> None:
        self._writing, self._classifying = writing, classifying
        self._holders: dict[str, Holder] = {}

    def load(self, digest: str, weights: Any) -> None:
        """Raises as the one that it is for."""
        holder = self._classifying if isinstance(weights, ClassifierWeights) else self._writing
        holder.load(digest, weights)
        self._holders[digest] = holder

    def unload(self, digest: str) -> None:
        holder = self._holders.pop(digest, None)
        if holder is not None:
            holder.unload(digest)


class NoEngine:
    """An `Engine` in place of one that writes, over a base model that does not."""

    is_alive = True
    max_context_tokens = 0

    def submit(self, request: GenerationRequest, tell: Tell) -> None:  # noqa: ARG002 - Engine's
        raise AssertionError("nobody is let through who asks for a text")

    def cancel(self, request_id: str) -> None:
        """There is none."""

    def load(self, digest: str, weights: Any) -> None:  # noqa: ARG002 - Engine's
        raise RefusedError(
            f"the adapter {digest} cannot be served here",
            why="it writes, and the base model does not",
            fix="serve it over the model it was trained on",
        )

    def unload(self, digest: str) -> None:
        """There is none."""

    def check_schema(self, schema: dict[str, Any]) -> None:
        """Nobody is held to one."""

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self) -> None:
        """Nothing runs."""
