"""Trials at an ingress: says who takes part, asks the candidate of a shadow, and keeps what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from raytrain.serving.backend import Ask, Backend, Draining, ReplicaLost, Undecided
from raytrain.serving.engine.request import Overloaded
from raytrain.serving.http.answers import Answers
from raytrain.serving.http.errors import refusal_of
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.record import Record
from raytrain.serving.http.request_log import RequestLog, Sample
from raytrain.serving.trials.assignment import caller_of, takes_part, trial_of
from raytrain.serving.trials.log import Part, TrialLog, agree
from raytrain.serving.trials.section import TrialSection

_log = logging.getLogger(__name__)
_MOST_MIRRORED = 64
"""Requests that the candidates of shadows answer at a time for one ingress."""


class TrialDesk:
    """Of one app, for its event loop; `close` it."""

    def __init__(
        self, backend: Backend, trials: Sequence[TrialSection], log: TrialLog, answer_time_s: float
    ) -> None:
        self._backend, self._trials, self._log = backend, trials, log
        self._answer_time_s = answer_time_s
        self._mirrored: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter(dict.fromkeys(("compared", "dropped", "failed"), 0))
        """What became of requests that were to be asked of a shadow's candidate."""

    @property
    def logs(self) -> dict[str, ParquetLog]:
        """By what they hold."""
        return self._log.logs

    def part_of(self, model: str, user: str | None, request_id: str) -> Part | None:
        """None where this request has nothing to do with a trial."""
        trial = trial_of(model, self._trials)
        if trial is None:
            return None
        caller = caller_of(user, request_id)
        is_in = takes_part(trial, caller)
        if trial.mode == "shadow":
            return Part(trial, caller, "production") if is_in else None
        return Part(trial, caller, "candidate" if is_in else "production")

    def ended(self, part: Part, record: Record, kept_in: RequestLog | None) -> None:
        """The client has its answer. Returns at once.

        kept_in: where the words of this request are kept, and those of its mirrored one are to be.
        """
        served = record.served
        if served is None or served.arm is None or len(record.finishes) < len(part.sample.asks):
            return  # the trial does not go on, or there is no answer to compare
        if part.trial.mode == "canary":
            self._log.put(part, record)
        elif len(self._mirrored) >= _MOST_MIRRORED:
            self.counts["dropped"] += 1
        else:
            task = asyncio.get_running_loop().create_task(self._mirror(part, record, kept_in))
            self._mirrored.add(task)
            task.add_done_callback(self._mirrored.discard)

    def failed(self, part: Part, record: Record, error: Exception) -> None:
        """A canary's answer came to no end by a fault of the server's; whose version it was may not be known."""
        if part.trial.mode != "canary" or (record.served is not None and record.served.arm is None):
            return  # of a shadow its candidate's count alone; or the trial does not go on
        told, code = refusal_of(error, lambda _: False), _fault_of(error)
        if code is not None and (told is None or told.status >= 500):
            self._log.put(part, record, error=code)

    async def close(self) -> None:
        """What candidates have not answered by now is given up."""
        for task in self._mirrored:
            task.cancel()
        await asyncio.gather(*self._mirrored, return_exceptions=True)
        await asyncio.to_thread(self._log.close)

    async def _mirror(self, part: Part, record: Record, kept_in: RequestLog | None) -> None:
        asks = [_mirrored(one, place, record.model) for place, one in enumerate(part.sample.asks)]
        other = Record(record.id, record.method, route=record.route, key=record.key, model=record.model)
        other.num_answers = record.num_answers
        beside = Part(part.trial, part.caller, "candidate", Sample(asks, part.sample.user), time.monotonic())
        try:
            await self._ask(beside, other)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the candidate's, and nobody waits
            told = refusal_of(error, lambda _: False)
            if told is not None and told.code == "model_not_found":
                return  # the trial has ended meanwhile
            code = _fault_of(error)
            if code is None:
                self.counts["dropped"] += 1
                return
            self.counts["failed"] += 1
            _log.warning("the candidate of %s has no answer (%s): %s", part.trial.name, record.id, code)
            self._log.put(part, record, error=code)
            return
        if other.served is None or other.served.arm != "candidate":
            return  # the trial has ended meanwhile
        if part.ended_at is None:
            beside.ended_at = None
        self.counts["compared"] += 1
        agrees = agree(part.sample, beside.sample, sorted(part.sample.written))
        self._log.put(part, record, agrees=agrees)
        self._log.put(beside, other, agrees=agrees)
        if kept_in is not None:
            kept_in.end(other, beside.sample)

    async def _ask(self, part: Part, record: Record) -> None:
        """Raises what an answer may raise; TimeoutError after as long as a client would have waited."""
        answers = Answers(self._backend, part.sample.asks)
        try:
            async with asyncio.timeout(self._answer_time_s):
                await answers.begin()
                record.served = answers.served
                while record.served.arm == "candidate" and (told := await answers.next()) is not None:
                    place, piece = told
                    record.note(place, piece)
                    part.sample.add(place, piece)
            part.ended_at = time.monotonic()
        finally:
            await answers.close()


def _fault_of(error: Exception) -> str | None:
    """What went wrong with an answer; None where that is nothing of who answered, but a busy or ending server's."""
    if isinstance(error, Overloaded | ReplicaLost | Draining | Undecided):
        return None
    told = refusal_of(error, lambda _: False)
    if told is not None and told.code in ("cancelled", "model_changed"):
        return None
    return "internal_error" if told is None or told.code is None else told.code


def _mirrored(ask: Ask, place: int, model: str | None) -> Ask:
    name, _, _ = ask.id.rpartition("-")
    return replace(
        ask,
        id=f"{name}-mirrored{place}",
        model=model or ask.model,
        is_streamed=False,
        arm="candidate",
        is_mirror=True,
    )
