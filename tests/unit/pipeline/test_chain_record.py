"""What a retraining leaves of itself: the window that led to it, its steps, what it cost."""

from __future__ import annotations

import json
from pathlib import Path

from loops import NAME, make_site, written_plan

from raytrain.monitoring.triggers.state import Order
from raytrain.pipeline.loop.chain_record import Chain, cost_of, write_record
from raytrain.pipeline.recipe import StepResult
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records
from raytrain.storage.location import Location

ORDER = Order("grow-000001", "grow", 1, 1_000.0, ("drift/score above 1",), "watch-1", 3, False)
WINDOW = "sha256:" + "7" * 64


def trained(records: Records, run_id: str, hours: float) -> None:
    """By two workers of one CPU each, at 2 EUR an hour."""
    config = {"scaling": {"num_workers": 2}, "cost": {"cpu_hour": 2.0, "currency": "EUR"}}
    records.create_run(run_id, kind="train", name="n", config=config)
    records.claim_run(run_id, Owner.current(), now=1_000.0)
    records.set_state(run_id, "succeeded", now=1_000.0 + hours * 3600.0)


def test_what_the_search_has_trained_and_is_taken_from_it_costs_once(records: Records) -> None:
    for number, hours in enumerate((0.5, 0.25)):
        trained(records, f"search-{number:04d}", hours)
    chain = Chain(ORDER, "small", NAME, 0.0)
    trials = ("search-0000", "search-0001")
    chain.steps = [
        StepResult("tune", "best of 2 trials", False, None, None, trials),
        StepResult("train", "run search-0001", True, None, None, trials[1:]),
    ]
    cost = cost_of(chain, records)
    assert (cost.num_runs, cost.cpu_hours, cost.gpu_hours, cost.money) == (2, 1.5, 0.0, {"EUR": 3.0})


def test_it_names_its_window_by_the_reports_digest_and_says_what_it_cost(
    tmp_path: Path, records: Records
) -> None:
    site = make_site(tmp_path, records)
    trained(records, "t", 0.5)
    step = StepResult("train", "run t", False, "somewhere", "sha256:" + "9" * 64, ("t",))
    chain = Chain(ORDER, "small", NAME, 1_000.0, [step], written_plan(site, window=WINDOW), "1.1.0")
    record = write_record(Location.parse(tmp_path / "record"), chain, "succeeded", "it is there", records)

    content = json.loads((record.path / "record.json").read_text())
    assert content["window"] == WINDOW and content["order"]["window"] == 3
    assert (content["cost"]["cpu_hours"], content["cost"]["money"]) == (1.0, {"EUR": 2.0})
    told = (record.path / "record.md").read_text()
    assert f"Window 3 of watch-1, report {WINDOW}." in told
    assert "It cost 2.00 EUR (1.00 CPU hours in 1 run)." in told
    assert record.manifest.parents["train"] == "sha256:" + "9" * 64, "lineage leads through it"


def test_without_a_watch_there_is_no_window(tmp_path: Path, records: Records) -> None:
    chain = Chain(ORDER, "small", NAME, 1_000.0, plan=written_plan(make_site(tmp_path, records)))
    record = write_record(Location.parse(tmp_path / "record"), chain, "failed", "it ended", records)
    assert json.loads((record.path / "record.json").read_text())["window"] is None
    assert "Window" not in (record.path / "record.md").read_text()
