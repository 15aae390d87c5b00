"""The search as one page that needs nothing else: its trials, and Optuna's plots of them as pictures."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from raytrain.tuning.outcome import TrialRow, TuneResult
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import RUN_ID, StudyMemory

if TYPE_CHECKING:
    import optuna

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .4rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884;vertical-align:top}
.scroll{overflow-x:auto}.quiet{opacity:.7}.best{font-weight:600}
figure{margin:0 0 1rem}img{max-width:100%;background:#fff;border-radius:6px}pre{overflow-x:auto}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_page(result: TuneResult, recipe: TuneRecipe, memory: StudyMemory) -> str:
    """The whole page; no request leaves it."""
    body = "\n".join(_body(result, recipe, memory))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(result.run_id)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(result: TuneResult, recipe: TuneRecipe, memory: StudyMemory) -> Iterator[str]:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result.counts().items()))
    yield f"<main><p class=quiet>{escape(recipe.spec.name)} · {escape(', '.join(result.metrics))}</p>"
    yield f"<h1>{escape(_headline(result))}</h1>"
    yield f"<p>{escape(counts)}. Ended: {escape(result.ended_by)}.</p>"
    if result.best:
        several = len(recipe.objectives) > 1
        yield f"<h2>{'Pareto front' if several else 'Best trial'}</h2>"
        yield _table(result, result.best)
    for title, told, picture in _pictures(result, memory):
        yield f"<h2>{escape(title)}</h2><p class=quiet>{escape(told)}</p>"
        yield f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{picture}"></figure>'
    yield "<h2>Trials</h2>"
    yield _table(result, result.rows)
    yield "</main>"


def _headline(result: TuneResult) -> str:
    if not result.best:
        return "No trial has come to its end"
    if len(result.metrics) > 1:
        return f"{len(result.best)} trials that no other is better than in everything"
    row = result.best[0]
    return f"{result.metrics[0]} {(row.view.objectives or [0.0])[0]:.6g}, by trial {row.view.number}"


def _table(result: TuneResult, rows: list[TrialRow]) -> str:
    best = {row.view.number for row in result.best}
    heads = ["trial", "state", *result.metrics, "steps", "values", "why", "run"]
    parts = ["".join(f'<th scope="col">{escape(name)}</th>' for name in heads)]
    for row in rows:
        objectives = row.view.objectives or []
        told = [f"{value:.6g}" for value in objectives] or [""] * len(result.metrics)
        values = ", ".join(f"{key}={json.dumps(value)}" for key, value in row.view.values.items())
        why = row.view.reason or row.view.attrs.get("origin") or ""
        cells = [
            str(row.view.number), row.view.state, *told, str(row.global_step), values, why,
            str(row.view.attrs.get(RUN_ID, "")),
        ]  # fmt: skip
        mark = ' class="best"' if row.view.number in best else ""
        parts.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head, *lines = parts
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def _pictures(result: TuneResult, memory: StudyMemory) -> Iterator[tuple[str, str, str]]:
    """Title, words and PNG of each of Optuna's plots that the trials are enough for."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna import importance
    from optuna.visualization import matplotlib as plots

    study = memory.study
    complete = sum(row.view.state == "complete" for row in result.rows)
    if complete < 2:
        return
    wanted: list[tuple[str, str, Callable[[], Any]]] = []
    if len(result.metrics) > 1:
        wanted.append(
            ("Pareto front", "Each trial by its objectives.", partial(plots.plot_pareto_front, study))
        )
    for i, metric in enumerate(result.metrics):
        target = None if len(result.metrics) == 1 else _objective(i)
        named: dict[str, Any] = {} if target is None else {"target": target, "target_name": metric}
        suffix = "" if target is None else f": {metric}"
        importances = importance.PedAnovaImportanceEvaluator()
        wanted += [
            ("History" + suffix, "The objective, trial by trial.",
             partial(plots.plot_optimization_history, study, **named)),
            ("What matters" + suffix, "Share of each key in what sets the better trials apart (PED-ANOVA).",
             partial(plots.plot_param_importances, study, evaluator=importances, **named)),
            ("Parallel coordinates" + suffix, "A line for each trial.",
             partial(plots.plot_parallel_coordinate, study, **named)),
            ("Slices" + suffix, "The objective over each key alone.",
             partial(plots.plot_slice, study, **named)),
        ]  # fmt: skip
    if len(result.metrics) == 1 and any(row.view.last_reported is not None for row in result.rows):
        wanted.append(
            ("On the way", "What each trial reported, and where it was ended.",
             partial(plots.plot_intermediate_values, study))
        )  # fmt: skip
    for title, told, draw in wanted:
        picture = _drawn(draw)
        if picture is not None:
            yield title, told, picture


def _objective(index: int) -> Callable[[optuna.trial.FrozenTrial], float]:
    return lambda trial: float(trial.values[index])


def _drawn(draw: Callable[[], Any]) -> str | None:
    """A PNG in base64; None where the trials are too few or too alike for this plot."""
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            drawn = draw()
        except (ValueError, RuntimeError, ZeroDivisionError):
            pyplot.close("all")
            return None
        axes = drawn.ravel()[0] if hasattr(drawn, "ravel") else drawn
        figure = axes.figure
        figure.set_size_inches(10, 4.5)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    pyplot.close("all")
    return base64.b64encode(stream.getvalue()).decode()
