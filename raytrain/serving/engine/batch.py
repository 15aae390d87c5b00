"""The rows of an engine: prompts are read, answers written, each under its adapter."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from raytrain.errors import ConfigError
from raytrain.models.decoding.choice import can_join
from raytrain.models.decoding.prompt_in_parts import PromptInParts
from raytrain.models.decoding.prompt_reading import ReadPrompt, read_trees
from raytrain.models.decoding.rows import Row
from raytrain.models.decoding.slot_rows import SlotRows
from raytrain.models.packed_reading import Reader
from raytrain.models.prefix_trees import grow_trees, num_tokens
from raytrain.serving.adapters.bank import AdapterBank
from raytrain.serving.engine.answer import Answer
from raytrain.serving.engine.choosing import choose
from raytrain.serving.engine.prefixes import Prefixes
from raytrain.serving.engine.request import EngineStats
from raytrain.serving.engine.section import EngineSection

_MIB = 1 << 20


class Batch:
    """For one thread, under torch.inference_mode()."""

    def __init__(
        self, reader: Reader, section: EngineSection, end_tokens: Collection[int], most_tokens: int
    ) -> None:
        """most_tokens: of a prompt with its answer."""
        if not can_join(reader):
            raise ConfigError(
                "the model cannot answer several requests at a time",
                why="its rows cannot be read packed, or it does not keep every token in its cache",
                fix="serve another model: one whose attention is causal, and whose cache keeps every token",
            )
        self._reader, self._section, self._end_tokens = reader, section, end_tokens
        self._most_tokens = most_tokens
        self.bank = AdapterBank(reader.model, section.adapter_mib * _MIB)
        self._prefixes = Prefixes(reader.model, section.prefix_cache_mib * _MIB)
        self._answers: dict[int, Answer] = {}
        self._count = 0
        self._begun: deque[tuple[Answer, PromptInParts]] = deque()
        self._stats = EngineStats()
        self._rows = self._new_rows()

    def _new_rows(self) -> SlotRows:
        return SlotRows(
            self._reader.model,
            self._section.max_rows,
            most_tokens=self._most_tokens,
            on_forward=self._use_adapters,
        )

    @property
    def is_busy(self) -> bool:
        return bool(self._rows.rows or self._begun)

    def forget(self, adapter: str) -> None:
        """Its matrices and all that was read under it."""
        self.bank.drop(adapter)
        self._prefixes.forget(adapter)

    def choose_joining(self, waiting: deque[Answer]) -> list[Answer]:
        """Take those from the queue, in its order, for which there is a place, as far as a turn can read them."""
        room = self._section.max_rows - len(self._rows.rows) - len(self._begun)
        budget = self._section.prompt_tokens_per_step
        budget -= sum(prompt.num_left for _, prompt in self._begun)
        joining: list[Answer] = []
        while waiting and room > 0 and budget > 0:
            budget -= len(waiting[0].request.prompt)
            room -= 1
            joining.append(waiting.popleft())
        return joining

    def turn(self, joining: Sequence[Answer]) -> EngineStats:
        """Read what joins, and write a token of each answer. What was counted until now."""
        self._read_prompts(joining)
        if self._rows.rows:
            self._write()
        return self._stats

    def fail(self, joining: Sequence[Answer]) -> EngineStats:
        """After a turn that failed: every answer that had begun, or was to, ends; memory is as at first."""
        for answer in [*self._answers.values(), *(answer for answer, _ in self._begun), *joining]:
            answer.end("error")
        self._answers.clear()
        self._begun.clear()
        self._rows = self._new_rows()
        return self._stats

    def _read_prompts(self, joining: Sequence[Answer]) -> None:
        together: list[Answer] = []
        for answer in joining:
            answer.begin()
            request = answer.request
            known = self._prefixes.find(request.adapter, request.prompt)
            answer.num_cached = known[1] if known else 0
            if known or len(request.prompt) > self._section.prompt_tokens_per_step:
                self._begun.append((answer, PromptInParts(self._reader.model, request.prompt, known)))
            else:
                together.append(answer)
        self._read_together(together)
        budget = self._section.prompt_tokens_per_step - sum(len(one.request.prompt) for one in together)
        while self._begun and budget > 0:
            answer, prompt = self._begun[0]
            if answer.is_cancelled:
                answer.end("cancelled")
                self._begun.popleft()
                continue
            size = min(budget, prompt.num_left)
            budget -= size
            self.bank.use([(answer.request.adapter, size)])
            read = prompt.read(size)
            if read is not None:
                self._begun.popleft()
                self._join(answer, read)

    def _read_together(self, answers: Sequence[Answer]) -> None:
        """Short prompts in one pass; what those under the same adapter share is read once."""
        if not answers:
            return
        trees: list[list[Answer]] = []
        for adapter in dict.fromkeys(one.request.adapter for one in answers):
            those = [one for one in answers if one.request.adapter == adapter]
            grown = grow_trees([one.request.prompt for one in those], self._section.prompt_tokens_per_step)
            trees += [[those[i] for i in tree] for tree in grown]
        texts = [[one.request.prompt for one in tree] for tree in trees]
        self.bank.use(
            [(tree[0].request.adapter, num_tokens(own)) for tree, own in zip(trees, texts, strict=True)]
        )
        for tree, prompts in zip(trees, read_trees(self._reader, texts), strict=True):
            for answer, prompt in zip(tree, prompts, strict=True):
                if prompt is None:
                    alone = PromptInParts(self._reader.model, answer.request.prompt)
                    self._begun.append((answer, alone))
                else:
                    self._join(answer, prompt)

    def _join(self, answer: Answer, prompt: ReadPrompt) -> None:
        request = answer.request
        self._prefixes.keep(request.adapter, request.prompt, prompt)
        self._count += 1
        self._answers[self._count] = answer
        self._rows.join([(Row(self._count, time.perf_counter(), len(request.prompt)), prompt)])
        self._stats = replace(
            self._stats,
            prompt_tokens=self._stats.prompt_tokens + len(request.prompt),
            cached_tokens=self._stats.cached_tokens + answer.num_cached,
        )

    def _write(self) -> None:
        rows = [self._answers[row.number] for row in self._rows.rows]
        logits = self._rows.logits
        for place, answer in enumerate(rows):
            if answer.json is not None:
                logits[place].masked_fill_(answer.json.forbidden().to(logits.device), float("-inf"))
        chosen = choose(logits, [answer.chooser for answer in rows])
        going: dict[int, int] = {}
        for place, (row, answer, one) in enumerate(zip(self._rows.rows, rows, chosen, strict=True)):
            if answer.is_cancelled:
                answer.end("cancelled")
            else:
                answer.take(one, self._end_tokens)
            if answer.is_ended:
                del self._answers[row.number]
            else:
                going[place] = one.id
        self._stats = replace(
            self._stats,
            steps=self._stats.steps + 1,
            rows_in_steps=self._stats.rows_in_steps + len(rows),
            new_tokens=self._stats.new_tokens + len(rows),
        )
        self._rows.read(going)

    def _use_adapters(self, rows: Sequence[Row]) -> None:
        self.bank.use([(self._answers[row.number].request.adapter, 1) for row in rows])
