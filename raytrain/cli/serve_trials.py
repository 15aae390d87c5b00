"""`raytrain serve compare`: what a trial's candidate does otherwise than production, as far as it was seen online."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.statistics.pairs import Interval
    from raytrain.serving.trials.comparison import OnlineComparison
    from raytrain.serving.trials.measures import Measured, Share


def compare(
    name: Annotated[str, typer.Argument(help="Name whose trial it is.")],
    log: Annotated[
        Path | None, typer.Option(help="Folder of http.request_log; else serving/requests in RAYTRAIN_HOME.")
    ] = None,
    contract: Annotated[
        Path | None, typer.Option(help="Contract whose `overall` says level, margin and correction.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Does a trial's candidate answer as well as production? Exit code 5 where it is surely worse in anything."""
    from raytrain.evaluation.decision.contract import default_contract, load_contract
    from raytrain.serving.http.section import RequestLogSection
    from raytrain.serving.trials.comparison import compare_online
    from raytrain.serving.trials.rows import read_kept, read_rows

    folder = log or RequestLogSection().place
    asked = (default_contract() if contract is None else load_contract(contract)).overall
    now = time.time()
    found = compare_online(read_kept(folder, name), read_rows(folder, "feedback"), asked, now)
    emit(_told(found), as_json, lambda console: _show(console, found))
    return RefusedError.exit_code if found.is_worse else 0


def _told(found: OnlineComparison) -> dict[str, Any]:
    kept = found.kept
    return {
        "name": kept.name,
        "mode": kept.mode,
        "trial": kept.rows[-1]["trial"],
        "digests": {arm: _digest(found, arm) for arm in ("production", "candidate")},
        "num_pairs": found.num_pairs,
        "horizon": kept.horizon,
        "is_complete": found.is_complete,
        "waits_until": found.waits_until,
        "is_worse": found.is_worse,
        "num_left_out": kept.num_left_out,
        "measures": [_measure(one) for one in found.measured],
        "shares": {side: [_share(one) for one in told] for side, told in found.shares.items()},
    }


def _measure(one: Measured) -> dict[str, Any]:
    verdict = one.verdict
    return {
        "name": one.measure.name,
        "rule": one.measure.rule,
        "is_ratio": one.measure.is_ratio,
        "num_pairs": one.num_pairs,
        "production": one.production,
        "candidate": one.candidate,
        "difference": one.candidate - one.production,
        "interval": None if one.interval is None else _interval(one.interval),
        "verdict": None if verdict is None else verdict.word,
        "test": None if verdict is None else verdict.test.method,
        "needs_pairs": None if verdict is None else verdict.needs_items,
    }


def _share(one: Share) -> dict[str, Any]:
    return {"name": one.name, "num": one.num, "num_of": one.num_of, "interval": _interval(one.interval)}


def _interval(one: Interval) -> dict[str, Any]:
    ends = {"low": one.low, "high": one.high}
    told = {name: end if math.isfinite(end) else None for name, end in ends.items()}
    return {**told, "level": one.level, "method": one.method}


def _digest(found: OnlineComparison, arm: str) -> str | None:
    return next((one["digest"] for one in found.kept.rows if one["arm"] == arm), None)


def _show(console: Console, found: OnlineComparison) -> None:
    kept = found.kept

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"{kept.mode} of {kept.name}: {_short(found, 'candidate')} beside {_short(found, 'production')}")
    say(f"{found.size}, of {kept.horizon:,}")
    if found.waits_until is not None:
        until = datetime.fromtimestamp(found.waits_until, UTC)
        say(
            f"no verdict before {until:%H:%M:%S} UTC: an ingress may still write what belongs before the last of these"
        )
    elif not found.is_complete:
        say("no verdict before all of them are there: looking early finds differences that are none")
    for one in found.measured:
        say(f"  {one.measure.name}: {_sentence(one)}")
    for side, shares in found.shares.items():
        for share in shares:
            low, high = 100 * share.interval.low, 100 * share.interval.high
            told = f"{100 * share.num / share.num_of:.1f} % of {share.num_of:,}"
            say(f"  {side}, {share.name}: {told} (95 % interval {low:.1f} to {high:.1f})")
    if kept.num_left_out:
        say(f"left out: {kept.num_left_out:,} rows of other trials of {kept.name}, or other versions")


def _sentence(one: Measured) -> str:
    """A verdict as evaluations tell it; logarithms as hundredths of what they measure."""
    if one.verdict is not None and not one.measure.is_ratio:
        return one.verdict.sentence()
    if not one.measure.is_ratio:
        return f"{100 * one.production:.1f} % and {100 * one.candidate:.1f} % of {one.num_pairs:,}"
    # A judged ratio is a time: its score is the less the longer it is.
    sign = -1 if one.measure.is_judged else 1
    told = f"{_percent(sign * (one.candidate - one.production))} over {one.num_pairs:,}"
    if one.interval is not None:
        ends = sorted((sign * one.interval.low, sign * one.interval.high))
        told += f" ({100 * one.interval.level:g} % interval {_percent(ends[0])} to {_percent(ends[1])})"
    return told if one.verdict is None else f"{one.verdict.word}: {told}"


def _percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.1f} %" if math.isfinite(logarithm) else "anything"


def _short(found: OnlineComparison, arm: str) -> str:
    row = next((one for one in found.kept.rows if one["arm"] == arm), None)
    return f"{row['model']} ({row['digest'][:19]})" if row else f"no {arm}"
