"""What triggers find out by themselves: the age of what is in production, and what rows come from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from releases import Trained, make_release

from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.monitoring.triggers.observing import look
from raytrain.monitoring.triggers.production import when_trained
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Seen
from raytrain.release.keys import KeyRing
from raytrain.release.registry.next_version import register_next
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import ArtifactUse
from raytrain.runs.records import Records, open_records

pytestmark = pytest.mark.whole

DAY_S = 86400.0


@pytest.fixture
def records() -> Iterator[Records]:
    opened = open_records()
    yield opened
    opened.close()


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(home / "registry")


def add_version(registry: Registry, folder: Path, trained: Trained) -> Version:
    ring = KeyRing(folder / "keys")
    if not (folder / "keys").exists():
        ring.generate("release")
    bundle = folder / f"bundle-{trained.name}"
    make_release(bundle, trained)
    sign(bundle, ring.signing_key("release"))
    return register_next(registry, "sums", bundle, ring, why="a test")


def put_in_production(registry: Registry, version: Version, before: Version | None = None) -> None:
    registry.move("sums", "production", version, expected=before, decision=None, why="a test")


def wrote(records: Records, digest: str, days_ago: float, run_id: str = "train-1") -> None:
    """A run that made this artifact so long ago."""
    records.create_run(run_id, kind="train", name="sums", config={})
    at = time.time() - days_ago * DAY_S
    use = ArtifactUse(run_id, "model", "written", "adapter", digest, "file:///nowhere", at)
    records.index_artifact(use, {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "loop.yaml"
    place.write_text("triggers: loop\nrelease: sums\nwhen: {age: {days: 30}}\ncooldown_hours: 0\n")
    return place


# Age


def test_production_is_as_old_as_the_run_that_made_it(
    told: Told, file: Path, registry: Registry, records: Records, tmp_path: Path
) -> None:
    first, second = Trained(name="first", dataset="sha256:1"), Trained(name="second", dataset="sha256:2")
    wrote(records, first.subject, 40)
    wrote(records, second.subject, 2, "train-2")
    version = add_version(registry, tmp_path, first)
    put_in_production(registry, version)
    found = told("triggers", "decide", file)[1]
    assert found["order"]["reasons"] == ["production is 40.0 days old, more than 30 is too old"]
    assert found["notes"] == []
    told("triggers", "settle", file, "loop-000001", "succeeded")
    put_in_production(registry, add_version(registry, tmp_path, second), version)
    found = told("triggers", "decide", file)[1]
    assert (found["order"], found["reasons"]) == (
        None, ["no: production is 2.0 days old, more than 30 is too old"],
    )  # fmt: skip
    found = told("triggers", "decide", file, "--trained-at", "31d")[1]
    assert found["order"]["reasons"] == ["production is 31.0 days old, more than 30 is too old"], (
        "what is said on the command line goes before"
    )


def test_the_same_weights_made_again_are_as_old_as_they_were(
    registry: Registry, records: Records, tmp_path: Path
) -> None:
    trained = Trained()
    wrote(records, trained.subject, 40)
    wrote(records, trained.subject, 1, "train-2")
    put_in_production(registry, add_version(registry, tmp_path, trained))
    found = when_trained("sums", None, records)
    assert found.note is None and found.at == pytest.approx(time.time() - 40 * DAY_S, abs=60)


def test_a_version_of_which_the_records_know_nothing_counts_from_its_registration(
    told: Told, file: Path, registry: Registry, records: Records, tmp_path: Path
) -> None:
    put_in_production(registry, add_version(registry, tmp_path, Trained()))
    code, found = told("triggers", "check", file)
    assert code == 0 and found["trained_at"] == registry.find("sums@production").entry.time
    (note,) = found["notes"]
    assert "no run of these records has made sums@1.0.0: its age is counted from" in note
    assert told("triggers", "decide", file, "--dry-run")[1]["notes"] == [note]


def nothing_there(registry: Registry, folder: Path) -> str:
    return "sums is not in the registry ("


def another_name(registry: Registry, folder: Path) -> str:
    add_version(registry, folder, Trained())
    (folder / "home" / "registry" / "sums").rename(folder / "home" / "registry" / "sum")
    return "did you mean sum?"


def nothing_in_production(registry: Registry, folder: Path) -> str:
    add_version(registry, folder, Trained())
    return "nothing of sums is in production yet"


def a_broken_journal(registry: Registry, folder: Path) -> str:
    put_in_production(registry, add_version(registry, folder, Trained()))
    (first, *_) = sorted((folder / "home" / "registry").rglob("00000001.json"))
    first.chmod(0o644)
    first.write_text(first.read_text().replace("a test", "another"))
    return "the journal is broken at"


def a_file_in_its_place(registry: Registry, folder: Path) -> str:
    place = folder / "home" / "registry"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file")
    return "the age of sums is not known"


@pytest.mark.parametrize(
    "happens", [nothing_there, another_name, nothing_in_production, a_broken_journal, a_file_in_its_place]
)
def test_where_nobody_can_say_the_rule_does_not_hold_and_the_rest_is_looked_at(
    told: Told, file: Path, registry: Registry, tmp_path: Path, happens: Any
) -> None:
    expected = happens(registry, tmp_path)
    file.write_text(file.read_text().replace("{age: {days: 30}}", "{any: [{age: {}}, {new_rows: {}}]}"))
    code, found = told("triggers", "decide", file, "--new-rows", "5")
    assert (code, found["order"]) == (0, None)
    assert found["reasons"][0] == "no: nobody can say when production was trained"
    (note,) = found["notes"]
    assert expected in note
    assert told("triggers", "check", file)[1]["notes"] == [note]
    assert told("triggers", "decide", file, "--new-rows", "100")[1]["order"] is not None


def test_another_registry_is_named_in_the_file_or_on_the_command_line(
    told: Told, file: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    put_in_production(Registry(elsewhere), add_version(Registry(elsewhere), tmp_path, Trained()))
    assert told("triggers", "check", file)[1]["trained_at"] is None
    assert told("triggers", "check", file, "--registry", elsewhere)[1]["trained_at"] is not None
    found = told("triggers", "decide", file, "--registry", elsewhere, "--dry-run")[1]
    assert found["reasons"] == ["no: production is 0.0 days old, more than 30 is too old"]
    found = told("triggers", "decide", file, "--registry", "ftp://host/there", "--dry-run")[1]
    assert "`ftp://host/there` is no place for a registry" in found["notes"][0]
    file.write_text(f"registry: {elsewhere}\n{file.read_text()}")
    assert told("triggers", "check", file)[1]["trained_at"] is not None
    file.write_text("triggers: loop\nwhen: {manual: true}\n")
    code, found = told("triggers", "decide", file, "--registry", elsewhere)
    assert code == 2 and "it has no `release`" in found["error"]["why"]


# Sources


def write_row(place: Path, answer: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a") as stream:
        stream.write(json.dumps({"question": "1 + 1?", "answer": answer}) + "\n")


@pytest.fixture
def sourced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Triggers beside a recipe whose rows lie in a file, a folder, and come from a generator."""
    monkeypatch.chdir(tmp_path)
    write_row(Path("first.jsonl"), "2")
    write_row(Path("more/monday.jsonl"), "two")
    write_recipe(tmp_path / "jobs" / "sums.yaml", ["first.jsonl", "more/"])
    place = tmp_path / "jobs" / "loop.yaml"
    place.write_text(
        "triggers: loop\nrecipe: sums.yaml\nwhen: {any: [{new_source: true}, {manual: true}]}\ncooldown_hours: 0\n"
    )
    return place


