"""What runs cost, from plain values: prices, hours, sums and estimates."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from raytrain.cluster.section import WorkersSection
from raytrain.runs.cost import Measured, active_seconds, cost_of, estimate, sections_of, summed
from raytrain.runs.cost_section import CostSection
from raytrain.runs.record_types import EventRecord, RunRecord
from raytrain.training.section import TrainSection

HOUR = 3600.0


@pytest.mark.parametrize(
    ("workers", "prices", "money", "cpu_hours", "gpu_hours"),
    [
        ({"num_workers": 4}, {"cpu_hour": 0.05}, 0.4, 8.0, 0.0),
        ({"num_workers": 2, "cpus_per_worker": 0.5}, {"cpu_hour": 0.1}, 0.2, 2.0, 0.0),
        ({"num_workers": [1, 4]}, {"cpu_hour": 0.05}, 0.4, 8.0, 0.0),
        ({"num_workers": 2, "use_gpu": True}, {"gpu_hour": 3.0}, 12.0, 4.0, 4.0),
        ({"num_workers": 2, "use_gpu": True}, {"gpu_hour": 3.0, "cpu_hour": 0.5}, 14.0, 4.0, 4.0),
        (
            {"num_workers": 1, "use_gpu": True, "accelerator_type": "A100"},
            {"gpu_hour": 3.0, "gpu_hours": {"A100": 5.0, "T4": 1.0}}, 10.0, 2.0, 2.0,
        ),
        ({"num_workers": 1, "use_gpu": True}, {"cpu_hour": 0.5}, None, 2.0, 2.0),
        ({"num_workers": 1}, {}, None, 2.0, 0.0),
        ({"num_workers": 5}, {"instances": {"m": 1.5}, "instance": "m", "workers_per_instance": 2}, 9.0, 10.0, 0.0),
    ],
)  # fmt: skip
def test_two_hours(
    workers: dict[str, Any], prices: dict[str, Any], money: float | None, cpu_hours: float, gpu_hours: float
) -> None:
    found = cost_of(2 * HOUR, WorkersSection(**workers), CostSection(**prices))
    assert found.money == (None if money is None else pytest.approx(money))
    assert (found.cpu_hours, found.gpu_hours) == (cpu_hours, gpu_hours)


def test_an_instance_without_a_price() -> None:
    with pytest.raises(ValidationError, match=r"did you mean `g5\.xlarge`\?"):
        CostSection(instances={"g5.xlarge": 1.0}, instance="g5.xlrage")


def run(
    run_id: str = "sums-1", *, state: Any = "succeeded", started_at: float = 0.0, **values: Any
) -> RunRecord:
    config = {"scaling": {"num_workers": 2}, "cost": {"cpu_hour": 1.0}}
    return RunRecord(
        run_id,
        "train",
        run_id.rpartition("-")[0],
        state,
        config,
        "sha256:0",
        0.0,
        started_at=started_at,
        **values,
    )


def state(time: float, name: str) -> EventRecord:
    return EventRecord(time, "state", name, {"state": name})


def test_only_the_time_that_a_run_ran_counts() -> None:
    events = [
        state(10, "running"), EventRecord(15, "note", "", {}), state(40, "cancelled"),
        state(1000, "running"), state(1050, "succeeded"),
    ]  # fmt: skip
    assert active_seconds(run(), events, 9999.0) == 80.0
    assert active_seconds(run(state="running"), events[:4], 1020.0) == 50.0
    assert active_seconds(run(state="failed", heartbeat_at=1030.0), events[:4], 9999.0) == 60.0, (
        "its owner is gone"
    )
    assert active_seconds(run(state="queued"), [], 5.0) == 0.0


def test_sums_by_run_recipe_and_month() -> None:
    def cost(hours: float, **prices: Any) -> Any:
        return cost_of(hours * HOUR, WorkersSection(), CostSection(**prices))

    april, may = 1_776_000_000.0, 1_779_000_000.0
    costs = [
        (run("sums-1", started_at=april), cost(1, cpu_hour=2.0)),
        (run("sums-2", started_at=may), cost(2, cpu_hour=2.0)),
        (run("tool-1", started_at=may), cost(3, cpu_hour=1.0, currency="EUR")),
        (run("tool-2", started_at=may), cost(4)),
    ]
    by_month = {line.key: line for line in summed(costs, "month")}
    assert [line.num_runs for line in by_month.values()] == [1, 3]
    assert by_month["2026-05"].money == {"USD": 4.0, "EUR": 3.0}
    assert by_month["2026-05"].num_unpriced == 1
    recipes = {line.key: (line.cpu_hours, line.money) for line in summed(costs, "recipe")}
    assert recipes == {"sums": (3.0, {"USD": 6.0}), "tool": (7.0, {"EUR": 3.0})}
    assert len(summed(costs, "run")) == 4


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {"base_model": "tiny"},
        "data": {"sources": ["rows.jsonl"], "max_seq_len": 64},
        "train": {"max_steps": None, "num_epochs": 2.0, "global_batch_size": 8, "precision": "float32"},
        "scaling": {"num_workers": 1, "use_gpu": False, "cpus_per_worker": 1.0, "accelerator_type": None},
        "cost": {"cpu_hour": 1.0},
    }
    return {name: {**values, **sections.get(name, {})} for name, values in config.items()}


def steps_of(config: dict[str, Any]) -> Any:
    return TrainSection(**config["train"]).num_steps


@pytest.mark.parametrize(
    ("sections", "steps", "seconds"),
    [
        ({"train": {"max_steps": 900}}, 900, 1800.0 + 60.0),
        ({}, 200, 400.0 + 60.0),
        ({"train": {"num_epochs": 4.0}}, 400, 800.0 + 60.0),
        ({"train": {"global_batch_size": 16}}, 100, 400.0 + 60.0),
        ({"scaling": {"num_workers": 2}}, 200, 200.0 + 60.0),
    ],
)
def test_an_estimate_from_a_run_like_it(sections: dict[str, Any], steps: int, seconds: float) -> None:
    """800 rows; the earlier one may have been a probe of five steps."""
    probe = Measured("sums-1", recipe(train={"max_steps": 5}), [2.0, 2.0, 9.0], 60.0, 800)
    config = recipe(**sections)
    found = estimate(config, steps_of(config), [probe])
    assert found is not None
    assert (found.num_steps, found.seconds, found.from_run) == (steps, pytest.approx(seconds), "sums-1")
    cpus = sections.get("scaling", {}).get("num_workers", 1)
    assert found.cost.money == pytest.approx(seconds / HOUR * cpus)


@pytest.mark.parametrize(
    "sections",
    [{"model": {"base_model": "large"}}, {"scaling": {"use_gpu": True}}, {"train": {"precision": "bfloat16"}},
     {"data": {"sources": ["other.jsonl"]}}],
)  # fmt: skip
def test_no_estimate_from_a_run_unlike_it(sections: dict[str, Any]) -> None:
    config = recipe(**sections)
    assert estimate(config, steps_of(config), [Measured("sums-1", recipe(), [2.0], 0.0, 800)]) is None


def test_where_the_dataset_is_gone_another_run_tells_the_rows() -> None:
    newer, older = Measured("b", recipe(), [2.0], 0.0, None), Measured("a", recipe(), [4.0], 0.0, 800)
    config = recipe()
    assert estimate(config, steps_of(config), [newer]) is None
    found = estimate(config, steps_of(config), [newer, older])
    assert found is not None and (found.num_steps, found.seconds) == (200, 400.0)


def test_a_run_from_before_there_were_prices() -> None:
    workers, prices = sections_of({"scaling": {"num_workers": 3, "strategy": "ddp"}})
    assert (workers.max_workers, prices) == (3, CostSection())
