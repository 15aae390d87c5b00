"""One contract over every detector."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
import pytest

from raytrain.errors import ConfigError
from raytrain.monitoring.drift.section import StreamRule
from raytrain.monitoring.drift.streaming.build import build_detector
from raytrain.monitoring.drift.streaming.detector import find_changes

pytestmark = pytest.mark.whole

Name = Literal["adwin", "kswin", "page_hinkley"]


def series(*parts: tuple[int, float]) -> list[float]:
    """Of right and wrong answers: (number, share of right ones)."""
    generator = np.random.default_rng(11)
    return [float(one) for number, share in parts for one in generator.random(number) < share]


@pytest.mark.parametrize("name", ["adwin", "kswin", "page_hinkley"])
class TestEveryDetector:
    def test_sees_a_fall_soon_after_it(self, name: Name) -> None:
        values = series((1_000, 0.95), (1_000, 0.4))
        (first, *_) = find_changes(values, build_detector(StreamRule(feature="x", detector=name)))
        assert 1_000 < first.place < 1_250
        assert first.before > 0.85 and first.after < first.before

    def test_is_quiet_where_nothing_changes(self, name: Name) -> None:
        found = find_changes(series((3_000, 0.9)), build_detector(StreamRule(feature="x", detector=name)))
        assert len(found) <= 1

    def test_passes_over_what_is_missing_and_takes_what_never_varies(self, name: Name) -> None:
        rule = StreamRule(feature="x", detector=name)
        assert find_changes([], build_detector(rule)) == []
        assert find_changes([float("nan")] * 50, build_detector(rule)) == []
        assert find_changes([1.0, float("inf")] * 300, build_detector(rule)) == []


def test_a_change_that_must_look_less_likely_is_seen_later() -> None:
    values = series((1_000, 0.9), (2_000, 0.6))
    eager, careful = (
        find_changes(values, build_detector(StreamRule(feature="x", delta=delta)))[0].place
        for delta in (0.05, 1e-12)
    )
    assert 1_000 <= eager < careful


def test_without_river_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(ConfigError, match="river") as found:
        build_detector(StreamRule(feature="x"))
    assert "raytrain[drift]" in found.value.fix
