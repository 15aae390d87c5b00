"""A released version of a tiny model, with a loop around it that has rows to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bench import Bench, Outcome, write_recipe, write_rows
from suites import write_suite

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
NAME = "sums"
SIMPLE = ({"to": "production", "reports": [], "documents": []},)
"""A gate's targets."""
ADAPTER: Mapping[str, Mapping[str, Any]] = {"model": {"chat_template": TEMPLATE}, "adapter": {}, "train": {}}
WHOLE: Mapping[str, Mapping[str, Any]] = {
    "model": {"chat_template": None},
    "adapter": {"method": "full"},
    "train": {"learning_rate": 5e-3},
}
"""All weights, and the model's own template: an adapter over random ones cannot learn eight rows by heart, which the
check of the pipeline asks."""
NUM_ROWS = 40


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
    folder: Path
    model: str
    """What was trained of the version."""

    @property
    def loop(self) -> Path:
        return self.folder / "loop.yaml"

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

    def artifact(self, order: str, role: str) -> Path:
        """Its folder, of an order's run."""
        uris = [one["uri"] for one in self.bench.show(order)["artifacts"] if one["role"] == role]
        return Path(uris[0].removeprefix("file://"))


def put_up(
    bench: Bench,
    tiny_llama: Path,
    folder: Path,
    *,
    targets: tuple[Mapping[str, Any], ...] = SIMPLE,
    learns: Mapping[str, Mapping[str, Any]] = ADAPTER,
    **loop: Any,
) -> Site:
    """Version 1.0.0 goes to production by the gate, whatever reports that asks for later. learns: sections of its
    recipe; loop: further keys of the loop's file."""
    rows = [
        {"question": f"Case {i}: add {i} and {i + 7}.", "answer": f"The sum is {2 * i + 7}."}
        for i in range(NUM_ROWS + 8)
    ]
    recipe = write_recipe(
        folder / "learn.yaml",
        model=tiny_llama,
        rows=write_rows(folder / "rows.jsonl", rows[:NUM_ROWS]),
        scaling={"num_workers": 1},
        adapter=dict(learns["adapter"]),
        train={
            "max_steps": 3,
            "eval_every": 3,
            "save_every": 3,
            "warmup_steps": 0,
            "hooks": [],
            **learns["train"],
        },
    )
    content = yaml.safe_load(recipe.read_text())
    content["model"]["chat_template"] = learns["model"]["chat_template"]
    recipe.write_text(yaml.safe_dump(content))
    write_suite(folder, "cases", rows[NUM_ROWS:], like="texts", answer="{question} {answer}")
    asked = "{messages[0].content} {messages[1].content}"
    like = write_suite(folder, "asked", rows[:2], like="texts", answer=asked)
    lenient = {"suite": "*", "min_gain": None, "max_loss": None}
    files = {
        "contract": {"contract": "any", "suites": [lenient], "overall": {"min_gain": 0.0, "min_power": None}},
        "policy": {
            "policy": "tiny", "contract": "contract.yaml", "targets": [dict(one) for one in targets],
            "roles": [{"role": "lead", "keys": ["default"]}],
        },
        "triggers": {"triggers": "grow", "when": {"new_rows": {"at_least": 20}}, "cooldown_hours": 0},
        "loop": {
            "loop": "tiny", "release": NAME, "triggers": "triggers.yaml", "learning": None, "fall": None,
            "rows": {"replay": 1.0, "least": 10, "held_out": 0.2}, "suites": ["cases.yaml"], "fresh_suite": like.name,
            "gate": "policy.yaml", "prompts": "prompts.jsonl", "queue": {"retries": 1},
            "overrides": ["train.max_steps=12", "train.eval_every=12", "train.save_every=12"], **loop,
        },
    }  # fmt: skip
    for name, found in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(found))
    write_rows(folder / "prompts.jsonl", [{"prompt": "Case 1: add 1 and 8."}])
    assert bench.address is not None
    bench.environment = {**bench.environment, "RAY_ADDRESS": bench.address}
    trained = bench.run("train", recipe, "--json")
    assert trained.code == 0, trained.told()
    one = Site(bench, folder, trained.object["run_id"])
    one.run("keys", "generate")
    bundle = one.run("export", one.model, "--prompts", folder / "prompts.jsonl").object["bundle"]
    one.run("sign", bundle)
    one.run("registry", "add", f"{NAME}@1.0.0", bundle, "--why", "the first")
    words = ["promote", f"{NAME}@1.0.0", "--to", "production", "--policy", str(folder / "policy.yaml")]
    if targets != SIMPLE:
        words += ["--override", "--role", "lead", "--why", "the first has nothing before it"]
    one.run(*words)
    return one
