"""The demo: one story from rows to a version in production that answers, and back, on two workers.

    make demo                     on a laptop
    ray job submit --working-dir . -- python -m jobs.demo

Arguments are overrides of jobs/demo.yaml and jobs/demo_search.yaml, for example `data.max_seq_len=96`.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.asking_clients import AskingClients
from jobs.demo_poison import show_poison
from jobs.demo_told import QUESTION, show_answers, show_comparison, show_promotion
from jobs.demo_watch import FLUSH_S, WINDOW, other_prompts, show_drift
from raytrain.cli.evaluate import ProgressBars
from raytrain.cli.output import exit_code_when_stopped, report_error, stderr_console
from raytrain.cli.progress import ProgressView
from raytrain.cli.tune_view import TuneView, told_values
from raytrain.data.tool_calls import generate_tool_calls
from raytrain.errors import EndpointError, PlatformError, TrainingError
from raytrain.evaluation.decision.contract import load_contract
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.scoring.structure import json_equal
from raytrain.evaluation.suite import load_suite
from raytrain.models.machine import has_bfloat16
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.pipeline import steps as pipeline
from raytrain.pipeline.loop.guarding import guard
from raytrain.pipeline.loop.section import Loop, load_loop
from raytrain.pipeline.steps import Release, Stopped
from raytrain.release.bundle.parity.prompts import read_prompts
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import load_policy
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.runs.records import open_records
from raytrain.serving.launch import curl_line
from raytrain.storage.artifact import Artifact
from raytrain.storage.database import open_database
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import write_atomically
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec, load_spec
from raytrain.tuning.spec import load_tune_recipe

JOBS = Path(__file__).parent
NAME, KEY = "demo-tool-calls", "demo"
BATCH_SIZE = 20
"""Of answers; per answer it takes about 0.6 of the processor time that 8 take."""

RATED_BEFORE = 30
"""Answers of the version in production that are judged before another takes its place."""
LONGEST_FALL_S = 300.0
PROMPTS = JOBS / "prompts" / "tool_calls.jsonl"
"""What a bundle is held against the trained model on; `raytrain export` takes more."""


def main(overrides: list[str]) -> int:
    console, started = stderr_console(), time.perf_counter()

    def play() -> None:
        suite = load_items(load_suite(JOBS / "suites" / "tool_calls.yaml"))
        Demo(console, suite, started).play(without_bfloat16(overrides))

    return exit_code_of(play, "the demo was stopped by {by}; run it again: it goes on")


def exit_code_of(play: Callable[[], None], when_stopped: str) -> int:
    """As other commands end."""
    try:
        play()
    except Stopped as stop:
        (by,) = stop.args
        stderr_console().print(when_stopped.format(by=by), highlight=False)
        return exit_code_when_stopped(by) or TrainingError.exit_code
    except KeyboardInterrupt:
        return exit_code_when_stopped("SIGINT")
    except PlatformError as error:
        report_error(error, as_json=False)
        return error.exit_code
    return 0


def without_bfloat16(overrides: list[str]) -> list[str]:
    """Where a CPU has instructions for bfloat16 it is 2.5 times as fast as float32, elsewhere several times slower."""
    import torch

    has_it = torch.cuda.is_available() or has_bfloat16()
    return overrides if has_it else ["train.precision=float32", *overrides]


@dataclass(frozen=True)
class Demo:
    """The story, and where it is told."""

    console: Console
    suite: Suite
    started: float

    def play(self, overrides: list[str]) -> None:
        spec = load_spec(JOBS / "demo.yaml", overrides)
        contract = load_contract(JOBS / "contracts" / "default.yaml")
        decisions, prompts = spec.storage.location / "decisions", read_prompts(PROMPTS, has_template=True)

        self.heading(f"1. The base model answers {len(self.suite.items)} requests: the frozen baseline")
        baseline = pipeline.frozen(self.evaluated(spec.model.base_model, spec), spec)
        self.heading("2. A few short trials: which learning rate, which rank?")
        overrides = [*overrides, *self.searched(overrides)]
        spec = load_spec(JOBS / "demo.yaml", overrides)
        self.heading("3. LoRA on two Ray workers")
        result = self.trained(spec)
        self.heading("4. The adapter answers the same requests")
        candidate = self.evaluated(str(result.artifact), spec)
        self.heading("5. Is it better?")
        comparison, decision = pipeline.decided(contract, baseline, candidate, decisions / result.run_id)
        show_comparison(comparison)

        with self.release(spec) as release:
            self.heading("6. A signed bundle, and a version")
            version = pipeline.released(
                release, str(result.artifact), candidate, prompts, "the demo's adapter"
            )
            print(f"\n{NAME}@{version}: held against what was trained, scanned, signed")
            self.heading("7. The gate to production")
            show_promotion(pipeline.admitted(release, version, [decision]), is_let_in=True)

            self.heading("8. Another adapter: a few steps on answers to other questions")
            worse = load_spec(JOBS / "demo.yaml", [*overrides, *made_worse(spec)])
            spoiled = self.trained(worse)
            spoiled_candidate = self.evaluated(str(spoiled.artifact), worse)
            frozen = pipeline.frozen(candidate, spec)
            _, decision = pipeline.decided(contract, frozen, spoiled_candidate, decisions / spoiled.run_id)
            spoiled_version = pipeline.released(
                release, str(spoiled.artifact), spoiled_candidate, prompts, "worse on purpose"
            )
            show_promotion(pipeline.admitted(release, spoiled_version, [decision]), is_let_in=False)

            self.heading("9. Production answers")
            folder = str(load_loop(JOBS / "loops" / "demo.yaml").log)
            log = {"share": 1.0, "feedback": True, "flush_s": FLUSH_S, "folder": folder}
            with pipeline.served(release, spec, free_port(), request_log=log) as url:
                show_answers(url)
                known = {version: candidate, spoiled_version: spoiled_candidate}
                self.watched_and_taken_back(release, decision, url, known, spec)

        print("\nmake serve                    goes on serving it; its page: http://127.0.0.1:8000/")
        print(curl_line("http://127.0.0.1:8000", NAME, QUESTION))
        print(f"\nrun {result.run_id}, {time.perf_counter() - self.started:.0f} s in all")
        print(f"adapter {result.artifact}")
        print(f"who, when and why: raytrain registry log {NAME}")
        print(decisions.path / result.run_id / "decision.html")

    def watched_and_taken_back(
        self, release: Release, decision: Artifact, url: str, known: dict[Version, Evaluation], spec: RunSpec
    ) -> None:
        """`known`: what each version answered when it was evaluated, the one in production first. Raises
        EndpointError where a request fails, nobody sees a drift, or nobody takes the version back."""
        loop = load_loop(JOBS / "loops" / "demo.yaml")
        before, forced = (f"{NAME}@{version}" for version in known)
        written = {f"{NAME}@{version}": outputs(evaluation) for version, evaluation in known.items()}
        right = references(known[next(iter(known))])

        def judge(prompt: str, text: str) -> bool:
            return json_equal(text, right[prompt]).value == 1.0

        self.heading(
            "10. Clients ask and judge; all want light, and a watch sees it; some teach wrong answers"
        )
        prompts, since = list(written[before]), time.time()
        with AskingClients(url, NAME, prompts, judge=judge) as usual:
            usual.wait_for(before, RATED_BEFORE)
        others = other_prompts(2 * WINDOW, known[next(iter(known))], self.suite.items[0])
        show_drift(usual, before, since, others)
        show_poison(loop, spec, url, InteractionPool(open_database()))

        self.heading("11. Forced through, and taken back by itself, while they ask and judge")
        with AskingClients(
            url, NAME, prompts, judge=judge, answers=usual.answers, failures=usual.failures
        ) as clients:
            why = "to show what an override leaves behind"
            forced_in = pipeline.admitted(
                release, [*known][1], [decision], override_as="release-lead", why=why
            )
            show_promotion(forced_in, is_let_in=True)
            clients.wait_for(forced)
            self.taken_back(release, loop)
            clients.wait_for(before)
        print(clients.told())
        same = sum(written[one.model].get(one.prompt) == one.text for one in clients.answers)
        print(
            f"word for word what the same version wrote in its evaluation: {same} of {len(clients.answers)}"
        )
        if clients.failures:
            raise EndpointError(
                f"{len(clients.failures)} requests failed while versions changed",
                why=clients.failures[0],
                fix="no change of a version may cost an answer: this is a fault of raytrain, please report it",
            )

    def taken_back(self, release: Release, loop: Loop) -> None:
        """As `raytrain loop run` looks, until a look finds enough against the version."""
        pool, end = InteractionPool(open_database()), time.monotonic() + LONGEST_FALL_S
        while time.monotonic() < end:
            found = guard(loop, release, pool, time.time())
            if found is not None and found.rollback is not None:
                back = found.rollback
                print(
                    f"taken back: {NAME}@production is {back.after} again, {sum(back.seconds.values()):.1f} s"
                )
                for one in found.fell:
                    print(f"  because of {one.told()}")
                return
            time.sleep(0.5)
        raise EndpointError(
            f"nobody has taken {NAME}@production back",
            why=f"its answers are worse, and {LONGEST_FALL_S:.0f} s were not enough to see it",
            fix="this is a fault of raytrain, please report it",
        )

    def heading(self, text: str) -> None:
        self.console.print(f"[bold]{text}[/]", highlight=False)

    def tell(self, text: str) -> None:
        self.console.print(f"  … {text}", style="dim", highlight=False, markup=False, soft_wrap=True)

    def searched(self, overrides: list[str]) -> list[str]:
        """The values of the best trial, as overrides."""
        with TuneView(self.console) as view:
            result = pipeline.searched(load_tune_recipe(JOBS / "demo_search.yaml", overrides), view)
        best = result.best[0]
        print(f"\nbest of {len(result.rows)} trials: {told_values(best)}; {result.files['page']}\n")
        return [f"{key}={json.dumps(value)}" for key, value in best.view.values.items()]

    def trained(self, spec: RunSpec) -> TrainResult:
        with ProgressView(self.console) as view:
            return pipeline.trained(spec, view)

    def evaluated(self, model: str, spec: RunSpec) -> Evaluation:
        with ProgressBars(self.console) as bars:
            return pipeline.evaluated(model, spec, self.suite, bars.show, batch_size=BATCH_SIZE)

    @contextmanager
    def release(self, spec: RunSpec) -> Iterator[Release]:
        """With a key and a registry below RAYTRAIN_HOME, which the first demo on a machine makes."""
        ring = KeyRing()
        if not any(one.name == KEY and one.state == "active" for one in ring.known()):
            ring.generate(KEY)
        records = open_records()
        try:
            registry = Registry(raytrain_home() / "registry")
            desk = Desk(registry, ring, Shelves(spec.storage.location, records), self.tell)
            policy = load_policy(JOBS / "gates" / "demo.yaml")
            yield Release(NAME, desk, ring.signing_key(KEY), policy, spec.storage.location)
        finally:
            records.close()


def free_port() -> int:
    """Any: something may be served at the usual one."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def references(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """The right answers, by the prompt as the model read it."""
    return {one.prompt: tuple(one.references) for records in evaluation.records.values() for one in records}


def outputs(evaluation: Evaluation) -> dict[str, str]:
    """By the prompt as the model read it."""
    return {one.prompt: one.output for records in evaluation.records.values() for one in records}


def made_worse(spec: RunSpec) -> list[str]:
    """Overrides: rows whose answers belong to other questions, and too few steps to learn much of them."""
    rows = list(generate_tool_calls(200, seed=7, part="train"))
    answers = [row["messages"][1] for row in rows]
    random.Random(0).shuffle(answers)
    shuffled = [{"messages": [row["messages"][0], answer]} for row, answer in zip(rows, answers, strict=True)]
    place = spec.storage.location.path / "demo-shuffled.jsonl"
    write_atomically(place, "".join(json.dumps(row) + "\n" for row in shuffled).encode())
    return ["name=demo-worse", f"data.sources={place}", "train.max_steps=4", "train.warmup_steps=0"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
