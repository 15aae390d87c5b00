"""A sink whose failures and waits never reach training."""

from __future__ import annotations

import math
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from raytrain.runs.record_types import MetricRow, RunState
from raytrain.runs.sinks.sink import MetricSink

CAPACITY_ROWS = 10_000
MAX_ATTEMPTS = 10
_LONGEST_PAUSE_S = 30.0
_CLOSE_TIMEOUT_S = 10.0

_Rewind = int
Warn = Callable[[str], None]


class BackgroundSink:
    """Hands everything to `sink` in a thread of its own, in order.

    While the sink fails, rows wait here and are tried again at growing intervals; `warn` is told of the first
    failure. Rows are lost only where more than `capacity` wait, where one fails MAX_ATTEMPTS times, or where
    the sink still fails after the run has ended; `close` says how many.
    """

    def __init__(
        self,
        sink: MetricSink,
        name: str,
        warn: Warn,
        *,
        capacity: int = CAPACITY_ROWS,
        first_pause_s: float = 1.0,
        close_timeout_s: float = _CLOSE_TIMEOUT_S,
    ) -> None:
        self.num_lost = 0
        self._sink = sink
        self._name = name
        self._warn = warn
        self._capacity = capacity
        self._first_pause_s = first_pause_s
        self._close_timeout_s = close_timeout_s
        self._changed = threading.Condition()
        self._waiting: deque[MetricRow | _Rewind] = deque()
        self._in_delivery: MetricRow | _Rewind | None = None
        self._final_state: RunState | None = None
        self._give_up_at = math.inf
        self._has_warned = False
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"metrics-to-{name}", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        self._put(MetricRow(global_step, time, dict(metrics)))

    def rewind(self, global_step: int) -> None:
        self._put(global_step)

    def _put(self, item: MetricRow | _Rewind) -> None:
        with self._changed:
            self._waiting.append(item)
            if len(self._waiting) > self._capacity:
                oldest = next((i for i, one in enumerate(self._waiting) if isinstance(one, MetricRow)), None)
                if oldest is not None:
                    del self._waiting[oldest]
                    self.num_lost += 1
            self._changed.notify_all()

    def close(self, state: RunState) -> None:
        with self._changed:
            self._final_state = state
            self._give_up_at = clock.monotonic() + self._close_timeout_s
            self._changed.notify_all()
        self._thread.join(self._close_timeout_s)
        with self._changed:
            left = [*self._waiting, self._in_delivery]
            self.num_lost += sum(isinstance(item, MetricRow) for item in left)
            self._waiting.clear()
        if self.num_lost:
            self._warn(
                f"{self._name} did not take {self.num_lost} rows of metrics; metrics.jsonl has them all"
            )

    def _work(self) -> None:
        self._attempt(self._sink.open, math.inf)
        while (item := self._next()) is not None:
            delivered = self._attempt(*self._delivery(item))
            with self._changed:
                if not delivered and clock.monotonic() > self._give_up_at:
                    return  # close() counts this one and those that wait
                self.num_lost += not delivered
                self._in_delivery = None
        if self._final_state is not None and clock.monotonic() < self._give_up_at:
            self._attempt(partial(self._sink.close, self._final_state), math.inf)

    def _next(self) -> MetricRow | _Rewind | None:
        """Waits for it; None after the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._final_state is not None)
            self._in_delivery = self._waiting.popleft() if self._waiting else None
            return self._in_delivery

    def _delivery(self, item: MetricRow | _Rewind) -> tuple[Callable[[], None], float]:
        if isinstance(item, MetricRow):
            return partial(self._sink.write, *item), MAX_ATTEMPTS
        return partial(self._sink.rewind, item), math.inf

    def _attempt(self, action: Callable[[], None], max_attempts: float) -> bool:
        """Until it works; False after `max_attempts`, or when the time after the end is up."""
        pause_s, num_attempts = self._first_pause_s, 0
        while True:
            try:
                action()
                return True
            except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises, training goes on
                self._warn_once(error)
            num_attempts += 1
            if num_attempts >= max_attempts or clock.monotonic() + pause_s > self._give_up_at:
                return False
            with self._changed:
                self._changed.wait_for(lambda: self._final_state is not None, timeout=pause_s)
            if self._final_state is not None:
                clock.sleep(min(pause_s, self._close_timeout_s / 10))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _warn_once(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            reason = " ".join(str(error).split())[:300]
            self._warn(f"{self._name} cannot be reached and is tried again: {type(error).__name__}: {reason}")
