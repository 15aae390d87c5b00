"""The engine by itself: adapters mixed or split, and how far it is from what memory allows."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.figures import Figure

NUM_ROWS = 16
_numbers = itertools.count()


class AskedEngine:
    """An engine, and requests that wait for their answers."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def ask(self, ids: Sequence[int], num_tokens: int, adapter: str | None = None) -> None:
        self.ask_all([(ids, adapter)], num_tokens)

    def ask_all(self, asked: Sequence[tuple[Sequence[int], str | None]], num_tokens: int) -> float:
        """Seconds until all are answered."""
        from raytrain.serving.engine.request import GenerationRequest, Piece, Sampling

        done = threading.Semaphore(0)

        def tell(piece: Piece) -> None:
            if piece.finish is not None:
                assert piece.finish.reason in ("stop", "length"), piece.finish
                done.release()

        start = time.perf_counter()
        for ids, adapter in asked:
            request = GenerationRequest(f"{next(_numbers)}", tuple(ids), Sampling(num_tokens), adapter)
            self.engine.submit(request, tell)
        for _ in asked:
            done.acquire()
        return time.perf_counter() - start

    def close(self) -> None:
        self.engine.close()


def engine_over(base: Path, threads: int) -> tuple[AskedEngine, Any]:
    """And the tokenizer."""
    from raytrain.models.inference import load_for_inference
    from raytrain.serving.engine.continuous import ContinuousEngine
    from raytrain.serving.engine.section import EngineSection
    from raytrain.storage.location import Location

    torch.set_num_threads(threads)
    loaded = load_for_inference(str(base), cache=Location(str(base.parent / "unused")))
    section = EngineSection(max_rows=NUM_ROWS)
    return AskedEngine(ContinuousEngine(loaded, section)), loaded.tokenizer


def engine_figures(base: Path, adapters: Mapping[str, Path], threads: int, *, quick: bool) -> list[Figure]:
    """adapters: by digest."""
    from raytrain.serving.adapters.weights import read_adapter

    engine, tokenizer = engine_over(base, threads)
    digests = list(adapters)[:8]
    figures: list[Figure] = []
    reads, loads, files = [], [], []
    for digest in digests:
        start = time.perf_counter()
        (adapters[digest] / "adapter_model.safetensors").read_bytes()
        files.append(time.perf_counter() - start)
        start = time.perf_counter()
        weights = read_adapter(adapters[digest])
        reads.append(time.perf_counter() - start)
        start = time.perf_counter()
        engine.engine.load(digest, weights)
        loads.append(time.perf_counter() - start)
    figures += [
        Figure("adapter: its file read", 1000 * median(files), "ms"),
        Figure("adapter: read and checked", 1000 * median(reads), "ms"),
        Figure("adapter: put into the bank", 1000 * median(loads), "ms"),
    ]
    figures += _mixing(engine, tokenizer, digests, num_tokens=12 if quick else 24, rounds=1 if quick else 3)
    figures += _limit(base, engine, tokenizer)
    engine.close()
    return figures


def _mixing(
    engine: AskedEngine, tokenizer: Any, digests: list[str], *, num_tokens: int, rounds: int
) -> list[Figure]:
    """16 answers: of the base model, of 1 to 8 adapters in one batch, of each adapter by itself one after another."""
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        ids = [tokenizer(f"Round {turn}, note {i}: bread is")["input_ids"] for i in range(NUM_ROWS)]
        for num in (0, 1, 2, 4, 8):
            owners = [digests[i % num] if num else None for i in range(NUM_ROWS)]
            rows = list(zip(ids, owners, strict=True))
            took = {f"mixed {num}": engine.ask_all(rows, num_tokens)}
            if num > 1:
                parts = [[row for row in rows if row[1] == one] for one in digests[:num]]
                took[f"split {num}"] = sum(engine.ask_all(part, num_tokens) for part in parts)
            if turn:  # the first is for warming up
                for name, value in took.items():
                    seconds.setdefault(name, []).append(value)

    def ratio(one: str, other: str) -> float:
        return median([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])

    found = [
        Figure(
            f"{num} adapters mixed, over splitting",
            ratio(f"split {num}", f"mixed {num}"),
            "×",
            1.4 if num == 8 else None,
        )
        for num in (2, 4, 8)
    ]
    found += [
        Figure(
            f"{num} adapters mixed, of base-only throughput",
            100 * ratio("mixed 0", f"mixed {num}"),
            "%",
            60.0 if num == 8 else None,
        )
        for num in (1, 2, 4, 8)
    ]
    return found


def _limit(base: Path, engine: AskedEngine, tokenizer: Any) -> list[Figure]:
    """A token needs every weight once: what memory can give is the most that one answer can get."""
    whole = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    numbers = torch.ones(64 << 20)
    best = min(_timed(numbers.sum) for _ in range(5))
    bandwidth = numbers.nbytes / best
    ids = tokenizer("What everybody should know of clocks:")["input_ids"]
    few, many = 2, 26
    engine.ask(ids, few)
    slopes = [
        (engine.ask_all([(ids, None)], many) - engine.ask_all([(ids, None)], few)) / (many - few)
        for _ in range(3)
    ]
    rate = 1 / median(slopes)
    return [
        Figure("memory bandwidth of these threads", bandwidth / 1e9, "GB/s"),
        Figure("bytes that one token needs", whole / 1e6, "MB"),
        Figure("one answer: physical limit", bandwidth / whole, "tokens/s"),
        Figure("one answer: the engine alone", rate, "tokens/s"),
        Figure("one answer: of the physical limit", 100 * rate * whole / bandwidth, "%"),
    ]


def _timed(act: Any) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
