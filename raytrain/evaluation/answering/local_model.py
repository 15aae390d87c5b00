"""A model on this machine as an answerer: in this process, or in Ray actors."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from raytrain.errors import ConfigError
from raytrain.evaluation.answering.answerer import Unit, units_of
from raytrain.evaluation.answering.asking import answer_items
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.items import Suite
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluatedModel
from raytrain.models.inference import InferenceModel, LoadedModel, find_for_inference, tokenizer_digest
from raytrain.models.packed_reading import reading
from raytrain.storage.manifest import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_JUDGED_TOGETHER = 64
"""Items whose likelihoods are found together: enough for full forward passes, and still told of soon."""


_MOST_BATCHES, _LEAST_UNITS = 4, 16


def _written_together(num_items: int, batch_size: int) -> int:
    """Items of a unit, of which `batch_size` are written at a time: several batches of a large suite, where the next
    takes a freed place and shared beginnings are read once, and still enough units for many workers."""
    return max(batch_size, min(_MOST_BATCHES * batch_size, num_items // _LEAST_UNITS))


class LocalModel:
    """Answers in this process; its weights are read when the first answer is wanted."""

    def __init__(self, found: InferenceModel, settings: EvaluateSettings, device: str | None = None) -> None:
        self._found = found
        self._answering = settings.answering
        tokenizer = found.load_tokenizer()
        self._template: str | None = tokenizer.chat_template
        self.identity = _identity(found, tokenizer)
        self._device = best_device() if device is None else device
        self.settings: dict[str, Any] = {
            **settings.answering.model_dump(mode="json", include={"dtype", "batch_size"}),
            "device": self._device,
        }
        self._loaded: LoadedModel | None = None
        self._reading = ExitStack()

    def plan(self, suite: Suite) -> list[Unit]:
        section = suite.section
        if section.prompt.mode == "chat" and not self._template:
            raise ConfigError(
                f"suite {section.suite} cannot be put to {self.identity.reference}",
                why="it asks in prompt.mode: chat, and the model has no chat template",
                fix="set answering.chat_template, or let the suite ask in mode: completion",
            )
        is_written = section.kind == "generation"
        size = _written_together(len(suite.items), self._answering.batch_size)
        return units_of(suite.items, size if is_written else _JUDGED_TOGETHER)

    def answer(self, suite: Suite, units: Sequence[Unit]) -> Iterator[list[ItemRecord]]:
        if not units:
            return
        if self._loaded is None:
            self._loaded = self._found.load(self._device)
            self._reading.enter_context(reading(self._loaded.model))  # made ready once, not for each unit
        for unit in units:
            yield list(answer_items(self._loaded, suite, unit, batch_size=self._answering.batch_size))

    def resources(self) -> dict[str, Any]:
        peak = None if self._loaded is None else peak_rss_bytes()
        return {"peak_rss_bytes": peak, "num_workers": 1, "threads": num_threads()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.close()
        self._loaded = None


def find_model(reference: str, settings: EvaluateSettings) -> InferenceModel:
    """The model, as the settings want it held and asked."""
    answering = settings.answering
    return find_for_inference(
        reference,
        cache=settings.storage.location,
        dtype=answering.dtype,
        base_model_only=answering.base_model_only,
        chat_template=answering.chat_template,
    )


def best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def absolute_reference(reference: str) -> str:
    """For who looks from another folder."""
    if "://" in reference or not Path(reference).expanduser().exists():
        return reference
    return str(Path(reference).expanduser().absolute())


def num_threads() -> int:
    import torch

    return int(torch.get_num_threads())


def peak_rss_bytes() -> int:
    """Most memory that this process has held at a time; getrusage gives KiB, on macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def identify(found: InferenceModel) -> EvaluatedModel:
    """Its digests; nothing is loaded but the tokenizer."""
    return _identity(found, found.load_tokenizer())


def _identity(found: InferenceModel, tokenizer: PreTrainedTokenizerBase) -> EvaluatedModel:
    template = tokenizer.chat_template
    return EvaluatedModel(
        reference=found.reference,
        base_model=found.base.reference,
        base_digest=found.base.digest,
        adapter_digest=found.adapter_digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        template_digest=None if not template else digest_of(template),
    )
