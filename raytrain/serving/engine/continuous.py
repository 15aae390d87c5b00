"""The engine that runs anywhere: a transformers model, requests that join and leave between two tokens, and adapters
that are mixed in one pass.

One thread does all of it, turn by turn: what was asked of it from other threads, some tokens of prompts that wait, one
token for each answer that is being written. Any number of prompt tokens in a turn would let answers wait.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError
from raytrain.models.inference import LoadedModel
from raytrain.models.text_generation import end_tokens_of
from raytrain.serving.adapters.weights import AdapterWeights
from raytrain.serving.engine.answer import Answer
from raytrain.serving.engine.json_texts import JsonTexts
from raytrain.serving.engine.memory import check_memory
from raytrain.serving.engine.request import EngineStats, GenerationRequest, Overloaded, Tell

if TYPE_CHECKING:
    from raytrain.serving.engine.batch import Batch
    from raytrain.serving.engine.section import EngineSection

_log = logging.getLogger(__name__)
_FAULTS_IN_A_ROW = 3
"""Turns that may fail one after another before the engine gives up: whoever watches it then starts another."""


class ContinuousEngine:
    """An `Engine` over one model in this process."""

    def __init__(self, loaded: LoadedModel, section: EngineSection) -> None:
        """Raises ConfigError where the model cannot answer several requests at a time, or memory cannot hold them."""
        self._tokenizer, self._section = loaded.tokenizer, section
        self._end_tokens = frozenset(end_tokens_of(loaded.model, loaded.tokenizer))
        num_logits = int(loaded.model.get_output_embeddings().weight.shape[0])
        self._json = JsonTexts(loaded.tokenizer, num_logits, sorted(self._end_tokens))
        self.max_context_tokens = _context_of(loaded, section)
        check_memory(loaded.model, section, self.max_context_tokens)
        self._turn_wanted = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._answers: dict[str, Answer] = {}
        self._users: Counter[str] = Counter()
        self._adapters: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._commands: deque[tuple[Callable[[Batch], Any], Future[Any]]] = deque()
        self._stats = EngineStats()
        self._faults = 0
        self._is_closed = False
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(loaded, ready), name="engine", daemon=True)
        self._thread.start()
        ready.result()

    def submit(self, request: GenerationRequest, tell: Tell) -> None:
        num_tokens = len(request.prompt) + request.sampling.max_new_tokens
        assert request.prompt, "a prompt has a token"
        assert num_tokens <= self.max_context_tokens, "whoever asks has looked at max_context_tokens"
        answer = Answer(request, tell, self._tokenizer)
        if request.sampling.json_schema is not None:
            answer.json = self._json.begin(request.sampling.json_schema)
        with self._turn_wanted:
            if self._is_closed:
                raise Overloaded(0, 1.0)
            if request.adapter is not None and not self._can_answer(request.adapter):
                raise KeyError(request.adapter)
            if len(self._waiting) >= self._section.max_waiting + self._num_free():
                raise Overloaded(len(self._waiting), self._retry_after_s())
            self._users[request.adapter or ""] += 1
            self._answers[request.id] = answer
            self._waiting.append(answer)
            self._turn_wanted.notify()

    def cancel(self, request_id: str) -> None:
        with self._turn_wanted:
            answer = self._answers.get(request_id)
            if answer is not None:
                answer.is_cancelled = True
                self._turn_wanted.notify()

    def load(self, digest: str, weights: AdapterWeights) -> None:
        def put(batch: Batch) -> None:
            batch.bank.put(digest, weights)
            with self._turn_wanted:
                self._leaving.discard(digest)
                self._adapters[digest] = batch.bank.num_bytes(digest)

        self._command(put)

    def unload(self, digest: str) -> None:
        with self._turn_wanted:
            if digest in self._adapters:
                self._leaving.add(digest)
                self._turn_wanted.notify()

    def stats(self) -> EngineStats:
        with self._turn_wanted:
            adapters = {one: size for one, size in self._adapters.items() if one not in self._leaving}
            waiting = len(self._waiting)
            running = len(self._answers) - waiting
            return replace(self._stats, waiting=waiting, running=running, adapters=adapters)

    @property
    def is_alive(self) -> bool:
        """Whether it still takes turns."""
        return self._thread.is_alive() and not self._is_closed

    def close(self) -> None:
        with self._turn_wanted:
            self._is_closed = True
            self._turn_wanted.notify()
        self._thread.join()

    def check_schema(self, schema: dict[str, Any]) -> None:
        """ConfigError where answers cannot be held to it."""
        self._json.check(schema)

    def _can_answer(self, digest: str) -> bool:
        return digest in self._adapters and digest not in self._leaving

    def _num_free(self) -> int:
        return max(0, self._section.max_rows - (len(self._answers) - len(self._waiting)))

    def _retry_after_s(self) -> float:
        return max(1.0, len(self._waiting) / self._section.max_rows)

    def _command(self, act: Callable[[Batch], Any]) -> Any:
        done: Future[Any] = Future()
        with self._turn_wanted:
            if self._is_closed:
                raise RuntimeError("the engine is closed")
            self._commands.append((act, done))
            self._turn_wanted.notify()
        return done.result()

    def _run(self, loaded: LoadedModel, ready: Future[None]) -> None:
        import torch

        from raytrain.models.packed_reading import reading
        from raytrain.serving.engine.batch import Batch

        try:
            with ExitStack() as stack:
                reader = stack.enter_context(reading(loaded.model, has_room=self._section.onednn_weights))
                stack.enter_context(torch.inference_mode())
                batch = Batch(reader, self._section, self._end_tokens, self.max_context_tokens)
                ready.set_result(None)
                while self._wait(batch):
                    self._turn(batch)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
                return
            raise
        finally:
            self._end_all()

    def _wait(self, batch: Batch) -> bool:
        """Until there is something to do; False once the engine is closed."""
        with self._turn_wanted:
            while not (
                self._is_closed or self._commands or self._waiting or self._leaving_now() or batch.is_busy
            ):
                self._turn_wanted.wait()
            return not self._is_closed

    def _leaving_now(self) -> list[str]:
        return [digest for digest in self._leaving if not self._users[digest]]

    def _turn(self, batch: Batch) -> None:
        self._obey(batch)
        joining: list[Answer] = []
        try:
            with self._turn_wanted:
                for answer in [one for one in self._waiting if one.is_cancelled]:
                    self._waiting.remove(answer)
                    answer.end("cancelled")
                joining = batch.choose_joining(self._waiting)
            told = batch.turn(joining)
            self._faults = 0
        except Exception:  # noqa: BLE001 - a prompt's or memory's fault: who was being answered is told, others go on
            _log.exception("a turn of the engine failed")
            told = batch.fail(joining)
            self._faults += 1
            if self._faults >= _FAULTS_IN_A_ROW:
                _log.critical("%d turns failed one after another: the engine ends", self._faults)
                self._is_closed = True
        self._forget_ended(told)

    def _obey(self, batch: Batch) -> None:
        with self._turn_wanted:
            commands, self._commands = self._commands, deque()
            leaving = self._leaving_now()
            for digest in leaving:
                self._leaving.discard(digest)
                del self._adapters[digest]
        for digest in leaving:
            batch.forget(digest)
        for act, done in commands:
            try:
                done.set_result(act(batch))
            except Exception as error:  # noqa: BLE001 - whoever gave the command is told
                done.set_exception(error)

    def _forget_ended(self, told: EngineStats) -> None:
        with self._turn_wanted:
            self._stats = told
            for key in [key for key, answer in self._answers.items() if answer.is_ended]:
                self._users[self._answers.pop(key).request.adapter or ""] -= 1

    def _end_all(self) -> None:
        with self._turn_wanted:
            self._is_closed = True
            for answer in self._answers.values():
                answer.end("cancelled")
            self._answers.clear()
            self._waiting.clear()
            for _, done in self._commands:
                done.set_exception(RuntimeError("the engine is closed"))
            self._commands.clear()


def _context_of(loaded: LoadedModel, section: EngineSection) -> int:
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    wanted = section.max_context_tokens
    if wanted is None and positions is None:
        raise ConfigError(
            "nobody says how long a prompt may be",
            why=f"{loaded.base.reference} names no max_position_embeddings",
            fix="set engine.max_context_tokens",
        )
    return min(one for one in (wanted, positions) if one is not None)