def write_recipe(place: Path, paths: list[str]) -> None:
    place.parent.mkdir(exist_ok=True)
    generated = [{"generator": "tool_calls", "num_rows": 5}]
    place.write_text(json.dumps({"data": {"sources": [*({"path": one} for one in paths), *generated]}}))


def ordered(told: Told, file: Path) -> list[str]:
    """What a look says is new; settled at once."""
    code, found = told("triggers", "decide", file)
    assert code == 0 and found["notes"] == [], found
    if found["order"] is None:
        return []
    told("triggers", "settle", file, found["order"]["id"], "succeeded")
    (reason,) = found["order"]["reasons"]
    return [one.partition("@")[0] for one in reason.removeprefix("new sources: ").split(", ")]


def test_a_file_that_is_added_or_changed_is_a_new_source_once(told: Told, sourced: Path) -> None:
    names = [one.partition("@")[0] for one in told("triggers", "check", sourced)[1]["sources"]]
    assert names == ["first.jsonl", "more: monday.jsonl", "tool_calls"]
    assert ordered(told, sourced) == [], "what is there at the first look is not new"
    write_row(Path("more/tuesday.jsonl"), "deux")
    assert ordered(told, sourced) == ["more: tuesday.jsonl"]
    assert ordered(told, sourced) == []
    write_row(Path("first.jsonl"), "zwei")
    assert ordered(told, sourced) == ["first.jsonl"]
    Path("more/monday.jsonl").unlink()
    Path("more/tuesday.jsonl").touch()
    assert ordered(told, sourced) == [], "less to learn from, or the same at another time, is nothing new"


