"""The engine that runs anywhere: a transformers model, requests that join and leave between two tokens, and adapters
that are mixed in one pass.

One thread does all of it, turn by turn: what was asked of it from other threads, some tokens of prompts that wait, one
token for each answer that is being written. Any number of prompt tokens in a turn would let answers wait.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError
from raytrain.models.inference import LoadedModel
from raytrain.models.text_generation import end_tokens_of
from raytrain.serving.adapters.weights import AdapterWeights
from raytrain.serving.engine.answer import Answer
from raytrain.serving.engine.json_texts import JsonTexts
from raytrain.serving.engine.memory import check_memory
from raytrain.serving.engine.request import EngineStats, GenerationRequest, Overloaded, Tell
from raytrain.serving.engine.token_texts import TokenTexts
from raytrain.serving.engine.turns import Turns

if TYPE_CHECKING:
    from raytrain.serving.engine.batch import Batch
    from raytrain.serving.engine.section import EngineSection


class ContinuousEngine:
    """An `Engine` over one model in this process."""

    def __init__(self, loaded: LoadedModel, section: EngineSection) -> None:
        """Raises ConfigError where the model cannot answer several requests at a time, or memory cannot hold them."""
        self._tokenizer, self._section = loaded.tokenizer, section
        self._token_texts = TokenTexts(loaded.tokenizer)
        self._end_tokens = frozenset(end_tokens_of(loaded.model, loaded.tokenizer))
        num_logits = int(loaded.model.get_output_embeddings().weight.shape[0])
        self._json = JsonTexts(loaded.tokenizer, num_logits, sorted(self._end_tokens))
        self.max_context_tokens = _context_of(loaded, section)
        check_memory(loaded.model, section, self.max_context_tokens)
        self._waiting: deque[Answer] = deque()
        self._answers: dict[str, Answer] = {}
        self._stats = EngineStats()
        ready: Future[Batch] = Future()
        self._turns = Turns("engine", partial(self._run, loaded, ready))
        self._turns.start()
        self._batch = ready.result()

    def submit(self, request: GenerationRequest, tell: Tell) -> None:
        num_tokens = len(request.prompt) + request.sampling.max_new_tokens
        assert request.prompt, "a prompt has a token"
        assert num_tokens <= self.max_context_tokens, "whoever asks has looked at max_context_tokens"
        answer = Answer(request, tell, self._tokenizer, self._token_texts)
        if request.sampling.json_schema is not None:
            answer.json = self._json.begin(request.sampling.json_schema)
        with self._turns.wanted:
            if self._turns.is_closed:
                raise Overloaded(0, 1.0)
            if request.adapter is not None and not self._turns.can_answer(request.adapter):
                raise KeyError(request.adapter)
            if len(self._waiting) >= self._section.max_waiting + self._num_free():
                raise Overloaded(len(self._waiting), self._retry_after_s())
            self._turns.users[request.adapter or ""] += 1
            self._answers[request.id] = answer
            self._waiting.append(answer)
            self._turns.wanted.notify()

    def cancel(self, request_id: str) -> None:
        with self._turns.wanted:
            answer = self._answers.get(request_id)
            if answer is not None:
                answer.is_cancelled = True
                self._turns.wanted.notify()

    def load(self, digest: str, weights: AdapterWeights) -> None:
        def put() -> bool:
            bank = self._batch.bank
            if bank.make_way(weights):
                return False
            bank.put(digest, weights)
            self._turns.put(digest, bank.num_bytes(digest))
            return True

        while not self._turns.command(put):  # a turn is taken after each adapter that was moved
            pass

    def unload(self, digest: str) -> None:
        self._turns.unload(digest)

    def stats(self) -> EngineStats:
        with self._turns.wanted:
            adapters = self._turns.held()
            waiting = len(self._waiting)
            running = len(self._answers) - waiting
            return replace(self._stats, waiting=waiting, running=running, adapters=adapters)

    @property
    def is_alive(self) -> bool:
        """Whether it still takes turns."""
        return self._turns.is_alive

    def close(self) -> None:
        self._turns.close()

    def check_schema(self, schema: dict[str, Any]) -> None:
        """ConfigError where answers cannot be held to it."""
        self._json.check(schema)

    def _num_free(self) -> int:
        return max(0, self._section.max_rows - (len(self._answers) - len(self._waiting)))

    def _retry_after_s(self) -> float:
        return max(1.0, len(self._waiting) / self._section.max_rows)

    def _run(self, loaded: LoadedModel, ready: Future[Batch]) -> None:
        import torch

        from raytrain.models.packed_reading import reading
        from raytrain.serving.engine.batch import Batch

        try:
            with ExitStack() as stack:
                reader = stack.enter_context(reading(loaded.model, has_room=self._section.onednn_weights))
                stack.enter_context(torch.inference_mode())
                batch = Batch(reader, self._section, self._end_tokens, self.max_context_tokens)
                ready.set_result(batch)
                while self._turns.wait(lambda: self._waiting or batch.is_busy):
                    self._turn(batch)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
                return
            raise
        finally:
            self._end_all()

    def _turn(self, batch: Batch) -> None:
        self._turns.obey(batch.forget)
        joining: list[Answer] = []
        try:
            with self._turns.wanted:
                for answer in [one for one in self._waiting if one.is_cancelled]:
                    self._waiting.remove(answer)
                    answer.end("cancelled")
                joining = batch.choose_joining(self._waiting)
            told = batch.turn(joining)
            self._turns.succeeded()
        except Exception:  # noqa: BLE001 - a prompt's or memory's fault: who was being answered is told, others go on
            self._turns.failed("a turn of the engine")
            told = batch.fail(joining)
        self._forget_ended(told)

    def _forget_ended(self, told: EngineStats) -> None:
        with self._turns.wanted:
            self._stats = told
            for key in [key for key, answer in self._answers.items() if answer.is_ended]:
                self._turns.users[self._answers.pop(key).request.adapter or ""] -= 1

    def _end_all(self) -> None:
        with self._turns.wanted:
            self._turns.end()
            for answer in self._answers.values():
                answer.end("cancelled")
            self._answers.clear()
            self._waiting.clear()


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
