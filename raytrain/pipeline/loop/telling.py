"""What people are told of a retraining that has ended."""

from __future__ import annotations

import json

from raytrain.monitoring.alerts.alert import Alert
from raytrain.pipeline.loop.chain_record import RECORD_FILE
from raytrain.pipeline.loop.retraining import Retrained


def ended_badly(order_id: str, why: str, now: float) -> Alert:
    return Alert(
        kind="retraining",
        subject=order_id,
        severity="warning",
        title=f"{order_id} has failed",
        text=why,
        time=now,
        state="failed",
        event=f"{order_id} failed",
    )


def ended_well(done: Retrained, now: float) -> Alert:
    is_gain = done.outcome == "succeeded"
    return Alert(
        kind="retraining",
        subject=done.order_id,
        severity="info",
        title=f"{done.order_id}: {'a new version is in production' if is_gain else 'no gain'}",
        text="\n".join(
            [done.why if is_gain else f"What was trained is no gain: {done.why}", *_because(done)]
        ),
        time=now,
        details={step.name: step.digest for step in done.steps if step.digest is not None},
        state=done.outcome,
        event=f"{done.order_id} {done.outcome}",
    )


def _because(done: Retrained) -> list[str]:
    """Why it was ordered, as its record says."""
    if done.record is None:
        return []
    told = json.loads((done.record.path / RECORD_FILE).read_text(encoding="utf-8"))
    return ["Ordered because:", *(f"- {one}" for one in told["order"]["reasons"])]