def test_a_recipe_that_names_another_source_has_a_new_one(told: Told, sourced: Path) -> None:
    assert ordered(told, sourced) == []
    write_row(Path("second.jsonl"), "2")
    recipe = sourced.with_name("sums.yaml")
    write_recipe(recipe, ["more", "./first.jsonl"])
    assert ordered(told, sourced) == [], "neither their order nor how a path is written counts"
    write_recipe(recipe, ["more/", "first.jsonl", "second.jsonl"])
    assert ordered(told, sourced) == ["second.jsonl"]
    found = told("triggers", "decide", sourced, "--source", "a table of ours")[1]
    assert found["order"]["reasons"] == ["new sources: a table of ours"], "what is said goes before"


def test_sources_that_cannot_be_read_are_told_and_start_nothing(told: Told, sourced: Path) -> None:
    assert ordered(told, sourced) == []
    Path("first.jsonl").rename("forst.jsonl")
    code, found = told("triggers", "decide", sourced)
    assert (code, found["order"]) == (0, None)
    assert "what rows come from is not known: `first.jsonl` is not there" in found["notes"][0]
    assert "did you mean forst.jsonl?" in found["notes"][0]
    Path("forst.jsonl").rename("first.jsonl")
    assert ordered(told, sourced) == [], "what is back is not new"
    recipe = sourced.with_name("sums.yaml")
    recipe.write_text(recipe.read_text().replace("sources", "sorces"))
    code, found = told("triggers", "check", sourced)
    assert code == 2 and "sums.yaml:1: data.sorces" in found["error"]["what"]
    told("triggers", "request", sourced, "--why", "a new tool")
    found = told("triggers", "decide", sourced)[1]
    assert found["order"] is not None and "sums.yaml:1" in found["notes"][0], (
        "what else there is to decide does not hang on it"
    )
    recipe.unlink()
    assert told("triggers", "check", sourced)[0] == 2


def test_what_a_limit_of_money_does_not_see_is_said(records: Records) -> None:
    asked = {"triggers": "loop", "when": {"manual": True}, "budget": {"money": 300, "currency": "EUR"}}
    priced = {"cost": {"cpu_hour": 1.0, "currency": "EUR"}}
    dear = {"cost": {"cpu_hour": 2.0, "currency": "USD"}}
    for name, cost in (("priced", priced), ("unpriced", {}), ("other", dear)):
        config = {"scaling": {"num_workers": 1}, **cost}
        records.create_run(name, kind="train", name="n", config=config, created_at=1_000.0)
        records.claim_run(name, Owner.current(), now=1_000.0)
        records.set_state(name, "succeeded", now=1_000.0 + 3600.0)
        found = look(TriggersSection.model_validate(asked), records, 10_000.0, Seen())
        if name == "priced":
            assert found.notes == () and found.spending is not None and found.spending.money == {"EUR": 1.0}
    unseen = "1 runs of this month have no price; 2.00 USD are not counted"
    assert found.notes == (f"the month's EUR: {unseen} (raytrain runs cost)",)
    asked["budget"] = {"gpu_hours": 3}
    assert look(TriggersSection.model_validate(asked), records, 10_000.0, Seen()).notes == ()


def test_rows_are_counted_of_the_name_that_is_released(records: Records) -> None:
    prompt = ({"role": "user", "content": "?"},)
    for number, model in enumerate(("sums@1.0.0", "words@1.0.0", "words@1.1.0")):
        row = PooledRow(str(number), 1.0, None, model, None, prompt, "!", "answer", 1.0, "ready")
        InteractionPool(records.engine).add([row])
    for release, num_rows in (("sums", 1), ("words", 2), (None, 3)):
        asked = {"triggers": "loop", "when": {"new_rows": {}}, "release": release}
        assert look(TriggersSection.model_validate(asked), records, 9.0, Seen()).new_rows == num_rows


def test_what_no_rule_asks_about_is_not_looked_for(records: Records, tmp_path: Path) -> None:
    asked = {
        "triggers": "loop",
        "release": "sums",
        "registry": "ftp://x/y",
        "recipe": str(tmp_path / "none.yaml"),
    }
    for when in ({"manual": True}, {"new_rows": {}}):
        section = TriggersSection.model_validate({**asked, "when": when})
        assert look(section, records, 9.0, Seen(new_rows=1)).notes == ()
    section = TriggersSection.model_validate({**asked, "when": {"any": [{"age": {}}, {"new_source": True}]}})
    assert len(look(section, records, 9.0, Seen()).notes) == 2
    said = Seen(trained_at=1.0, sources=frozenset({"a"}))
    assert look(section, records, 9.0, said) == replace(said, spending=None)
