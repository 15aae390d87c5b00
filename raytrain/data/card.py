"""data_card.md, rendered from statistics.json: what is in the dataset, from where, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from raytrain.data.rows import REASONS
from raytrain.data.statistics import shortened

_BAR_WIDTH = 40


def render_card(statistics: dict[str, Any]) -> str:
    """The card as Markdown."""
    lines = ["# Data card", ""]
    for part in (_overview, _sources, _splits, _lengths, _left_out, _samples):
        lines += [*part(statistics), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(header: list[str], rows: list[list[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _overview(statistics: dict[str, Any]) -> Iterator[str]:
    rows = statistics["rows"]
    yield (
        f"{rows['read']:,} rows read: {rows['kept']:,} kept, {rows['rejected']:,} rejected, "
        f"{rows['exact_duplicates']:,} exact and {rows['near_duplicates']:,} near-duplicates dropped."
    )


def _sources(statistics: dict[str, Any]) -> Iterator[str]:
    yield "## Sources"
    yield ""
    yield from _table(
        ["source", "licence", "read", "rejected", "exact duplicates", "near-duplicates", "kept"],
        [
            [
                one["name"],
                one["licence"] or "not stated",
                one["read"],
                sum(one["rejected"].values()),
                one["exact_duplicates"],
                one["near_duplicates"],
                one["kept"],
            ]
            for one in statistics["sources"]
        ],
    )
    for one in statistics["sources"]:
        yield ""
        yield f"**{one['name']}**, provenance:"
        yield ""
        identity = one["identity"]
        if "files" in identity:
            yield from (f"- `{file['file']}` sha256:{file['sha256']}" for file in identity["files"])
        else:
            yield "- " + ", ".join(f"{key} {value}" for key, value in identity.items() if value is not None)
        yield from (f"- {note}" for note in one["notes"])


def _splits(statistics: dict[str, Any]) -> Iterator[str]:
    settings = statistics["settings"]
    yield "## Splits"
    yield ""
    yield "A row's split depends on its content alone, and of near-duplicates only one row is kept."
    yield ""
    yield from _table(
        ["split", "rows", "characters", "5 %", "median", "95 %", "longest", "mean quality"],
        [
            [
                name,
                one["rows"],
                one["chars"],
                *(one["num_chars"][key] for key in ("p05", "median", "p95", "max")),
                one["mean_quality"],
            ]
            if one["rows"]
            else [name, 0, 0, "", "", "", "", ""]
            for name, one in statistics["splits"].items()
        ],
    )
    for name in ("val", "test"):
        fraction = settings[f"{name}_fraction"]
        if fraction > 0 and not statistics["splits"][name]["rows"]:
            yield ""
            yield (
                f"**{name} is empty:** by chance no row fell into the {fraction:.1%} that were asked for; "
                f"raise data.{name}_fraction or set another data.split_salt."
            )


def _lengths(statistics: dict[str, Any]) -> Iterator[str]:
    counts: dict[int, int] = {}
    for one in statistics["splits"].values():
        for bar in one.get("histogram", ()):
            counts[bar["from"]] = counts.get(bar["from"], 0) + bar["rows"]
    edges = sorted(counts)
    last = max((place for place, edge in enumerate(edges) if counts[edge]), default=-1)
    most = max(counts.values(), default=0)
    yield "## Length in characters"
    yield ""
    yield "```text"
    for edge in edges[: last + 1]:
        bar = "█" * max(round(_BAR_WIDTH * counts[edge] / most), 1 if counts[edge] else 0)
        yield f"from {edge:>6,} {bar:<{_BAR_WIDTH}} {counts[edge]:,}"
    yield "```"


def _left_out(statistics: dict[str, Any]) -> Iterator[str]:
    yield "## What was left out"
    yield ""
    reasons: dict[str, str] = dict(REASONS.items())
    rows = [[f"rejected: {name}", count, reasons[name]] for name, count in statistics["rejected"].items()]
    threshold = statistics["settings"]["near_duplicate_threshold"]
    rows.append(
        ["exact duplicate", statistics["rows"]["exact_duplicates"], "the same content as an earlier row"]
    )
    near = (
        "not looked for" if threshold is None else f"like an earlier row: estimated Jaccard ≥ {threshold:g}"
    )
    rows.append(["near-duplicate", statistics["rows"]["near_duplicates"], near])
    yield from _table(["what", "rows", "why"], rows)
    if statistics["near_duplicate_search_was_cut"]:
        yield ""
        yield (
            "**Not all near-duplicates were found:** too many rows look alike, and the search ended after "
            "50 comparisons per row. Raise data.near_duplicate_threshold for a whole search."
        )
    yield ""
    yield "Rejected rows are in `rejected.jsonl`, with line number and reason."


def _samples(statistics: dict[str, Any]) -> Iterator[str]:
    samples = statistics["samples"]
    yield "## Samples"
    for title, key in (("Exact duplicates", "exact_duplicates"), ("Near-duplicates", "near_duplicates")):
        if samples[key]:
            yield ""
            yield f"### {title}"
        for pair in samples[key]:
            for role in ("kept", "dropped"):
                row = pair[role]
                yield ""
                yield f"{role}, {row['source']} line {row['line']}:"
                yield from _quoted(row["text"])
    if samples["rejected"]:
        yield ""
        yield "### Rejected"
    for entries in samples["rejected"].values():
        for entry in entries:
            yield ""
            yield f"{entry['source']} line {entry['line']}, {entry['reason']}: {entry['detail']}"
            yield from _quoted(shortened(entry["raw"]))
    if samples["train"]:
        yield ""
        yield "### Kept"
    for row in samples["train"]:
        yield from _quoted(shortened(json.dumps(row, ensure_ascii=False)))


def _quoted(text: str) -> Iterator[str]:
    yield ""
    yield from (
        f"    {line}" for line in text.encode("utf-8", "backslashreplace").decode().splitlines() or [""]
    )
