"""The whole chain as one record: which window tripped which rule, what was trained, what decided, what it cost."""

from __future__ import annotations

import json
import time as clock
from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.monitoring.triggers.state import Order, Outcome
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.loop.planning import window_report
from raytrain.pipeline.recipe import StepResult
from raytrain.release.registry.versions import Version
from raytrain.runs.cost import Line, total
from raytrain.runs.records import Records
from raytrain.runs.spent import spent
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

KIND = "retraining"
RECORD_FILE = "record.json"
CANDIDATE = "candidate"
"""Event of an order's run: what it has released."""
_AFTER_REPORTS = ("staging", "canary", "production")


@dataclass
class Chain:
    """As far as it has come."""

    order: Order
    loop: str
    name: str
    """That is released."""
    began_at: float
    """Of this call: who goes on after a kill begins anew. Of an order that failed, of the first one."""
    steps: list[StepResult] = field(default_factory=list)
    plan: RowsPlan | None = None
    version: str | None = None


def note_step(order_id: str, step: StepResult, records: Records) -> None:
    """In the order's run, where `recalled` finds it."""
    known = " (known)" * step.was_known
    records.add_event(order_id, "note", f"{step.name}: {step.told}{known}", {"step": asdict(step)})


def recalled(order_id: str, records: Records) -> list[StepResult]:
    """What earlier calls went through, each step as it was told last; before the gate the reports that it was shown."""
    told: dict[str, StepResult] = {}
    for event in records.events(order_id):
        if (step := event.data.get("step")) is not None:
            told[step["name"]] = StepResult(**{**step, "run_ids": tuple(step["run_ids"]), "was_known": True})
    reports = [
        StepResult(use.kind, "by an earlier call", True, use.uri, use.digest)
        for use in records.artifacts(order_id)
        if use.direction == "written" and use.role == use.kind
    ]
    before = [one for name, one in told.items() if name not in _AFTER_REPORTS]
    return [*before, *reports, *(told[name] for name in _AFTER_REPORTS if name in told)]


def note_candidate(order_id: str, version: Version, records: Records) -> None:
    """What the order has released."""
    records.add_event(order_id, CANDIDATE, f"{version} is its candidate", {"version": str(version)})


def candidate_of(order_id: str, records: Records) -> str | None:
    """The version that the order has released; None where it has not come so far."""
    found = [one.data["version"] for one in records.events(order_id) if one.kind == CANDIDATE]
    return str(found[-1]) if found else None


def write_record(place: Location, chain: Chain, outcome: Outcome, why: str, records: Records) -> Artifact:
    """record.json and record.md, over every artifact of the chain. Replaces what a call left that was killed."""
    plan = {} if chain.plan is None else chain.plan.content
    parents = _digests(chain) | ({} if chain.plan is None else {"rows": chain.plan.artifact.digest})
    window = (
        window_report(records, chain.order)
        if chain.plan is None
        else chain.plan.artifact.manifest.parents.get("window")
    )
    cost = cost_of(chain, records)
    content: dict[str, Any] = {
        "order": {**asdict(chain.order), "reasons": list(chain.order.reasons)},
        "loop": chain.loop,
        "name": chain.name,
        "window": window,
        "production": plan.get("production"),
        "rows": {name: plan.get(name, 0) for name in ("num_fresh", "num_held_out", "num_added", "num_old")},
        "version": chain.version,
        "outcome": outcome,
        "why": why,
        "steps": [asdict(step) for step in chain.steps],
        "cost": asdict(cost),
        "began_at": chain.began_at,
        "ended_at": clock.time(),
    }
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
    order, production = content["order"], content["production"]
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
        f"Before it, {content['name']}@{production['version']} was in production."
        if production
        else "It has written down no rows.",
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
