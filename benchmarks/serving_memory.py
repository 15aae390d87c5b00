"""What adapters over one base weigh, and models that are merged: memory of processes that have answered.

Run as a command it is one such process: `python -m benchmarks.serving_memory BASE [ADAPTER …]` prints the bytes that
are its own, the interpreter and its libraries among them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil

from benchmarks.figures import Figure


def memory_figures(base: Path, adapters: Sequence[Path]) -> list[Figure]:
    """A merged model weighs what its base does, and each has a process of its own. Medians of three."""
    num = len(adapters)
    alone, together = (median([_measured(base, one) for _ in range(3)]) for one in ([], adapters))
    return [
        Figure("memory of a replica without adapters", alone / 1e6, "MB"),
        Figure(f"memory of a replica with {num} adapters", together / 1e6, "MB"),
        Figure(f"memory of {num} merged models, a replica each", num * alone / 1e6, "MB"),
    ]


def _measured(base: Path, adapters: Sequence[Path]) -> int:
    words = [sys.executable, "-m", "benchmarks.serving_memory", str(base), *map(str, adapters)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=600).stdout)


def main(base: str, *adapters: str) -> None:
    from benchmarks.serving_engine import engine_over
    from raytrain.serving.adapters.weights import read_adapter

    engine, tokenizer = engine_over(Path(base), threads=1)
    for adapter in adapters:
        engine.engine.load(adapter, read_adapter(Path(adapter)))
    for owner in [None, *adapters]:
        engine.ask(tokenizer("Bread is")["input_ids"], 4, owner)
    own = psutil.Process().memory_full_info().uss
    engine.close()
    sys.stdout.write(f"{own}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
