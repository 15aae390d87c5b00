"""`raytrain registry compare` and `diff`: two versions side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_of, released_object, show_rows

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.comparison import Differences, Side, SideBySide

FirstArgument = Annotated[str, typer.Argument(metavar="A", help="NAME@VERSION or NAME@ALIAS.")]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help="The one that is held against it.")]


def compare(
    first: FirstArgument,
    second: SecondArgument,
    evaluation: Annotated[
        list[str] | None,
        typer.Option(help="An evaluation of either, beside those in the journal; repeatable."),
    ] = None,
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """What two versions were made from, their tags and metrics; paired statistics where both were asked the same."""
    from raytrain.release.registry.comparison import compare as compared

    found = compared(registry_of(place), (first, second), evaluation or [])
    told = {
        "versions": [_side(one) for one in (found.first, found.second)],
        "suites": [
            {**asdict(one), "verdict": {**asdict(one.verdict), "sentence": one.verdict.sentence()}}
            for one in found.suites
        ],
        "notes": found.notes,
    }
    emit(told, as_json, lambda console: _show(console, found))
    return 0


def _side(side: Side) -> dict[str, Any]:
    return {
        "reference": side.reference,
        **released_object(side.released),
        "subject": side.subject,
        "tags": side.tags,
        "aliases": side.aliases,
        "metrics": side.metrics,
        "evaluations": [one.artifact.digest for one in side.evaluations],
    }


def _show(console: Console, found: SideBySide) -> None:
    first, second = found.first, found.second
    rows = {
        "version": [str(one.released.version) for one in (first, second)],
        "digest": [one.released.digest[7:19] for one in (first, second)],
        "released": [
            f"{one.released.entry.time[:19]} by {one.released.entry.who}" for one in (first, second)
        ],
        "why": [one.released.entry.why for one in (first, second)],
        "aliases": [", ".join(one.aliases) for one in (first, second)],
        "tags": [", ".join(one.tags) for one in (first, second)],
    }
    for role in sorted(first.released.made_from.keys() | second.released.made_from.keys()):
        rows[role] = [_shortened(one.released.made_from.get(role)) for one in (first, second)]
        if first.released.made_from.get(role) != second.released.made_from.get(role):
            rows[role].append("differs")
    for key in sorted(first.metrics.keys() | second.metrics.keys()):
        rows[key] = [f"{one.metrics[key]:.4g}" if key in one.metrics else "–" for one in (first, second)]
    cells = [(name, *row, *[""] * (3 - len(row))) for name, row in rows.items()]
    show_rows(console, ("", first.reference, second.reference, ""), cells)
    for suite in found.suites:
        text = f"{suite.suite}: {suite.verdict.sentence()}; {suite.num_items} items, p {suite.p_value:.3g}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)


def _shortened(value: str | None) -> str:
    if value is None:
        return "–"
    return value[7:19] if value.startswith("sha256:") else value


def diff(
    first: FirstArgument,
    second: SecondArgument,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Files, config keys and ingredients in which two bundles differ, once both are verified."""
    from raytrain.release.registry.comparison import differences

    registry, keys = registry_of(place), ring_of(ring)
    sides = [(registry.find(one), registry.verified(one, keys).artifact) for one in (first, second)]
    found = differences(sides[0], sides[1])
    told = {
        kind: {
            name: {"before": _plain(before), "after": _plain(after)}
            for name, (before, after) in changes.items()
        }
        for kind, changes in vars(found).items()
    }
    emit({"versions": [first, second], **told}, as_json, lambda console: _show_differences(console, found))
    return 0


def _plain(value: Any) -> Any:
    return asdict(value) if hasattr(value, "sha256") else value


def _show_differences(console: Console, found: Differences) -> None:
    if not found.any:
        console.print("the two bundles are alike")
        return
    rows = [
        (kind, name, _told(before), _told(after))
        for kind, changes in vars(found).items()
        for name, (before, after) in changes.items()
    ]
    show_rows(console, ("", "", "before", "after"), rows)


def _told(value: Any) -> str:
    if value is None:
        return "–"
    return (
        f"{value.size_bytes:,} B {value.sha256[:12]}" if hasattr(value, "sha256") else _shortened(str(value))
    )
