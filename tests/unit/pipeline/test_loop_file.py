"""A loop's file, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from commands import Told
from loops import write_loop
from suites import write_rows

from raytrain.cli.recorded_runs import opened_records
from raytrain.errors import ConfigError
from raytrain.monitoring.drift.freezing import freeze, reference_place
from raytrain.pipeline.loop.section import check_metrics, load_loop


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relase": "x"}, "relase: unknown key"),
        ({"triggers": "nowhere.yaml"}, "nowhere.yaml: there is no such triggers file"),
        ({"suites": []}, "suites"),
        ({"fresh_suite": "texts.yaml", "rows": {"held_out": 0}}, "needs rows that are held out"),
        (
            {"search": {"space": {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}}},
            "has no limit",
        ),
        ({"canary": {"hours": 1}}, "lets nothing into 'staging'"),
        ({"fall": {"signals": ["approvl"]}}, "approvl"),
        ({"search": {"space": {}}}, "search.space"),
        ({"export_check": {"float8": {}}}, "export_check.float8: unknown key"),
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


def write_triggers(folder: Path, **content: object) -> None:
    (folder / "triggers.yaml").write_text(yaml.safe_dump({"triggers": "grow", **content}))


def test_triggers_of_another_name_are_refused(tmp_path: Path) -> None:
    place = write_loop(tmp_path)
    write_triggers(tmp_path, release="quotients", when={"age": {"days": 3}})
    with pytest.raises(ConfigError, match="`release` is quotients, and the loop's is sums"):
        load_loop(place)
    write_triggers(tmp_path, release="sums", when={"age": {"days": 3}})
    assert load_loop(place).triggers.release == "sums"


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_metric_that_the_watch_does_not_record_is_refused_with_its_line(
    tmp_path: Path, told: Told, command: str
) -> None:
    place = write_loop(tmp_path)
    write_triggers(tmp_path, watch="small", when={"drift": {"metric": "drift/scor", "above": 1}})
    with opened_records() as records:
        records.create_run("watch-small-a", kind="watch", name="small", config={})
        before = told("loop", command, place)[1]
        records.add_metrics("watch-small-a", [(1, 1.0, {"drift/score": 0.5})])
    assert "records no metric" not in str(before), "nobody can say yet"
    code, refused = told("loop", command, place)
    assert code == 2
    assert "triggers.yaml:6: when.drift.metric: the watch small records no metric `drift/scor`" in str(
        refused
    )
    assert "did you mean `drift/score`?" in str(refused)


def test_before_a_window_is_judged_the_frozen_reference_tells_what_will_be_recorded(
    tmp_path: Path, told: Told
) -> None:
    watch = {
        "watch": "small",
        "rows": str(tmp_path / "rows.jsonl"),
        "storage": {"path": str(tmp_path / "kept")},
    }
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(watch))
    write_rows(tmp_path / "rows.jsonl", [{"score": number / 7} for number in range(60)])
    place = write_loop(tmp_path, watch="watch.yaml")
    for metric, is_known in (("mean/scor", False), ("mean/score", True)):
        write_triggers(
            tmp_path, watch="small", when={"drop": {"metric": metric, "below": 0.1, "clear_above": 0.2}}
        )
        loop = load_loop(place)
        assert loop.watch is not None
        with opened_records() as records:
            if not reference_place(loop.watch).exists():
                check_metrics(loop, records)  # nobody can say
                freeze(loop.watch, now=1_000.0)
            if is_known:
                check_metrics(loop, records)
                continue
            with pytest.raises(ConfigError, match=r"did you mean `mean/score`\?"):
                check_metrics(loop, records)
