"""A file of triggers: what it takes, and what it refuses with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.monitoring.triggers.section import TriggersSection, load_triggers

METRICS = {"drift/score", "drift/alarm", "drift/prompt: length", "approval"}
WHOLE = """\
triggers: loop
watch: sums
when:
  any:
    - {drift: {metric: drift/score, above: 1, clear_below: 0.8}, for_windows: 3}
    - all:
        - {drop: {metric: approval, below: 0.8}}
        - new_rows: {at_least: 200}
    - {age: {days: 30}}
    - {schedule: {at: "02:00", days: [sunday]}}
    - {new_source: true}
    - {manual: true}
    - {canary_loss: true}
cooldown_hours: 12
most: {orders: 2, days: 7}
budget: {money: 100, currency: EUR, next_money: 20, gpu_hours: 10}
"""


def loaded(folder: Path, text: str, metrics: set[str] | None = None) -> TriggersSection:
    (folder / "loop.yaml").write_text(text)
    return load_triggers(folder / "loop.yaml", metrics)


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    found = loaded(tmp_path, WHOLE, METRICS)
    assert [one.name for one in found.when.leaves()] == [
        "drift", "drop", "new_rows", "age", "schedule", "new_source", "manual", "canary_loss",
    ]  # fmt: skip
    assert len({one.key for one in found.when.leaves()}) == 8


@pytest.mark.parametrize(
    ("wrong", "place", "near"),
    [("drift/scor", 5, "did you mean `drift/score`?"), ("latency", 5, "name one of these")],
)
def test_an_unknown_metric_is_told_with_its_line_and_the_nearest(
    tmp_path: Path, wrong: str, place: int, near: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, WHOLE.replace("metric: drift/score", f"metric: {wrong}"), METRICS)
    assert (
        f"loop.yaml:{place}: when.any.0.drift.metric: the watch sums records no metric `{wrong}`"
        in caught.value.what
    )
    assert caught.value.fix == near and "approval" in caught.value.why
    with pytest.raises(ConfigError, match=r"loop\.yaml:7: when\.any\.1\.all\.0\.drop\.metric"):
        loaded(tmp_path, WHOLE.replace("approval", "aproval"), METRICS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("watch: w\nwhen: {manual: true}\n", "triggers: missing"),
        ("triggers: Loop\nwhen: {manual: true}\n", "loop.yaml:1: triggers"),
        ("triggers: loop\nwhen: {}\n", "here is none"),
        ("triggers: loop\nwhen: {manual: true, age: {}}\n", "here are age and manual: put them under `any` or `all`"),
        ("triggers: loop\nwhen: {any: []}\n", "when.any"),
        ("triggers: loop\nwhen: {manual: false}\n", "`manual: false` asks for nothing"),
        ("triggers: loop\nwhen: {age: {}, for_windows: 2}\n", "`age` does not come in windows"),
        ("triggers: loop\nwhen: {drift: {above: 1}}\n", "name it under `watch`"),
        ("triggers: loop\nwatch: w\nwhen: {drift: {above: 1, clear_below: 2}}\n", "`clear_below` (2) is more than"),
        ("triggers: loop\nwatch: w\nwhen: {drop: {metric: m, below: 1, clear_above: 0}}\n", "`clear_above` (0) is"),
        ("triggers: loop\nwatch: w\nwhen: {drift: {metrik: m, above: 1}}\n", "did you mean `metric`?"),
        ("triggers: loop\nwhen: {any: [{drfit: {above: 1}}]}\n", "did you mean `drift`?"),
        ("triggers: loop\nwhen: {schedule: {at: '2am'}}\n", "when.schedule.at"),
        ("triggers: loop\nwhen: {schedule: {at: '02:00', timezone: Europe/Berln}}\n", "did you mean Europe/Berlin?"),
        ("triggers: loop\nwhen: {manual: true}\ncooldown_hours: 500\n", "is less than `cooldown_hours`"),
        ("triggers: loop\nwhen: {manual: true}\nbudget: {currency: EUR}\n", "neither `money` nor `gpu_hours`"),
        ("triggers: loop\nwhen: {manual: true}\nbudget: {money: 5, next_money: 6}\n", "nothing could start"),
        ("triggers: loop\nwhen: {manual: true}\nbudget: {money: 5, next_gpu_hours: 6}\n", "and no `gpu_hours`"),
        ("triggers: loop\nwhen: {age: {}}\nrelease: Sums@production\n", "loop.yaml:3: release"),
        ("triggers: loop\nwhen: {age: {}}\nregistry: there\n", "and no `release` in it"),
        ("triggers: loop\nwhen: {age: {}}\nrecipe: ''\n", "loop.yaml:3: recipe"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert told in str(caught.value) and "loop.yaml" in caught.value.what


def test_rules_may_change_places_and_keep_their_state(tmp_path: Path) -> None:
    first = loaded(tmp_path, "triggers: a\nwhen: {any: [{manual: true}, {age: {days: 3}}]}\n")
    second = loaded(tmp_path, "triggers: a\nwhen: {any: [{age: {days: 3.0}}, {manual: true}]}\n")
    assert {one.key for one in first.when.leaves()} == {one.key for one in second.when.leaves()}
