"""The engine that classifies: texts of many requests in one pass over the model, each under its own adapter and head.

One thread does all of it, beside the one that writes: its modules are its own, and only their weights are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError, RefusedError
from raytrain.serving.backend import AnswerFailed, ReplicaLost
from raytrain.serving.classification.passes import Passes
from raytrain.serving.classification.waiting import Asked, Found, Text, Waiting
from raytrain.serving.engine.request import Overloaded
from raytrain.serving.engine.turns import Turns

if TYPE_CHECKING:
    from raytrain.models.classifier import ClassifierTrunk
    from raytrain.serving.adapters.weights import ClassifierWeights
    from raytrain.serving.classification.section import ClassificationSection

_MIB = 1 << 20
_RETRY_AFTER_S = 1.0


class ClassifyingEngine:
    """Over one model in this process; all methods may be called from any thread."""

    def __init__(self, trunk: ClassifierTrunk, section: ClassificationSection) -> None:
        self._trunk, self._section = trunk, section
        self._passes = Passes(trunk, section.adapter_mib * _MIB)
        self._waiting = Waiting()
        self._turns = Turns("classifying", self._run)
        self._turns.start()

    def submit(self, texts: Sequence[tuple[int, ...]], adapter: str) -> Found:
        """Queue texts, each of at least one token. Their answers come in their order; cancelling takes what still waits
        out of the queue. AnswerFailed comes where the model gives no number, ReplicaLost where the engine ends.

        Raises Overloaded where the queue is full, KeyError where the adapter is not loaded.
        """
        assert texts and all(texts), "a text has a token"
        asked = Asked(adapter, len(texts))
        with self._turns.wanted:
            if self._turns.is_closed:
                raise Overloaded(0, _RETRY_AFTER_S)
            if not self._turns.can_answer(adapter):
                raise KeyError(adapter)
            if len(self._waiting) + len(texts) > self._section.max_waiting:
                raise Overloaded(len(self._waiting), _RETRY_AFTER_S)
            self._turns.users[adapter] += len(texts)
            self._waiting.add(asked, texts)
            self._turns.wanted.notify()
        return asked.found

    def load(self, digest: str, weights: ClassifierWeights) -> None:
        """Let a classifier answer; returns once it does. Raises RefusedError where it does not fit the base model or
        the memory."""
        try:
            head = self._trunk.build_head(len(weights.labels), weights.head)
        except ConfigError as error:
            raise RefusedError(error.what, why=error.why, fix=error.fix) from error

        def put() -> bool:
            if self._passes.make_way(weights.lora):
                return False
            self._turns.put(digest, self._passes.put(digest, weights.lora, head))
            return True

        while not self._turns.command(put):  # a turn is taken after each classifier that was moved
            pass

    def unload(self, digest: str) -> None:
        """No request is accepted for it any more; its memory is freed once those that were accepted have ended."""
        self._turns.unload(digest)

    def numbers(self) -> dict[str, Any]:
        """What it has done, and what waits now."""
        stats = self._passes.stats
        with self._turns.wanted:
            held = self._turns.held()
            waiting = len(self._waiting)
        return {
            "classify_waiting": waiting,
            "classify_passes": stats.passes,
            "classify_texts": stats.texts,
            "classify_tokens": stats.tokens,
            "classify_padding_tokens": stats.padding_tokens,
            "classifiers": held,
        }

    @property
    def is_alive(self) -> bool:
        """Whether it still takes turns."""
        return self._turns.is_alive

    def close(self) -> None:
        """What waits ends with ReplicaLost. Returns when nothing runs."""
        self._turns.close()

    def _run(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                while self._turns.wait(lambda: len(self._waiting)):
                    self._turn()
        finally:
            self._end_all()

    def _turn(self) -> None:
        self._turns.obey(self._passes.drop)
        with self._turns.wanted:
            over = self._waiting.take_over()
            # Where a model lets no row be read beside another, a pass has room for none but the first.
            texts = self._waiting.take_together(0 if self._trunk.is_alone else self._section.tokens_per_pass)
        if texts:
            self._answer(texts)
        with self._turns.wanted:
            self._turns.users.subtract(one.asked.adapter for one in [*over, *texts])

    def _answer(self, texts: Sequence[Text]) -> None:
        try:
            answers = self._passes.read(texts)
            self._turns.succeeded()
        except Exception:  # noqa: BLE001 - a text's or memory's fault: who asked is told, others go on
            self._turns.failed("a pass over texts")
            answers = [None] * len(texts)
        for text, answer in zip(texts, answers, strict=True):
            if answer is None:
                text.asked.fail(AnswerFailed())
            else:
                text.asked.take(text.place, answer)

    def _end_all(self) -> None:
        with self._turns.wanted:
            self._turns.end()
            for text in self._waiting.take_all():
                text.asked.fail(ReplicaLost())
