"""MB/s and peak memory of `data prepare` on generated question-and-answer rows of 10 MB, 100 MB and 1 GB.

    python -m benchmarks.data_prepare [--quick] [--sizes 10 100] [--repeats 3] [--json FILE]

Each prepare runs in a fresh process: cleaning, scoring, duplicate search, split and Parquet. About
1 % of the rows are planted near-duplicates. Peak memory is the process's largest resident set, with the
interpreter and the libraries.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, parser_of, picture, report

_TARGET_MB_PER_S = 10.0
_TARGET_PEAK_MB = 512.0

_NAMES = (
    "Natalia",
    "Weng",
    "Betty",
    "Julie",
    "James",
    "Mark",
    "Albert",
    "Ken",
    "Alexis",
    "Tina",
    "Mimi",
    "Tobias",
)
_VERBS = ("sold", "bought", "found", "packed", "counted", "borrowed", "painted", "washed", "baked", "shared")
_THINGS = (
    "clips",
    "apples",
    "books",
    "letters",
    "flowers",
    "pencils",
    "tickets",
    "marbles",
    "shells",
    "bottles",
)
_PLACES = (
    "market",
    "school",
    "garden",
    "library",
    "station",
    "harbour",
    "kitchen",
    "office",
    "museum",
    "village",
)
_MOMENTS = (
    "yesterday",
    "in April",
    "on Monday",
    "before lunch",
    "after work",
    "last week",
    "at noon",
    "again",
)


def generate_rows(path: Path, size_mb: int) -> int:
    """Write rows like GSM8K's in length and wording; returns how many near-duplicates are among them."""
    generator = random.Random(size_mb)
    written = num_planted = 0
    original: dict[str, str] = {}
    with path.open("w", encoding="utf-8") as stream:
        while written < size_mb * 1_000_000:
            if original and generator.random() < 0.01:
                row = {**original, "answer": f"{original['answer']} Step {num_planted} is done."}
                num_planted += 1
            else:
                row = original = {"question": _story(generator, 3), "answer": _story(generator, 4)}
            line = json.dumps(row) + "\n"
            stream.write(line)
            written += len(line)
    return num_planted


def _story(generator: random.Random, sentences: int) -> str:
    pick, number = generator.choice, generator.randrange
    parts = []
    for _ in range(sentences):
        left, right = number(2, 900), number(2, 90)
        scene = (
            f"{pick(_NAMES)} {pick(_VERBS)} {left} {pick(_THINGS)} {pick(_MOMENTS)} near the {pick(_PLACES)}"
        )
        parts.append(f"{scene} and {left}*{right} = <<{left}*{right}={left * right}>>{left * right}.")
    return " ".join(parts)


def measure(source: Path) -> dict[str, float]:
    """Prepare `source` in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data_prepare", "--one", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def prepare_once(source: Path) -> None:
    """Body of the measured process; prints seconds and its own peak memory."""
    from raytrain.data.prepare import prepare_dataset
    from raytrain.data.section import DataSection
    from raytrain.storage.location import Location

    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        started, cpu_started = time.perf_counter(), time.process_time()
        artifact = prepare_dataset(DataSection(sources=str(source)), Location.parse(folder))
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_started
        rows = json.loads((artifact.path / "statistics.json").read_text(encoding="utf-8"))["rows"]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    measured = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}
    print(json.dumps({**measured, "rows": rows["read"], "kept": rows["kept"]}))


def run(sizes: list[int], repeats: int) -> list[Figure]:
    """Measure all sizes; medians over the repeats, with the spread of the speed."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for size_mb in sizes:
            source = Path(folder) / f"rows-{size_mb}.jsonl"
            num_planted = generate_rows(source, size_mb)
            # A repeat of minutes tells nothing that the first did not.
            measured = [measure(source) for _ in range(repeats if size_mb <= 100 else 1)]
            source.unlink()
            speeds = [size_mb / one["seconds"] for one in measured]
            name = f"{size_mb} MB"
            figures += [
                Figure(f"speed, {name}", statistics.median(speeds), "MB/s", _TARGET_MB_PER_S),
                Figure(
                    f"MB per CPU second, {name}",
                    statistics.median(size_mb / one["cpu_seconds"] for one in measured),
                    "MB/s",
                ),
                Figure(f"speed spread, {name}", max(speeds) - min(speeds), "MB/s", higher_is_better=False),
                Figure(
                    f"rows per second, {name}",
                    statistics.median(speeds) * measured[0]["rows"] / size_mb,
                    "rows/s",
                ),
                Figure(
                    f"peak memory, {name}",
                    statistics.median(one["peak_mb"] for one in measured),
                    "MB",
                    _TARGET_PEAK_MB,
                    higher_is_better=False,
                ),
                Figure(f"planted near-duplicates, {name}", num_planted, "rows"),
                Figure(f"near-duplicates dropped, {name}", measured[0]["rows"] - measured[0]["kept"], "rows"),
            ]
    return figures


def draw(figures: list[Figure], path: Path) -> None:
    """Speed and peak memory over size, as a PNG."""
    with picture(path, nrows=1, ncols=2, figsize=(9, 3.5), layout="constrained") as axes:
        for axis, name, unit in zip(axes, ("speed", "peak memory"), ("MB/s", "MB"), strict=True):
            chosen = [figure for figure in figures if figure.name.startswith(f"{name}, ")]
            axis.bar(
                [figure.name.partition(", ")[2] for figure in chosen], [figure.value for figure in chosen]
            )
            axis.set_title(f"data prepare: {name}")
            axis.set_ylabel(unit)
            axis.axhline(chosen[0].target, color="black", linestyle="--", linewidth=1, label="target")
            axis.legend()


def main() -> None:
    parser = parser_of(__doc__, "data_prepare", quick="10 MB and 50 MB only")
    parser.add_argument("--sizes", type=int, nargs="+", help="sizes in MB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        prepare_once(options.one)
        return
    sizes = options.sizes or ([10, 50] if options.quick else [10, 100, 1000])
    figures = run(sizes, options.repeats)
    draw(figures, options.json.with_suffix(".png"))
    report(figures, "data prepare", options.json)


if __name__ == "__main__":
    main()
