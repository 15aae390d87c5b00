"""The loop for real, on a tiny model: an order from its rows to production, killed on its way, and what it leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench import Bench, Outcome, wait_until, write_recipe, write_rows
from suites import write_suite

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
NAME = "sums"


def row(number: int, user: str) -> PooledRow:
    return PooledRow(
        f"{number:032x}", 1_000.0 + number, pseudonym(user), f"{NAME}@1.0.0", "d",
        ({"role": "user", "content": f"Room {number}: add {number} and {2 * number}."},),
        f"The sum is {3 * number}.", "correction", 1.0, "ready",
    )  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A released version, and a loop around it."""

    bench: Bench
    loop: Path
    triggers: Path

    def run(self, *words: str | Path, timeout_s: float = 300) -> Outcome:
        done = self.bench.run(*words, "--json", timeout_s=timeout_s)
        assert done.code == 0, done.told()
        return done

    def pool(self) -> InteractionPool:
        from raytrain.storage.database import open_database

        return InteractionPool(open_database(f"sqlite:///{self.bench.home / 'raytrain.db'}"))

    def production(self) -> str:
        return str(self.run("registry", "show", NAME).object["aliases"]["production"])

    def orders(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("triggers", "orders").object["orders"]
        return found


@pytest.fixture
def site(joined: Bench, tiny_llama: Path, tmp_path: Path) -> Site:
    rows = [
        {"question": f"Case {i}: add {i} and {i + 7}.", "answer": f"The sum is {2 * i + 7}."}
        for i in range(40)
    ]
    recipe = write_recipe(
        tmp_path / "learn.yaml",
        model=tiny_llama,
        rows=write_rows(tmp_path / "rows.jsonl", rows),
        train={"max_steps": 3, "eval_every": 3, "save_every": 3, "warmup_steps": 0, "hooks": []},
        scaling={"num_workers": 1},
    )
    content = yaml.safe_load(recipe.read_text())
    content["model"]["chat_template"] = TEMPLATE
    recipe.write_text(yaml.safe_dump(content))
    write_suite(tmp_path, "cases", rows[:8], like="texts", answer="{question} {answer}")
    asked = "{messages[0].content} {messages[1].content}"
    like = write_suite(tmp_path, "asked", rows[:2], like="texts", answer=asked)
    lenient = {"suite": "*", "min_gain": None, "max_loss": None}
    contract = {"contract": "any", "suites": [lenient], "overall": {"min_gain": 0.0, "min_power": None}}
    policy = {
        "policy": "tiny", "contract": "contract.yaml",
        "targets": [{"to": "production", "reports": [], "documents": []}],
    }  # fmt: skip
    triggers = {"triggers": "grow", "when": {"new_rows": {"at_least": 20}}, "cooldown_hours": 0}
    loop = {
        "loop": "tiny", "release": NAME, "triggers": "triggers.yaml", "learning": None, "fall": None,
        "rows": {"replay": 1.0, "least": 10, "held_out": 0.2}, "suites": ["cases.yaml"], "fresh_suite": like.name,
        "gate": "policy.yaml", "prompts": "prompts.jsonl", "queue": {"retries": 1},
        "overrides": ["train.max_steps=12", "train.eval_every=12", "train.save_every=12"],
    }  # fmt: skip
    for name, content in {"contract": contract, "policy": policy, "triggers": triggers, "loop": loop}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "Case 1: add 1 and 8."}) + "\n")
    one = Site(joined, tmp_path / "loop.yaml", tmp_path / "triggers.yaml")
    assert joined.address is not None
    joined.environment = {**joined.environment, "RAY_ADDRESS": joined.address}
    trained = one.run("train", recipe).object
    one.run("keys", "generate")
    bundle = one.run("export", trained["run_id"], "--prompts", tmp_path / "prompts.jsonl").object["bundle"]
    one.run("sign", bundle)
    one.run("registry", "add", f"{NAME}@1.0.0", bundle, "--why", "the first")
    one.run("promote", f"{NAME}@1.0.0", "--to", "production", "--policy", tmp_path / "policy.yaml")
    return one


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
    place = next(
        Path(one["uri"].removeprefix("file://")) for one in shown["artifacts"] if one["role"] == "record"
    )
    record = json.loads((place / "record.json").read_text())
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
