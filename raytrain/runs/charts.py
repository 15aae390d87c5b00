"""Metric curves of one run or several over each other: as a PNG, and in characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from raytrain.storage.location import translated_errors

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Points (global step, value) by run id; NaN and the infinities leave a gap."""

_SHAPES = ("braille", "x", "o", "+", "*", "#")
_PANEL_INCHES = (8.0, 3.6)


def save_chart(panels: Mapping[str, Series], path: Path) -> None:
    """Draw one panel below the other, each a metric key with its series, into a PNG.

    Raises StorageError where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for panel, (key, series) in zip(axes, panels.items(), strict=True):
        for run_id, points in series.items():
            steps = [step for step, _ in points]
            values = [value if math.isfinite(value) else math.nan for _, value in points]
            panel.plot(steps, values, marker="o" if len(points) < 30 else None, markersize=3, label=run_id)
        panel.set_xlabel("global step")
        panel.set_ylabel(key)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    with translated_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, format="png")


def draw_chart(key: str, series: Series, *, width: int = 80, height: int = 18, colour: bool = True) -> str:
    """The curves as text; each run has a shape of its own, so that they differ without colour too."""
    import plotext

    drawable = {run_id: _finite(points) for run_id, points in series.items()}
    drawable = {run_id: points for run_id, points in drawable.items() if points}
    if not drawable:
        return f"{key}: no finite value to draw"
    figure = plotext.figure
    figure.clear()
    figure.theme("simple")
    legend = []
    for i, (run_id, points) in enumerate(drawable.items()):
        shape = _SHAPES[i % len(_SHAPES)]
        steps, values = zip(*points, strict=True)
        signal = figure.signal(list(steps), list(values), marker=shape)
        signal.lines()
        figure.draw(signal)
        legend.append(f"{'⠤' if shape == 'braille' else shape} {run_id}")
    figure.title(key)
    figure.label("global step")
    figure.plot_size(width, height)
    text = str(figure.build().string(colorless=not colour))
    return f"{text.rstrip()}\n  {'   '.join(legend)}"


def _finite(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in points if math.isfinite(value)]
