"""Outputs that were written elsewhere, from a file: scored like a model's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.answering.answerer import Unit, units_of
from raytrain.evaluation.answering.outcomes import scored_record
from raytrain.evaluation.items import Suite
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluatedModel
from raytrain.evaluation.scoring.registry import build_scorer
from raytrain.storage.manifest import file_sha256

_TOGETHER = 256


class GivenOutputs:
    """A JSONL file with `item_id` and `output` in each line, one line an item of the suite."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.settings: dict[str, Any] = {}
        self._outputs = _read(file)
        self.identity = EvaluatedModel(str(file), outputs_digest=f"sha256:{file_sha256(file)}")

    def note_on(self, suites: Sequence[Suite]) -> str | None:
        """Of lines that answer no item of any of them, which count for nothing; None where there are none."""
        asked = {item.id for suite in suites for item in suite.items}
        unknown = [one for one in self._outputs if one not in asked]
        if not unknown:
            return None
        lines = f"{len(unknown)} of {len(self._outputs)} lines"
        return f"{self._file}: {lines} are ignored: no item has their id, the first is {unknown[0]!r}"

    def plan(self, suite: Suite) -> list[Unit]:
        if suite.section.kind != "generation":
            raise ConfigError(
                f"suite {suite.section.suite} cannot be scored from {self._file}",
                why=f"it is of kind {suite.section.kind}, for which the model itself is needed",
                fix="name a model, or leave the suite out",
            )
        missing = [item.id for item in suite.items if item.id not in self._outputs]
        if missing:
            raise DataError(
                f"{self._file} has no output for {len(missing)} of {len(suite.items)} items of {suite.section.suite}",
                why=f"the first: {', '.join(missing[:5])}",
                fix="give every item a line with its item_id; an empty output is an answer, too",
            )
        return units_of(suite.items, _TOGETHER)

    def answer(self, suite: Suite, units: Sequence[Unit]) -> Iterator[list[ItemRecord]]:
        section = suite.section.scorer
        assert section is not None, "a generation has one"
        scorer = build_scorer(section.name, section.options)
        for unit in units:
            yield [
                scored_record(
                    item,
                    item.prompt
                    if isinstance(item.prompt, str)
                    else json.dumps(item.prompt, ensure_ascii=False),
                    self._outputs[item.id],
                    suite.section.generation.stop,
                    scorer,
                )
                for item in unit
            ]

    def resources(self) -> dict[str, Any]:
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was started."""


def _read(file: Path) -> dict[str, str]:
    outputs: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # a JSON text may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read", why=str(error), fix="give a JSONL file in UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            item_id, output = row["item_id"], row["output"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number}: no output of an item",
                why=f"{type(error).__name__}: {error}",
                fix='write {"item_id": "…", "output": "…"} in each line',
            ) from error
        if not isinstance(output, str) or not isinstance(item_id, str | int):
            name, value = ("output", output) if not isinstance(output, str) else ("item_id", item_id)
            raise DataError(
                f"{file}, line {number}: the output of item {item_id!r} cannot be taken",
                why=f"`{name}` is {json.dumps(value)[:80]}; an id is a text or a number, an output a text",
                fix=f"write `{name}` as text, in quotes",
            )
        if str(item_id) in outputs:
            raise DataError(
                f"{file}, line {number}: the output of item {item_id!r} cannot be taken",
                why="its id stands twice",
                fix="give each item one line",
            )
        outputs[str(item_id)] = output
    return outputs
