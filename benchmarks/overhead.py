"""raytrain against the loop that a user would write by hand: tokens/s, peak memory, and what a checkpoint costs.

    python -m benchmarks.overhead [--quick] [--workers 1] [--rows FILE] [--json FILE]

SmolLM2-135M, LoRA on all linear layers. Both loops run in the same Ray worker and take turns step by step on the same
batches, with the same threads; raytrain with its logs, gradient checks and checkpoints as they are by default, but
saving every 10 steps, so that there is something to measure. The write in the background falls into both loops' time,
so its seconds are told besides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bare_loop import ENVIRONMENT
from benchmarks.figures import Figure, parser_of, picture, report

ROOT = Path(__file__).parent.parent
SAVE_EVERY = 10
DEFAULT_SAVE_EVERY = 100


def run_raytrain(recipe: Path, overrides: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """`raytrain train` in a process of its own, as a user would start it."""
    command = [sys.executable, "-m", "raytrain", "train", str(recipe), *overrides, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0:
        raise SystemExit(f"raytrain train failed: {result.get('error') or done.stderr[-2000:]}")
    return result


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[Figure], list[dict[str, float]]]:
    recipe = ROOT / "jobs" / "demo.yaml"
    num_steps = 21 if arguments.quick else 61
    shared = [
        "train.precision=float32",
        "train.packing=off",  # the bare loop pads, and both are to have the same batches
        "train.eval_every=0",
        f"train.save_every={SAVE_EVERY}",
        f"scaling.num_workers={arguments.workers}",
        f"train.max_steps={num_steps}",
        "train.schedule=constant",
        "train.warmup_steps=0",
        "data.val_fraction=0",
    ]
    if arguments.rows:
        shared += [f"data.sources={arguments.rows}", "data.max_seq_len=384", "train.micro_batch_size=4"]
    settings, output = folder / "settings.json", folder / "steps.json"
    settings.write_text(json.dumps({"recipe": str(recipe), "overrides": shared, "output": str(output)}))
    environment = {
        **os.environ,
        ENVIRONMENT: str(settings),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    hook = "train.hooks=['benchmarks.bare_loop:InterleavedHook']"
    interleaved = run_raytrain(recipe, [*shared, hook, "--fresh"], environment)
    measured = json.loads(output.read_text())
    steps = measured["steps"]
    print(
        f"{len(steps)} pairs of steps, largest difference of losses {loss_difference(steps):.2e}",
        file=sys.stderr,
    )

    alone = [*shared, f"train.max_steps={SAVE_EVERY + 2}", "train.seed=1"]
    ours = run_raytrain(recipe, [*alone, "--fresh"], environment)
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(recipe), str(SAVE_EVERY + 2), *alone]
    bare = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = figures(steps, interleaved["metrics"], ours["metrics"], int(bare.stdout))
    step_s = statistics.median(step["ours_s"] for step in steps)
    share = measured["check_s"] / step_s
    found.append(Figure("gradient check and clipping", 1000 * measured["check_s"], "ms"))
    found.append(Figure("… share of a step", share, "share", 0.02, higher_is_better=False))
    return found, steps


def loss_difference(steps: list[dict[str, float]]) -> float:
    """The two loops learn the same; else they would not be comparable."""
    return max(abs(step["loss"] - step["bare_loss"]) for step in steps)


def figures(
    steps: list[dict[str, float]], interleaved: dict[str, float], alone: dict[str, float], bare_bytes: int
) -> list[Figure]:
    ours = sum(step["ours_s"] for step in steps)
    bare = sum(step["bare_s"] for step in steps)
    tokens = sum(step["tokens"] for step in steps)
    thirds = [steps[i::3] for i in range(3)]
    ratios = [sum(s["bare_s"] for s in part) / sum(s["ours_s"] for s in part) for part in thirds]
    median_step_s = statistics.median(step["ours_s"] for step in steps)
    batching_s = statistics.median(step["batching_s"] for step in steps)
    num_saves = interleaved["train/num_saves"]
    blocked_s = interleaved["train/save_blocked_s"] / num_saves
    return [
        Figure("tokens/s, bare loop", tokens / bare, "tokens/s"),
        Figure("tokens/s, raytrain", tokens / ours, "tokens/s"),
        Figure("tokens/s, raytrain ÷ bare", bare / ours, "ratio", 0.97),
        Figure("… median of three interleaved thirds", statistics.median(ratios), "ratio", 0.97),
        Figure("… spread of the thirds", max(ratios) - min(ratios), "ratio"),
        Figure("step, raytrain, median", median_step_s, "s"),
        Figure("planning and collating a step's batch", 1000 * batching_s, "ms"),
        Figure("… share of a step", batching_s / median_step_s, "share", 0.02, higher_is_better=False),
        Figure("training blocked by one checkpoint", blocked_s, "s"),
        Figure(
            f"… share of the {DEFAULT_SAVE_EVERY} steps between two at the defaults",
            blocked_s / (DEFAULT_SAVE_EVERY * median_step_s), "share", 0.02, higher_is_better=False,
        ),
        Figure("peak memory, bare loop", bare_bytes / 1e6, "MB"),
        Figure("peak memory, raytrain's worker", alone["train/peak_memory_bytes"] / 1e6, "MB"),
        Figure(
            "peak memory, raytrain ÷ bare",
            alone["train/peak_memory_bytes"] / bare_bytes, "ratio", 1.10, higher_is_better=False,
        ),
    ]  # fmt: skip


def save_picture(steps: list[dict[str, float]], path: Path) -> None:
    with picture(path, figsize=(8, 4)) as axes:
        numbers = range(2, len(steps) + 2)
        axes.plot(numbers, [step["tokens"] / step["bare_s"] for step in steps], label="bare loop")
        axes.plot(numbers, [step["tokens"] / step["ours_s"] for step in steps], label="raytrain")
        axes.set(xlabel="step", ylabel="tokens/s", title="Interleaved, same batches", ylim=(0, None))
        axes.legend()


def main() -> None:
    parser = parser_of(__doc__, "overhead", quick="20 pairs of steps instead of 60")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", type=Path, help="rows to train on, for example GSM8K's train.jsonl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, steps = measure(arguments, Path(folder))
    save_picture(steps, arguments.json.with_suffix(".png"))
    report(found, "raytrain against a bare PyTorch loop", arguments.json)


if __name__ == "__main__":
    main()
