"""The loop for real, on a tiny model: an order from its rows to production, killed on its way, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import Bench, wait_until
from retrained import NAME, Site, put_up, row

from raytrain.evaluation.safety.redaction import pseudonym


@pytest.fixture
def site(joined: Bench, tiny_llama: Path, tmp_path: Path) -> Site:
    return put_up(joined, tiny_llama, tmp_path)


def test_rows_that_came_since_reach_production_once_also_when_it_is_killed(site: Site) -> None:
    assert site.run("loop", "check", site.loop).object["production"]["version"] == "1.0.0"
    nothing = site.run("loop", "run", site.loop).object
    assert nothing["decision"]["order"] is None and nothing["queued"] is None
    site.pool().add([row(number, f"user {number % 3}") for number in range(30)])

    order = site.run("loop", "run", site.loop).object["queued"]
    assert order == "grow-000001"
    again = site.run("loop", "run", site.loop).object
    assert again["decision"]["order"] is None and again["queued"] is None, "one order, one job"

    # By hand, and killed when it has trained; a job of the queue goes on with it.
    running = site.bench.start("retrain", site.loop, order)
    wait_until(
        lambda: "train:" in running.files[1].read_text() or running.process.poll() is not None
        or any("train: run" in one["message"] for one in site.bench.events(order)),
        300,
        lambda: "it has trained: " + running.files[1].read_text()[-3000:],
    )  # fmt: skip
    running.process.kill()
    assert running.ended().code == -9
    assert site.pool().counts()["kept"] == 30
    site.pool().add([row(99, "too late")])
    site.run("queue", "work", "--until-empty", "--every", "0.5", timeout_s=600)

    (ordered,) = site.orders()
    assert (ordered["outcome"], site.production()) == ("succeeded", "1.1.0"), ordered
    counts = site.pool().counts()
    assert (counts["used"], counts["free"]) == (30, 1), "who came meanwhile waits for the next"
    shown = site.bench.show(order)
    assert (shown["run"]["kind"], shown["run"]["state"]) == ("retrain", "succeeded")
    record = json.loads((site.artifact(order, "record") / "record.json").read_text())
    known = {step["name"]: step["was_known"] for step in record["steps"]}
    assert list(known) == [
        "rows", "prepare", "train", "baseline", "evaluate", "compare", "release", "production",
    ]  # fmt: skip
    assert known["rows"] and known["train"] and not known["production"]
    assert record["rows"]["num_fresh"] + record["rows"]["num_held_out"] == 30
    assert record["rows"]["num_old"] == record["rows"]["num_fresh"], "as many old rows as fresh ones"
    assert "row" in record["order"]["reasons"][0]

    done = site.bench.run("retrain", site.loop, order, "--json")
    assert done.code == 2 and "done with" in done.error["what"]
    entries = site.run("registry", "log", NAME).object["entries"]
    moves = [one["details"]["version"] for one in entries if one["action"] == "move"]
    assert moves == ["1.0.0", "1.1.0"], "it went to production once"

    forgotten = site.run("data", "forget", "user 1").object
    assert [(one["version"], one["aliases"]) for one in forgotten["versions"]] == [("1.1.0", ["production"])]

    refuses_what_has_no_rows(site)


def refuses_what_has_no_rows(site: Site) -> None:
    """Its order is settled with the reason, people are told, and production stays."""
    site.pool().add([row(number, "one") for number in range(200, 220)])
    order = site.run("loop", "run", site.loop).object["queued"]
    assert order == "grow-000002"
    site.pool().forget(pseudonym("one"))
    site.pool().forget(pseudonym("too late"))
    failed = site.bench.run("retrain", site.loop, order, "--json")
    assert failed.code == 3, failed.told()
    assert "0 rows to learn from" in failed.error["what"]
    ordered = site.orders()[0]
    assert ordered["outcome"] == "failed" and "0 rows" in ordered["why"]
    alerts = [json.loads(one.read_text()) for one in (site.bench.home / "alerts").glob("*.json")]
    titles = {one["title"] for one in alerts}
    assert {f"{order} has failed", "grow-000001: a new version is in production"} <= titles
    assert site.production() == "1.1.0"
