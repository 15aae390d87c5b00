"""One window beside the reference: calibrated tests, rules, and what a person is shown. Nothing is written here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from raytrain.monitoring.drift.calibration import Judgement, judge_window
from raytrain.monitoring.drift.columns import Column
from raytrain.monitoring.drift.distances.known import DISTANCES
from raytrain.monitoring.drift.features import Embed, measure_features
from raytrain.monitoring.drift.judged import Judged
from raytrain.monitoring.drift.picture import bars_of, words_that_moved
from raytrain.monitoring.drift.reference import Reference
from raytrain.monitoring.drift.rows import Rows
from raytrain.monitoring.drift.rules import (
    Breach,
    changed_streams,
    check_features,
    falls,
    fixed_breaches,
    means_of,
)
from raytrain.monitoring.drift.section import WatchSection
from raytrain.monitoring.drift.texts import as_text
from raytrain.monitoring.drift.windows import Window

_MOST_EARLIER = 20_000
"""Rows between the reference and the window that streams read."""


def check_rules(section: WatchSection, reference: Reference) -> None:
    """Raises ConfigError where a rule names a feature that the reference does not have."""
    features = reference.columns
    fixed = [one.feature for one in section.fixed if one.feature != "*"]
    check_features(fixed, features, "fixed", numeric=False)
    check_features([one.feature for one in section.falls], features, "falls", numeric=True)
    check_features([one.feature for one in section.streams], features, "streams", numeric=True)


def judge(
    section: WatchSection,
    reference: Reference,
    rows: Rows,
    window: Window,
    number: int,
    embed: Embed | None = None,
) -> tuple[Judged, list[Column]]:
    """The window, and its features. rows: all that there are."""
    mine = rows.take(range(window.first, window.end))
    columns = measure_features(mine.columns, reference.features, embed) if len(mine) else []
    judgement = _calibrated(section, reference, columns)
    # Of rows without a time all are the window.
    has_time = rows.times is not None
    judged = Judged(
        watch=section.watch,
        number=number,
        begins_at=window.begins_at if has_time else None,
        ends_at=window.ends_at if has_time else None,
        num_rows=len(mine),
        judgement=judgement,
        breaches=_breaches(section, reference, rows, window, columns) if columns else [],
        digests=dict(Counter(one for one in mine.columns.get("digest", []) if one).most_common(20)),
        bars={then.name: bars_of(then, now) for then, now in zip(reference.columns, columns, strict=False)},
        words={
            name: words_that_moved(counts, reference.num_rows, [as_text(one) for one in mine.columns[name]])
            for name, counts in reference.words.items()
            if name in mine.columns
        },
        means=means_of(columns),
        notes=[*rows.notes, *_differences(reference, rows)],
    )
    return judged, columns


def _calibrated(section: WatchSection, reference: Reference, columns: Sequence[Column]) -> Judgement | None:
    if section.level is None:
        return None
    if not columns:
        why = ("the window is empty: nothing is compared",)
        return Judgement(False, 1.0, section.level, (), 0, reference.num_rows, 0, why)
    return judge_window(
        reference.columns,
        columns,
        level=section.level,
        permutations=section.permutations,
        distances={kind: DISTANCES[name] for kind, name in section.distances.by_kind.items()},
    )


def _breaches(
    section: WatchSection, reference: Reference, rows: Rows, window: Window, columns: Sequence[Column]
) -> list[Breach]:
    found = fixed_breaches(reference.columns, columns, section.fixed)
    found += falls(reference.columns, columns, section.falls)
    if section.streams:
        named = {one.feature for one in section.streams}
        wanted = [one for one in reference.features if one.name in named]
        earlier = _rows_before(rows, reference, window)
        found += changed_streams(
            reference.columns, measure_features(earlier.columns, wanted), columns, section.streams
        )
    return found


def _rows_before(rows: Rows, reference: Reference, window: Window) -> Rows:
    """Those that are neither the reference's nor the window's."""
    if rows.times is None:
        return rows.take([])
    ends_at = reference.ends_at
    begin = 0 if ends_at is None else int((rows.times <= ends_at).sum())
    return rows.take(range(max(begin, window.first - _MOST_EARLIER), window.first))


def _differences(reference: Reference, rows: Rows) -> list[str]:
    """Columns with something in them that the reference knows nothing of."""
    new = [
        name
        for name, cells in rows.columns.items()
        if name not in reference.known_columns and any(one is not None for one in cells)
    ]
    if not new:
        return []
    return [f"columns that the reference does not have are not compared: {', '.join(sorted(new))}"]
