from __future__ import annotations

import math

import pytest

from raytrain.errors import ConfigError
from raytrain.runs.compare import config_differences, lower_is_better, summarise
from raytrain.runs.record_types import MetricPoint
from raytrain.runs.views import duration, parse_since


def test_config_differences_key_by_key() -> None:
    base = {"train": {"lr": 1e-4, "seed": 7}, "model": {"name": "a"}, "hooks": []}
    other = {"train": {"lr": 2e-4, "seed": 7, "extra": None}, "model": {"name": "a"}, "hooks": ["x"]}
    assert config_differences({"one": base, "two": other}) == {
        "hooks": {"one": [], "two": ["x"]},
        "train.extra": {"one": "(not set)", "two": None},
        "train.lr": {"one": 1e-4, "two": 2e-4},
    }


@pytest.mark.parametrize(
    ("key", "lower"), [("train/loss", True), ("eval/perplexity", True), ("eval/exact_match", False)]
)
def test_which_way_is_better(key: str, lower: bool) -> None:
    assert lower_is_better(key) is lower


def test_the_best_value_is_finite() -> None:
    points = [MetricPoint(step, value, 0.0) for step, value in enumerate((3.0, 1.0, 1.0, math.nan))]
    summary = summarise("train/loss", points)
    assert (summary.num_points, summary.last.global_step) == (4, 3)
    assert summary.best == points[1]
    assert summarise("train/loss", points[3:]).best is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0s"), (65, "1m 5s"), (7200, "2h 0m"), (200_000, "2d 7h")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_since() -> None:
    assert parse_since("2d", 1_000_000.0) == 1_000_000.0 - 172_800
    assert parse_since("90m", 10_000.0) == 10_000.0 - 5400
    assert parse_since("2026-01-31T00:00:00+00:00", 0.0) == 1769817600.0
    with pytest.raises(ConfigError, match="neither an age nor a date"):
        parse_since("yesterday", 0.0)
