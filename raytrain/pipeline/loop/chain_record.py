"""The whole chain as one record: which window tripped which rule, what was trained, what decided, what it cost."""

from __future__ import annotations

import json
import time as clock
from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.monitoring.triggers.state import Order, Outcome
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.recipe import StepResult
from raytrain.runs.cost import Line, total
from raytrain.runs.records import Records
from raytrain.runs.spent import spent
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

KIND = "retraining"
RECORD_FILE = "record.json"


@dataclass
class Chain:
    """As far as it has come."""

    order: Order
    loop: str
    name: str
    """That is released."""
    began_at: float
    """Of this call: who goes on after a kill begins anew."""
    steps: list[StepResult] = field(default_factory=list)
    plan: RowsPlan | None = None
    version: str | None = None


def recalled(order_id: str, records: Records) -> list[StepResult]:
    """What an earlier call went through between release and production."""
    reports = [
        StepResult(use.kind, "by an earlier call", True, use.uri, use.digest)
        for use in records.artifacts(order_id)
        if use.direction == "written" and use.role == use.kind
    ]
    notes = [one.message for one in records.events(order_id) if one.kind == "note"]
    told = {name: [one for one in notes if one.startswith(f"{name}: ")] for name in ("staging", "canary")}
    return reports + [
        StepResult(name, found[-1].partition(": ")[2], True) for name, found in told.items() if found
    ]


def write_record(place: Location, chain: Chain, outcome: Outcome, why: str, records: Records) -> Artifact:
    """record.json and record.md, over every artifact of the chain. Replaces what a call left that was killed."""
    assert chain.plan is not None, "rows come first"
    plan = chain.plan
    cost = cost_of(chain, records)
    content: dict[str, Any] = {
        "order": {**asdict(chain.order), "reasons": list(chain.order.reasons)},
        "loop": chain.loop,
        "name": chain.name,
        "window": plan.artifact.manifest.parents.get("window"),
        "production": plan.content["production"],
        "rows": {
            name: plan.content.get(name, 0) for name in ("num_fresh", "num_held_out", "num_added", "num_old")
        },
        "version": chain.version,
        "outcome": outcome,
        "why": why,
        "steps": [asdict(step) for step in chain.steps],
        "cost": asdict(cost),
        "began_at": chain.began_at,
        "ended_at": clock.time(),
    }
    parents = {"rows": plan.artifact.digest, **_digests(chain)}
    with ArtifactWriter(place, kind=KIND, parents=parents) as writer:
        text = json.dumps(content, indent=1, sort_keys=True)
        (writer.path / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
        (writer.path / "record.md").write_text(as_markdown(content, cost), encoding="utf-8")
        return writer.commit(collect_provenance(), replace=True)


def _digests(chain: Chain) -> dict[str, str]:
    return {step.name: step.digest for step in chain.steps if step.digest is not None}


def cost_of(chain: Chain, records: Records) -> Line:
    """Of all that was trained and asked in it, also by calls that were killed. What a search has trained and the
    retraining took from it counts once."""
    run_ids = dict.fromkeys(run_id for step in chain.steps for run_id in step.run_ids)
    now = clock.time()
    return total(chain.order.id, [spent(records, records.get_run(run_id), now) for run_id in run_ids])


def as_markdown(content: dict[str, Any], cost: Line) -> str:
    """For people."""
    order = content["order"]
    lines = [
        f"# {order['id']}: {content['outcome'].replace('_', ' ')}",
        "",
        f"{content['why']}.",
        "",
        "Ordered because:",
        "",
        *(f"- {one}" for one in order["reasons"]),
        "",
        f"Window {order['window']} of {order['series']}, report {content['window']}."
        if content["window"]
        else "",
        f"Before it, {content['name']}@{content['production']['version']} was in production.",
        "",
        "| step | what | digest |",
        "|---|---|---|",
        *(
            f"| {one['name']} | {one['told'].replace('|', '/')} | {(one['digest'] or '')[7:19]} |"
            for one in content["steps"]
        ),
        "",
        f"It cost {cost.told()}.",
    ]
    return "\n".join(lines) + "\n"
