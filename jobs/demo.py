"""The demo: one story from rows to an adapter, on two workers, and whether it is better than the base model.

    make demo                     on a laptop
    ray job submit --working-dir . -- python jobs/demo.py

Arguments are overrides of jobs/demo.yaml, for example `train.num_epochs=3`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from raytrain.cli.evaluate import ProgressBars
from raytrain.cli.output import exit_code_when_stopped, report_error, stderr_console
from raytrain.cli.progress import ProgressView
from raytrain.errors import PlatformError, TrainingError
from raytrain.evaluation.answering.settings import AnsweringSection, EvaluateSettings
from raytrain.evaluation.baseline import baseline_place, freeze
from raytrain.evaluation.decision.contract import load_contract
from raytrain.evaluation.decision.decide import Comparison, decide
from raytrain.evaluation.decision.headline import action, evidence, headline, outcome
from raytrain.evaluation.decision.record import write_decision
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.suite import load_suite
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec, load_spec
from raytrain.training.trainer import train

JOBS = Path(__file__).parent


class Stopped(Exception):
    """Asked to stop, by the signal or the command that it is made with."""


def main(overrides: list[str]) -> int:
    console = stderr_console()
    started = time.perf_counter()
    try:
        spec = load_spec(JOBS / "demo.yaml", without_bfloat16(overrides))
        suite = load_items(load_suite(JOBS / "suites" / "tool_calls.yaml"))
        contract = load_contract(JOBS / "contracts" / "default.yaml")

        console.print(f"[bold]1. The base model answers {len(suite.items)} requests: the frozen baseline[/]")
        baseline = frozen_baseline(spec, suite, console)

        console.print("[bold]2. LoRA on two Ray workers[/]")
        with ProgressView(console) as view:
            result = train(spec, observer=view)
        if result.artifact is None:
            raise Stopped(result.stopped_by)

        console.print("[bold]3. The adapter answers the same requests[/]")
        candidate = evaluated(result.artifact, spec, suite, console)

        console.print("[bold]4. Is it better?[/]")
        comparison = decide(contract, baseline, [candidate])
        decision = write_decision(spec.storage.location / "decisions" / result.run_id, comparison)
    except Stopped as stop:
        (by,) = stop.args
        console.print(f"the demo was stopped by {by}; run it again: it goes on", highlight=False)
        return exit_code_when_stopped(by) or TrainingError.exit_code
    except KeyboardInterrupt:
        return exit_code_when_stopped("SIGINT")
    except PlatformError as error:
        report_error(error, as_json=False)
        return error.exit_code
    show(comparison, result, time.perf_counter() - started)
    print(decision.path / "decision.html")
    return 0


def without_bfloat16(overrides: list[str]) -> list[str]:
    """bfloat16 is 2.5 times as fast where a CPU has instructions for it, and slower than float32 elsewhere."""
    import torch

    has_it = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return overrides if has_it else ["train.precision=float32", *overrides]


def frozen_baseline(spec: RunSpec, suite: Suite, console: Console) -> Evaluation:
    """The base model's evaluation, which nothing changes any more."""
    found = evaluated(spec.model.base_model, spec, suite, console)
    place = baseline_place(spec.storage.location, found.artifact.location.name)
    return open_evaluation(freeze(found, place).location)


def evaluated(model: str, spec: RunSpec, suite: Suite, console: Console) -> Evaluation:
    # Both are asked in the same words: the recipe's chat template.
    answering = AnsweringSection(chat_template=spec.model.chat_template)
    settings = EvaluateSettings(answering=answering, storage=spec.storage)
    with ProgressBars(console) as bars:
        result = evaluate(model, [suite], settings, on_progress=bars.show)
    if result.evaluation is None:
        raise Stopped(result.stopped_by)
    return result.evaluation


def show(comparison: Comparison, result: TrainResult, seconds: float) -> None:
    """Scores, the verdict, and a few answers to look at."""
    from rich.table import Table

    console = Console()
    both = {
        "base model": comparison.baseline.evaluation,
        "with the adapter": comparison.decisions[0].candidate.evaluation,
    }
    table = Table(title="JSON tool calls for requests that were never seen", title_justify="left")
    for column in ("", "right", "95 % interval"):
        table.add_column(column)
    records = []
    for name, evaluation in both.items():
        ((suite, report),) = evaluation.report.suites.items()
        records.append(evaluation.records[suite])
        interval = report.intervals["score"]
        count = f"{report.score * report.num_items:.0f} of {report.num_items}"
        table.add_row(name, count, f"{interval.low:.0%} to {interval.high:.0%}")
    console.print(table)
    (decision,) = comparison.decisions
    console.print(f"\n{headline(decision)}: {action(decision).lower()}", style="bold", highlight=False)
    console.print(f"{evidence(decision)}. {outcome(decision, comparison.contract)}\n", highlight=False)
    pairs = sorted(zip(*records, strict=True), key=lambda pair: -(pair[1].score or 0.0))
    for before, after in pairs[:1] + pairs[-1:]:
        request = before.prompt.partition("user\n")[2].partition("<|im_end|>")[0]
        console.print(request, style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(f"  base:    {before.output[:90]!r}", markup=False, highlight=False, soft_wrap=True)
        mark = "" if after.score else f"\n           expected {after.references[0]}"
        console.print(
            f"  adapter: {after.output[:120]}{mark}\n", markup=False, highlight=False, soft_wrap=True
        )
    console.print(f"run {result.run_id}, {result.global_step} steps, {seconds:.0f} s in all", highlight=False)
    console.print(f"adapter {result.artifact}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
