"""The engine that classifies: texts of many requests in one pass over the model, each under its own adapter and head.

One thread does all of it, beside the one that writes: its modules are its own, and only their weights are shared.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError, RefusedError
from raytrain.serving.backend import AnswerFailed, ReplicaLost
from raytrain.serving.classification.passes import Passes
from raytrain.serving.classification.waiting import Asked, Found, Text, Waiting
from raytrain.serving.engine.request import Overloaded

if TYPE_CHECKING:
    from raytrain.models.classifier import ClassifierTrunk
    from raytrain.serving.adapters.weights import ClassifierWeights
    from raytrain.serving.classification.section import ClassificationSection

_log = logging.getLogger(__name__)
_MIB = 1 << 20
_FAULTS_IN_A_ROW = 3
"""Passes that may fail one after another before the engine gives up: whoever watches it then starts another."""

_RETRY_AFTER_S = 1.0


class ClassifyingEngine:
    """Over one model in this process; all methods may be called from any thread."""

    def __init__(self, trunk: ClassifierTrunk, section: ClassificationSection) -> None:
        self._trunk, self._section = trunk, section
        self._passes = Passes(trunk, section.adapter_mib * _MIB)
        self._turn_wanted = threading.Condition()
        self._waiting = Waiting()
        self._num_texts: Counter[str] = Counter()  # of each adapter, that wait or are read
        self._adapters: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._faults = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="classifying", daemon=True)
        self._thread.start()

    def submit(self, texts: Sequence[tuple[int, ...]], adapter: str) -> Found:
        """Queue texts, each of at least one token. Their answers come in their order; cancelling takes what still waits
        out of the queue. AnswerFailed comes where the model gives no number, ReplicaLost where the engine ends.

        Raises Overloaded where the queue is full, KeyError where the adapter is not loaded.
        """
        assert texts and all(texts), "a text has a token"
        asked = Asked(adapter, len(texts))
        with self._turn_wanted:
            if self._is_closed:
                raise Overloaded(0, _RETRY_AFTER_S)
            if adapter not in self._adapters or adapter in self._leaving:
                raise KeyError(adapter)
            if len(self._waiting) + len(texts) > self._section.max_waiting:
                raise Overloaded(len(self._waiting), _RETRY_AFTER_S)
            self._num_texts[adapter] += len(texts)
            self._waiting.add(asked, texts)
            self._turn_wanted.notify()
        return asked.found

    def load(self, digest: str, weights: ClassifierWeights) -> None:
        """Let a classifier answer; returns once it does. Raises RefusedError where it does not fit the base model or
        the memory."""
        try:
            head = self._trunk.build_head(len(weights.labels), weights.head)
        except ConfigError as error:
            raise RefusedError(error.what, why=error.why, fix=error.fix) from error

        def put() -> None:
            size = self._passes.put(digest, weights.lora, head)
            with self._turn_wanted:
                self._leaving.discard(digest)
                self._adapters[digest] = size

        self._command(put)

    def unload(self, digest: str) -> None:
        """No request is accepted for it any more; its memory is freed once those that were accepted have ended."""
        with self._turn_wanted:
            if digest in self._adapters:
                self._leaving.add(digest)
                self._turn_wanted.notify()

    def numbers(self) -> dict[str, Any]:
        """What it has done, and what waits now."""
        stats = self._passes.stats
        with self._turn_wanted:
            held = {one: size for one, size in self._adapters.items() if one not in self._leaving}
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
        return self._thread.is_alive() and not self._is_closed

    def close(self) -> None:
        """What waits ends with ReplicaLost. Returns when nothing runs."""
        with self._turn_wanted:
            self._is_closed = True
            self._turn_wanted.notify()
        self._thread.join()

    def _command(self, act: Callable[[], None]) -> None:
        done: Future[None] = Future()
        with self._turn_wanted:
            if self._is_closed:
                raise RuntimeError("the engine is closed")
            self._commands.append((act, done))
            self._turn_wanted.notify()
        done.result()

    def _run(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                while self._wait():
                    self._turn()
        finally:
            self._end_all()

    def _wait(self) -> bool:
        """Until there is something to do; False once the engine is closed."""
        with self._turn_wanted:
            while not (self._is_closed or self._commands or self._waiting or self._leaving_now()):
                self._turn_wanted.wait()
            return not self._is_closed

    def _leaving_now(self) -> list[str]:
        return [digest for digest in self._leaving if not self._num_texts[digest]]

    def _turn(self) -> None:
        self._obey()
        with self._turn_wanted:
            over = self._waiting.take_over()
            # Where a model lets no row be read beside another, a pass has room for none but the first.
            texts = self._waiting.take_together(0 if self._trunk.is_alone else self._section.tokens_per_pass)
        if texts:
            self._answer(texts)
        with self._turn_wanted:
            self._num_texts.subtract(one.asked.adapter for one in [*over, *texts])

    def _answer(self, texts: Sequence[Text]) -> None:
        try:
            answers = self._passes.read(texts)
            self._faults = 0
        except Exception:  # noqa: BLE001 - a text's or memory's fault: who asked is told, others go on
            _log.exception("a pass over texts failed")
            self._faults += 1
            if self._faults >= _FAULTS_IN_A_ROW:
                _log.critical("%d passes failed one after another: the engine ends", self._faults)
                self._is_closed = True
            answers = [None] * len(texts)
        for text, answer in zip(texts, answers, strict=True):
            if answer is None:
                text.asked.fail(AnswerFailed())
            else:
                text.asked.take(text.place, answer)

    def _obey(self) -> None:
        with self._turn_wanted:
            commands, self._commands = self._commands, deque()
            leaving = self._leaving_now()
            for digest in leaving:
                self._leaving.discard(digest)
                del self._adapters[digest]
        for digest in leaving:
            self._passes.drop(digest)
        for act, done in commands:
            try:
                done.set_result(act())
            except Exception as error:  # noqa: BLE001 - whoever gave the command is told
                done.set_exception(error)

    def _end_all(self) -> None:
        with self._turn_wanted:
            self._is_closed = True
            for text in self._waiting.take_all():
                text.asked.fail(ReplicaLost())
            for _, done in self._commands:
                done.set_exception(RuntimeError("the engine is closed"))
            self._commands.clear()
