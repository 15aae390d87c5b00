"""What the demo shows of a watch: what people ask becomes another thing, and that is seen before anybody complains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from jobs.asking_clients import AskingClients
from jobs.month_traffic import NEW_TOOL, Request, changed
from raytrain.errors import EndpointError
from raytrain.evaluation.items import Item
from raytrain.evaluation.results import Evaluation
from raytrain.monitoring.drift.freezing import freeze
from raytrain.monitoring.drift.judged import Judged
from raytrain.monitoring.drift.page import headline
from raytrain.monitoring.drift.section import load_watch
from raytrain.monitoring.drift.watching import look
from raytrain.monitoring.triggers.deciding import decide
from raytrain.monitoring.triggers.observing import look as look_at_windows
from raytrain.monitoring.triggers.section import load_triggers
from raytrain.monitoring.triggers.state import Decision, Seen
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.runs.records import open_records

JOBS = Path(__file__).parent
WINDOW = 20
"""Answers, as jobs/watches/demo.yaml has them."""
FLUSH_S = 0.5
"""So soon the server writes down what it was asked."""
SETTLE_S = 1.0 + 2 * FLUSH_S
"""A watch leaves the last second for later."""


def show_drift(usual: AskingClients, version: str, since: float, prompts: Sequence[str]) -> None:
    """usual: whose answers, those after `since`, are as they should be; prompts: what is asked after that.

    Nothing is ordered. Raises EndpointError where the change is not seen."""
    watch = load_watch(JOBS / "watches" / "demo.yaml")
    time.sleep(SETTLE_S)
    frozen = freeze(watch, now=time.time(), replace=True, since=since)
    # Unrated: what is held against the next version are answers to what was asked before.
    with AskingClients(usual.url, usual.model, prompts, failures=usual.failures) as clients:
        clients.wait_for(version, WINDOW)
    time.sleep(SETTLE_S)
    with closing(open_records()) as records:
        triggers, now = load_triggers(JOBS / "triggers" / "demo.yaml"), time.time()
        reports = look(watch, records, now=now).reports
        seen = look_at_windows(triggers, records, now, Seen())
        decision = decide(triggers, TriggerStore(records.engine).state(triggers.triggers), seen, now)
    show_window([one for one, _ in reports], frozen.reference.num_rows, decision)


def show_window(windows: Sequence[Judged], num_usual: int, decision: Decision) -> None:
    """What was seen, and what would follow. Raises EndpointError where that is nothing."""
    if not windows or not windows[0].alarms or decision.order is None:
        raise EndpointError(
            "nobody has seen that other things are asked",
            why=f"{windows[0].num_rows if windows else 0} answers, held against {num_usual} of before, are no alarm",
            fix="this is a fault of raytrain, please report it",
        )
    first = windows[0]
    print(
        f"seen in the first {first.num_rows} answers, beside {num_usual} of before, score {first.score:.2f}:"
    )
    print(f"  {headline(first)}")
    print(f"would order a retraining ({decision.order.id}): {'; '.join(decision.order.reasons)}")


def other_prompts(num: int, evaluation: Evaluation, item: Item) -> list[str]:
    """All about lights, in other words, as the model reads them: in the frame that an evaluation's prompt has around an
    item's words."""
    words = item.prompt if isinstance(item.prompt, str) else item.prompt[-1]["content"]
    read = next(
        one.prompt for records in evaluation.records.values() for one in records if one.item_id == item.id
    )
    before, found, after = read.partition(words)
    assert found, "it is the item's"
    return [before + one.text + after for one in about_lights(num)]


def about_lights(num: int) -> list[Request]:
    """Of what is asked in the month's second week, that half."""
    return [one for one in changed(2 * num, seed=1) if NEW_TOOL in one.expected]
