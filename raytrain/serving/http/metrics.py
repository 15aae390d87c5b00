"""Numbers for Prometheus, in a registry of their own. No label holds a digest, a request's id or a path: each would be
a series of its own. A replica's name is one: a `rate` is right only of what one of them has counted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Real
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from raytrain.serving.backend import Readiness
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.record import Record

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Of one app in one process."""

    def __init__(
        self,
        processes: int = 1,
        logs: Mapping[str, ParquetLog] | None = None,
        mirrored: Mapping[str, int] | None = None,
    ) -> None:
        """processes: how many such apps there are. logs: by what they hold. mirrored: what became of requests that were
        to be asked of a shadow's candidate; read when the page is."""
        self._registry = registry = CollectorRegistry()
        self._mirrored = mirrored or {}
        self._requests = Counter(
            "raytrain_http_requests", "Requests that ended", ["route", "status"], registry=registry
        )
        self._errors = Counter(
            "raytrain_http_errors", "Requests that were refused or failed", ["code"], registry=registry
        )
        self._running = Gauge(
            "raytrain_http_requests_running", "Requests that are being answered", registry=registry
        )
        self._tokens = Counter(
            "raytrain_tokens", "Tokens of prompts, of those that had been read, and written", ["kind"],
            registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            "raytrain_http_request_seconds", "From arrival to end", ["route"], buckets=_SECONDS, registry=registry
        )  # fmt: skip
        self._first = Histogram(
            "raytrain_time_to_first_token_seconds", "From arrival to the first piece of an answer",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._queue = Histogram(
            "raytrain_queue_seconds", "Until a prompt began to be read", buckets=_SECONDS, registry=registry
        )
        Gauge(
            "raytrain_ingress_processes", "Ingresses, each of which counts by itself", registry=registry
        ).set(processes)
        left_out = Gauge(
            "raytrain_request_log_rows_left_out", "For want of room, or because they could not be written",
            ["kind"], registry=registry,
        )  # fmt: skip
        for kind, log in (logs or {}).items():
            left_out.labels(kind).set_function(partial(getattr, log, "num_left_out"))
        self._ready = Gauge("raytrain_ready", "1 where /ready says 200", registry=registry)
        self._trials = Counter(
            "raytrain_trial_answers",
            "Requests that were answered in a trial",
            ["name", "arm"],
            registry=registry,
        )
        self._mirrored_told = Gauge(
            "raytrain_mirrored_requests", "Asked of a shadow's candidate, by what became of them", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self._replicas = Gauge("raytrain_replicas", "That answer", registry=registry)
        self._engine = Gauge(
            "raytrain_engine", "Numbers of each replica's engine", ["replica", "number"], registry=registry
        )

    def began(self) -> None:
        self._running.inc()

    def ended(self, record: Record) -> None:
        self._running.dec()
        self._requests.labels(record.route, str(record.status)).inc()
        self._duration.labels(record.route).observe(record.elapsed_s)
        if record.error is not None:
            self._errors.labels(record.error).inc()
        if record.served is not None and record.served.arm is not None:
            self._trials.labels(record.served.model.partition("@")[0], record.served.arm).inc()
        if record.first_piece_s is not None:
            self._first.observe(record.first_piece_s)
        for finish in record.finishes.values():
            self._queue.observe(finish.queue_s)
            self._tokens.labels("prompt").inc(finish.num_prompt_tokens)
            self._tokens.labels("cached").inc(finish.num_cached_tokens)
            self._tokens.labels("completion").inc(finish.num_new_tokens)

    def page(self, readiness: Readiness | None) -> bytes:
        """As Prometheus reads it. readiness: None where it cannot be told."""
        self._ready.set(0 if readiness is None else int(readiness.is_ready))
        self._engine.clear()  # what nobody tells now is not known
        told = {} if readiness is None else readiness.numbers
        self._replicas.set(len(told))
        for replica, numbers in told.items():
            for name, value in plain_numbers(numbers).items():
                self._engine.labels(replica, name).set(value)
        for outcome, number in self._mirrored.items():
            self._mirrored_told.labels(outcome).set(number)
        return generate_latest(self._registry)


def plain_numbers(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Of what is kept by key, how many keys: these are digests."""
    counted = {name: len(value) if isinstance(value, dict) else value for name, value in numbers.items()}
    return {name: float(value) for name, value in counted.items() if isinstance(value, Real)}
