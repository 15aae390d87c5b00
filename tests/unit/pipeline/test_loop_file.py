"""A loop's file, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from loops import write_loop

from raytrain.errors import ConfigError
from raytrain.pipeline.loop.section import load_loop


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relase": "x"}, "relase: unknown key"),
        ({"triggers": "nowhere.yaml"}, "nowhere.yaml: there is no such triggers file"),
        ({"suites": []}, "suites"),
        ({"fresh_suite": "texts.yaml", "rows": {"held_out": 0}}, "needs rows that are held out"),
        ({"canary": {"hours": 1}}, "lets nothing into 'staging'"),
        ({"fall": {"signals": ["approvl"]}}, "approvl"),
        ({"search": {"space": {}}}, "search.space"),
        ({"storage": {"path": "s3://bucket/place"}}, "made and signed here"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        load_loop(write_loop(tmp_path, **changes))
    assert words in str(told.value)


def test_triggers_that_look_at_another_watch_are_refused(tmp_path: Path) -> None:
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"watch": "one", "window": {"rows": 10}}))
    place = write_loop(tmp_path, watch="watch.yaml")
    (tmp_path / "triggers.yaml").write_text(
        yaml.safe_dump({"triggers": "grow", "watch": "two", "when": {"drift": {"above": 1}}})
    )
    with pytest.raises(ConfigError, match="another watch"):
        load_loop(place)
