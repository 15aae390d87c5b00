"""What every benchmark shares: figures with targets, a description of the machine, a table, a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
"""Where tables' PNGs and JSON files go by default; not in version control."""


@dataclass(frozen=True)
class Figure:
    """One measured value. Without a target it is only told, and counts as held."""

    name: str
    value: float
    unit: str
    target: float | None = None
    higher_is_better: bool = True

    @property
    def held(self) -> bool:
        """Whether the value is at least as good as the target."""
        if self.target is None:
            return True
        return self.value >= self.target if self.higher_is_better else self.value <= self.target


def describe_machine() -> dict[str, Any]:
    """What a reader needs in order to judge the figures."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(figures: Sequence[Figure], json_path: Path) -> None:
    """Write machine and figures as one JSON object."""
    body = {
        "machine": describe_machine(),
        "figures": [{**asdict(figure), "held": figure.held} for figure in figures],
    }
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def show(figures: Sequence[Figure], title: str) -> None:
    """Print the figures as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("target", justify="right")
    table.add_column("held")
    for figure in figures:
        sign = "≥" if figure.higher_is_better else "≤"
        target = "" if figure.target is None else f"{sign} {figure.target:,.4g}"
        held = "" if figure.target is None else "yes" if figure.held else "NO"
        table.add_row(figure.name, f"{figure.value:,.4g}", figure.unit, target, held)
    Console().print(table)


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """95 % by the order statistics, which need no assumption."""
    from scipy.stats import binom

    ordered = sorted(values)
    low = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(0, low - 1)], ordered[min(len(ordered) - 1, len(ordered) - low)]


def parser_of(description: str | None, name: str, quick: str) -> argparse.ArgumentParser:
    """What every benchmark can be told: `--quick`, which means `quick`, and `--json FILE`, by default `name`.json."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where the figures go")
    return parser


def report(figures: Sequence[Figure], title: str, json_path: Path) -> None:
    """The table on the terminal, the same as JSON, and the place of that."""
    show(figures, title)
    write(figures, json_path)
    print(json_path)


@contextmanager
def picture(path: Path, **subplots: Any) -> Iterator[Any]:
    """Axes to draw on, saved as a PNG at the end; `subplots` are pyplot's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(**subplots)
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=120, bbox_inches="tight")
