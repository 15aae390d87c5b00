from __future__ import annotations

import math
from pathlib import Path

import pytest

from raytrain.errors import StorageError
from raytrain.runs.charts import draw_chart, save_chart

CURVE = [(step, 4 / step) for step in range(1, 60)]


def test_a_png_with_one_panel_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "new" / "loss.png"
    save_chart(
        {"train/loss": {"a-1": CURVE, "b-2": [(1, math.nan), (2, 1.0)]}, "eval/loss": {"a-1": CURVE}}, path
    )
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_png_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save_chart({"train/loss": {"a-1": CURVE}}, tmp_path / "file" / "loss.png")


def test_in_the_terminal() -> None:
    text = draw_chart("train/loss", {"a-1": CURVE, "b-2": CURVE[:30]}, width=70, height=12, colour=False)
    assert "train/loss" in text
    assert "a-1" in text
    assert "x b-2" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 70


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(1, math.inf)]])
def test_nothing_to_draw_is_said(points: list[tuple[int, float]]) -> None:
    assert draw_chart("train/loss", {"a-1": points}) == "train/loss: no finite value to draw"


@pytest.mark.parametrize("points", [[(5, 1.0)], [(1, 2.0), (2, 2.0)], [(1, 1e-300), (2, 1e300)]])
def test_odd_curves_are_drawn(points: list[tuple[int, float]]) -> None:
    assert "global step" in draw_chart("train/loss", {"a-1": points}, colour=False)
