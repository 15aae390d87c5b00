"""A month in minutes: production is watched, decays, is trained again, is attacked, falls, and nobody lifts a finger.

    make loop                     on a laptop
    ray job submit --working-dir . -- python -m jobs.month

Arguments are overrides of jobs/month.yaml. Users are simulated, everything else is what a team would run: a server, its
request log, `raytrain loop`, a queue, training, gates. Each month has a home of its own, RAYTRAIN_HOME/months/TIME, and
leaves a page there, story.html.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.demo import exit_code_of, free_port, without_bfloat16
from jobs.month_figures import figures_of, show_figures
from jobs.month_site import begin_anew, opened, own_folder, told_of, working_queue
from jobs.month_traffic import Clock, Traffic, changed, lines, poisoned, rows, usual
from raytrain.cli.evaluate import ProgressBars
from raytrain.cli.loop import job_maker
from raytrain.cli.output import stderr_console
from raytrain.cli.progress import ProgressView
from raytrain.evaluation.items import load_items
from raytrain.evaluation.results import Evaluation
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline import steps as pipeline
from raytrain.pipeline.loop.opening import release_of
from raytrain.pipeline.loop.round import Looker, Round
from raytrain.pipeline.loop.section import Loop, load_loop
from raytrain.pipeline.loop.story import gather
from raytrain.pipeline.loop.story_page import write_story
from raytrain.pipeline.steps import Release, Stopped
from raytrain.release.bundle.parity.prompts import read_prompts
from raytrain.release.keys import KeyRing
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.storage.location import write_atomically
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec, load_spec

JOBS = Path(__file__).parent
NUM_ROWS = 440
REFERENCE, WINDOW = 60, 40
"""Answers, as jobs/loops/month.yaml and jobs/watches/month.yaml have them."""
PAIRS = 20
LONGEST_ORDER_S = 3600.0
Spoiled = tuple[TrainResult, Evaluation]


def main(overrides: list[str]) -> int:
    console = stderr_console()

    def play() -> None:
        begin_anew()
        loop, ring = load_loop(JOBS / "loops" / "month.yaml"), KeyRing()
        ring.generate(loop.section.key)
        with opened() as records:
            release = release_of(loop, records, lambda text: tell(console, text))
            Month(console, without_bfloat16(overrides), loop, release, records).pass_by()

    return exit_code_of(play, "the month was stopped by {by}")


@dataclass
class Month:
    """Four weeks around one released name."""

    console: Console
    overrides: list[str]
    loop: Loop
    release: Release
    records: Records
    clock: Clock = field(default_factory=Clock)
    began: float = field(default_factory=time.time)
    rounds: list[Round] = field(default_factory=list)
    shifted_at: float = 0.0
    seed: int = 100

    def pass_by(self) -> None:
        self.heading("Before: what production is trained on knows no lights")
        spec = self.spec(rows(NUM_ROWS, seed=7), "rows")
        self.first_version(spec)
        spoiled = self.spoiled()  # now: Serve takes the cluster's cores later
        self.heading("It answers; the loop looks on, and a queue waits for work")
        trial = {"name": self.release.name, "candidate": "staging", "share": 1.0, "pairs": PAIRS}
        log = {"feedback": True, "flush_s": 1.0, "folder": str(self.loop.log)}
        with (
            pipeline.served(self.release, spec, free_port(), request_log=log, trials=[trial]) as url,
            working_queue(),
        ):
            maker = job_maker(self.loop, self.release, self.records, "local", None)
            looker = Looker(self.loop, self.release, self.records, maker)
            traffic = Traffic(url, self.release.name, self.clock, self.tell)
            self.first_week(looker, traffic)
            self.second_week(looker, traffic)
            self.third_week(looker, traffic)
            self.fourth_week(looker, traffic, spoiled)
        self.end(traffic)

    def first_week(self, looker: Looker, traffic: Traffic) -> None:
        self.heading("Week 1: what it was trained for")
        traffic.send(usual(REFERENCE + 5, self.next_seed()), 5.0)
        self.look(looker)
        traffic.send(usual(WINDOW, self.next_seed()), 2.0)
        self.look(looker)

    def second_week(self, looker: Looker, traffic: Traffic) -> None:
        self.heading("Week 2: lights come in, and everybody talks otherwise")
        self.shifted_at = time.time()
        while self.open_order() is None:
            if self.clock.day > 12.0:
                raise Stopped("a drift that nobody has seen in five days")
            traffic.send(changed(WINDOW, self.next_seed()), 1.0)
            self.look(looker)
        self.heading("It is trained again, by itself")
        self.until_settled(looker, traffic)
        traffic.send(changed(REFERENCE + 5, self.next_seed()), 14.0 - min(13.0, self.clock.day))
        self.look(looker)

    def third_week(self, looker: Looker, traffic: Traffic) -> None:
        self.heading("Week 3: some teach it something wrong")
        everybody = poisoned(30, self.next_seed()) + changed(WINDOW, self.next_seed())
        random.Random(0).shuffle(everybody)
        traffic.send(everybody, 6.0)
        self.look(looker)
        self.clock.go_on(1.0)

    def fourth_week(self, looker: Looker, traffic: Traffic, spoiled: Spoiled) -> None:
        self.heading("Week 4: a bad version is forced through")
        self.forced(*spoiled)
        for _ in range(6):
            traffic.send(changed(8, self.next_seed()), 0.5)
            guarded = self.look(looker).guarded
            if guarded is None or guarded["rolled_back_to"] is not None:
                break
        traffic.send(changed(20, self.next_seed()), 2.0)
        self.look(looker)

    # Its parts

    def spec(self, found: list[dict[str, Any]], name: str, *more: str) -> RunSpec:
        """jobs/month.yaml over these rows."""
        place = own_folder() / f"{name}.jsonl"
        write_atomically(place, "".join(lines(found)).encode())
        return load_spec(JOBS / "month.yaml", [*self.overrides, f"data.sources={place}", *more])

    def first_version(self, spec: RunSpec) -> None:
        """Trained, held against the base model, released: as in the demo."""
        result = self.trained(spec)
        baseline = pipeline.frozen(self.evaluated(spec.model.base_model, spec), spec)
        candidate = self.evaluated(str(result.artifact), spec)
        place = self.release.storage / "decisions" / result.run_id
        _, decision = pipeline.decided(self.loop.policy.contract, baseline, candidate, place)
        version = self.released(result, candidate, "the first")
        done = pipeline.admitted(self.release, version, [decision], why="the first")
        if done.refusal is not None:
            raise done.refusal

    def spoiled(self) -> Spoiled:
        """Four steps on answers to other questions."""
        found = rows(120, seed=8)
        answers = [row["messages"][1] for row in found]
        random.Random(0).shuffle(answers)
        spoiled = [{"messages": [row["messages"][0], one]} for row, one in zip(found, answers, strict=True)]
        worse = self.spec(spoiled, "spoiled", "name=month-worse", "train.max_steps=4", "train.warmup_steps=0")
        result = self.trained(worse)
        return result, self.evaluated(str(result.artifact), worse)

    def forced(self, result: TrainResult, evaluation: Evaluation) -> None:
        """Let through by somebody's role against the gate's word."""
        version = self.released(result, evaluation, "trained on spoiled answers")
        why = "somebody was in a hurry"
        done = pipeline.admitted(self.release, version, [], override_as="release-lead", why=why)
        verdict = done.judged.outcome.verdict
        self.tell(f"{verdict}, set aside: {self.release.name}@{version} is in production")

    def trained(self, spec: RunSpec) -> TrainResult:
        with ProgressView(self.console) as view:
            return pipeline.trained(spec, view)

    def evaluated(self, model: str, spec: RunSpec) -> Evaluation:
        suite, size = load_items(self.loop.suites[0]), self.loop.section.batch_size
        with ProgressBars(self.console) as bars:
            return pipeline.evaluated(model, spec, suite, bars.show, batch_size=size)

    def released(self, result: TrainResult, evaluation: Evaluation, why: str) -> Version:
        prompts = read_prompts(Path(str(self.loop.prompts)), has_template=True)
        return pipeline.released(self.release, str(result.artifact), evaluation, prompts, why)

    def until_settled(self, looker: Looker, traffic: Traffic) -> None:
        """Meanwhile nobody does anything; people go on asking once there is a candidate to hold beside production."""
        end, num_told = time.monotonic() + LONGEST_ORDER_S, 0
        while (order := self.open_order()) is not None:
            notes = self.notes_of(order)
            for note in notes[num_told:]:
                self.tell(note)
            num_told = len(notes)
            if any(one.startswith("staging:") for one in notes):
                traffic.send(changed(8, self.next_seed()), 0.25)
            else:
                time.sleep(2.0)
            self.rounds.append(looker.look(time.time()))
            if time.monotonic() > end:
                raise Stopped(f"the order {order}, which takes longer than an hour")
        self.clock.go_on(1.0)
        aliases = self.release.desk.registry.state(self.release.name).aliases
        self.tell(f"{self.release.name}@{PRODUCTION} is {aliases[PRODUCTION]}")

    def open_order(self) -> str | None:
        orders = TriggerStore(self.records.engine).orders(self.loop.triggers.triggers)
        return next((one.order.id for one in orders if one.is_open), None)

    def notes_of(self, run_id: str) -> list[str]:
        known = {run.id for run in self.records.list_runs(kind="retrain", limit=100).runs}
        events = self.records.events(run_id) if run_id in known else []
        return [one.message for one in events if one.kind == "note"]

    def look(self, looker: Looker) -> Round:
        """As `raytrain loop run` does, once what was asked lies in the log."""
        time.sleep(2.5)
        done = looker.look(time.time())
        self.rounds.append(done)
        for line in told_of(done):
            self.tell(line)
        return done

    def end(self, traffic: Traffic) -> None:
        story = gather(self.loop, self.release, self.records, rated_each=20)
        page = write_story(own_folder(), story, self.clock.told, self.clock.day_of)
        show_figures(figures_of(story, traffic, self.records, self.rounds, self.shifted_at), own_folder())
        print(f"\n{time.time() - self.began:.0f} s in all, for {self.clock.day:.0f} days")
        print(page)

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed

    def heading(self, text: str) -> None:
        self.console.print(f"[bold]{self.clock.told(time.time())}  {text}[/]", highlight=False)

    def tell(self, text: str) -> None:
        tell(self.console, text)


def tell(console: Console, text: str) -> None:
    console.print(f"  … {text}", style="dim", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
