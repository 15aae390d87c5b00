"""The demo: one story from rows to an adapter, on two workers, with what it is worth before and after.

    make demo                     on a laptop
    ray job submit --working-dir . -- python jobs/demo.py

Arguments are overrides of jobs/demo.yaml, for example `train.num_epochs=3`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from raytrain.cli.output import report_error, stderr_console
from raytrain.cli.progress import ProgressView
from raytrain.data.tool_calls import exact_match, generate_tool_calls
from raytrain.errors import PlatformError, TrainingError
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec, load_spec
from raytrain.training.trainer import train

NUM_HELD_OUT = 40
HELD_OUT_SEED = 11
MAX_NEW_TOKENS = 64


def main(overrides: list[str]) -> int:
    console = stderr_console()
    try:
        started = time.perf_counter()
        spec = load_spec(Path(__file__).parent / "demo.yaml", without_bfloat16(overrides))
        rows = list(generate_tool_calls(NUM_HELD_OUT, HELD_OUT_SEED, "heldout"))

        console.print("[bold]1. The base model answers 40 requests that no training row contains[/]")
        before = answer(spec.model.base_model, spec, rows)

        console.print("[bold]2. LoRA on two Ray workers[/]")
        with ProgressView(console) as view:
            result = train(spec, observer=view)
        if result.artifact is None:
            raise TrainingError(
                "the demo was stopped", why=f"by {result.stopped_by}", fix="run it again: it goes on"
            )

        console.print("[bold]3. The adapter answers the same requests[/]")
        after = answer(result.artifact, spec, rows)
        summary = summarise(result, rows, before, after, seconds=time.perf_counter() - started)
    except PlatformError as error:
        report_error(error, as_json=False)
        return error.exit_code
    place = run_folder(result.run_id) / "demo-summary.json"
    place.write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    show(summary)
    print(place)
    return 0


def without_bfloat16(overrides: list[str]) -> list[str]:
    """bfloat16 is 2.5 times as fast where a CPU has instructions for it, and slower than float32 elsewhere."""
    import torch

    has_it = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return overrides if has_it else ["train.precision=float32", *overrides]


def answer(model: str, spec: RunSpec, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer every row's request greedily; texts, how many are exact, and how fast it went."""
    from rich.progress import track

    from raytrain.models.base import load_tokenizer
    from raytrain.models.inference import load_for_inference
    from raytrain.models.text_generation import generate_texts

    loaded = load_for_inference(model, cache=Location(str(spec.storage.location)))
    # Both are asked in the same words: the recipe's chat template.
    tokenizer = load_tokenizer(loaded.base, spec.model)
    prompts = [row["messages"][:1] for row in rows]
    started = time.perf_counter()
    texts = []
    for start in track(range(0, len(prompts), 8), description="  answering", console=stderr_console()):
        texts += generate_texts(
            loaded.model, tokenizer, prompts[start : start + 8], max_new_tokens=MAX_NEW_TOKENS, batch_size=8
        )
    seconds = time.perf_counter() - started
    return {
        "texts": [one.text for one in texts],
        "exact": [
            exact_match(one.text, row["messages"][1]["content"]) for one, row in zip(texts, rows, strict=True)
        ],
        "tokens_per_second": sum(one.num_new_tokens for one in texts) / seconds,
        "seconds": seconds,
    }


def summarise(
    result: TrainResult,
    rows: list[dict[str, Any]],
    before: dict[str, Any],
    after: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """What the demo found, as plain values; intervals are Wilson's at 95 %."""
    from scipy.stats import binomtest

    def share(answers: dict[str, Any]) -> dict[str, Any]:
        count = sum(answers["exact"])
        interval = binomtest(count, len(rows)).proportion_ci(method="wilson")
        return {
            "exact": count,
            "of": len(rows),
            "rate": count / len(rows),
            "interval_95": [interval.low, interval.high],
        }

    items = [
        {
            "request": row["messages"][0]["content"],
            "expected": row["messages"][1]["content"],
            "before": before["texts"][i],
            "after": after["texts"][i],
            "exact_before": before["exact"][i],
            "exact_after": after["exact"][i],
        }
        for i, row in enumerate(rows)
    ]
    return {
        **result.as_dict(),
        "before": share(before),
        "after": share(after),
        "seconds": {
            "total": seconds,
            "answering_before": before["seconds"],
            "answering_after": after["seconds"],
        },
        "items": items,
    }


def show(summary: dict[str, Any]) -> None:
    """The table at the end, with a few answers to look at."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="JSON tool calls for requests that were never seen", title_justify="left")
    for column in ("", "exact match", "95 % interval"):
        table.add_column(column)
    for name, key in (("base model", "before"), ("with the adapter", "after")):
        found = summary[key]
        low, high = found["interval_95"]
        table.add_row(name, f"{found['exact']} of {found['of']}", f"{low:.0%} to {high:.0%}")
    console.print(table)
    wrong = [item for item in summary["items"] if not item["exact_after"]]
    right = [item for item in summary["items"] if item["exact_after"]]
    for item in right[:2] + wrong[:2]:
        console.print(f"\n[bold]{item['request']}[/]")
        console.print(f"  base:    {item['before'][:90]!r}", markup=False, highlight=False)
        mark = "" if item["exact_after"] else f"   expected {item['expected']}"
        console.print(f"  adapter: {item['after'][:120]}{mark}", markup=False, highlight=False)
    console.print(
        f"\nrun {summary['run_id']}, {summary['global_step']} steps, {summary['seconds']['total']:.0f} s in all\n"
        f"adapter {summary['artifact']}\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
