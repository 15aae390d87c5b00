"""One contract for every sink, and what is particular to each."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.runs.record_types import RunRecord, RunState
from raytrain.runs.records import Records, open_records
from raytrain.runs.section import TrackingSection
from raytrain.runs.sinks.background import BackgroundSink
from raytrain.runs.sinks.build import build_sinks
from raytrain.runs.sinks.database import DatabaseSink
from raytrain.runs.sinks.jsonl import JsonlSink
from raytrain.runs.sinks.sink import MetricSink
from raytrain.runs.sinks.tensorboard import TensorBoardSink

pytestmark = pytest.mark.slow

RUN_ID = "demo-1a2b"
Series = dict[str, list[tuple[int, float]]]


class Place:
    """A place to write to: how to open a sink over it, and how to read back what any number of sinks left."""

    def __init__(self, open_sink: Callable[[], MetricSink], read: Callable[[], Series]) -> None:
        self.open_sink = open_sink
        self.read = read


def jsonl_place(folder: Path, records: Records, run: RunRecord) -> Place:
    path = folder / "metrics.jsonl"

    def read() -> Series:
        series: Series = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
            for key, value in row["metrics"].items():
                series.setdefault(key, []).append((row["global_step"], float(value)))
        return series

    return Place(lambda: JsonlSink(path), read)


def database_place(folder: Path, records: Records, run: RunRecord) -> Place:
    def read() -> Series:
        found = records.metrics(run.id)
        return {key: [(point.global_step, point.value) for point in points] for key, points in found.items()}

    return Place(lambda: DatabaseSink(records, run.id), read)


def tensorboard_place(folder: Path, records: Records, run: RunRecord) -> Place:
    def read() -> Series:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
        accumulator.Reload()
        return {
            key: [(event.step, event.value) for event in accumulator.Scalars(key)]
            for key in accumulator.Tags()["scalars"]
        }

    return Place(lambda: TensorBoardSink(folder), read)


def mlflow_place(folder: Path, records: Records, run: RunRecord) -> Place:
    pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")
    from mlflow.tracking import MlflowClient

    from raytrain.runs.sinks.mlflow import MlflowSink

    uri = f"sqlite:///{folder / 'mlflow.db'}"

    def read() -> Series:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("tests")
        assert experiment is not None
        (found,) = client.search_runs([experiment.experiment_id])
        return {
            key: [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, key)]
            for key in found.data.metrics
        }

    return Place(lambda: MlflowSink(uri, "tests", run), read)


def background_place(folder: Path, records: Records, run: RunRecord) -> Place:
    below = database_place(folder, records, run)
    return Place(lambda: BackgroundSink(below.open_sink(), "the database", pytest.fail), below.read)


@pytest.fixture
def records() -> Records:
    return open_records()


@pytest.fixture
def run(records: Records) -> RunRecord:
    return records.create_run(RUN_ID, kind="train", name="demo", config={"train": {"learning_rate": 1e-4}})


@pytest.fixture(params=[jsonl_place, database_place, tensorboard_place, background_place, mlflow_place])
def place(request: pytest.FixtureRequest, tmp_path: Path, records: Records, run: RunRecord) -> Place:
    folder = tmp_path / "place"
    folder.mkdir()
    made: Place = request.param(folder, records, run)
    return made


def write_steps(place: Place, steps: range, *, rewind_to: int | None = None) -> None:
    sink = place.open_sink()
    sink.open()
    if rewind_to is not None:
        sink.rewind(rewind_to)
    for step in steps:
        sink.write(step, 1.7e9 + step, {"train/loss": 8 / step})
    sink.close("failed")


def assert_curve(place: Place, steps: range) -> None:
    """One value for each of the steps, to the precision of TensorBoard's 32 bits."""
    points = place.read()["train/loss"]
    assert [step for step, _ in points] == list(steps)
    assert [value for _, value in points] == pytest.approx([8 / step for step in steps])


class TestContract:
    def test_what_is_written_can_be_read(self, place: Place) -> None:
        sink = place.open_sink()
        sink.open()
        sink.write(1, 1.7e9, {"train/loss": 2.5, "train/grad_norm": 1.25})
        sink.write(2, 1.7e9 + 1, {"train/loss": 2.25})
        sink.write(2, 1.7e9 + 1, {"eval/loss": 2.0})
        sink.close("succeeded")
        assert place.read() == {
            "train/loss": [(1, 2.5), (2, 2.25)],
            "train/grad_norm": [(1, 1.25)],
            "eval/loss": [(2, 2.0)],
        }

    def test_a_later_sink_appends(self, place: Place) -> None:
        write_steps(place, range(1, 4))
        write_steps(place, range(4, 6))
        assert [step for step, _ in place.read()["train/loss"]] == [1, 2, 3, 4, 5]

    def test_a_resumed_run_has_one_value_a_step(self, place: Place) -> None:
        write_steps(place, range(1, 8))
        write_steps(place, range(5, 11), rewind_to=4)
        assert_curve(place, range(1, 11))

    def test_a_rewind_in_one_session(self, place: Place) -> None:
        sink = place.open_sink()
        sink.open()
        for step in (1, 2, 3):
            sink.write(step, 1.7e9, {"train/loss": 8 / step})
        sink.rewind(1)
        for step in (2, 3, 4):
            sink.write(step, 1.7e9, {"train/loss": 8 / step})
        sink.close("succeeded")
        assert_curve(place, range(1, 5))

    def test_nan_and_infinities_are_values(self, place: Place) -> None:
        sink = place.open_sink()
        sink.open()
        for step, value in enumerate((math.nan, math.inf, -math.inf)):
            sink.write(step, 1.7e9, {"train/loss": value})
        sink.close("failed")
        nan, *infinities = [value for _, value in place.read()["train/loss"]]
        assert math.isnan(nan)
        # MLflow's SQL store holds the infinities as the greatest double.
        assert [value > 1e308 for value in infinities] == [True, False]
        assert infinities[1] < -1e308

    def test_a_key_in_any_script(self, place: Place) -> None:
        sink = place.open_sink()
        sink.open()
        sink.write(1, 1.7e9, {"eval/precisión/日本": 1.0})
        sink.close("succeeded")
        assert place.read() == {"eval/precisión/日本": [(1, 1.0)]}

    def test_rewinding_what_is_empty(self, place: Place) -> None:
        write_steps(place, range(1, 3), rewind_to=0)
        assert len(place.read()["train/loss"]) == 2


@pytest.mark.parametrize(
    ("torn", "steps"),
    [
        (b'{"global_step": 2, "time": 1, "metr', [1, 3]),
        (b'{"global_step": 2, "time": 1, "metrics": {"train/loss": 1.0}}', [1, 2, 3]),
        (b"\x00\x00\x00\x00", [1, 3]),
    ],
)
def test_a_half_written_last_line_is_mended(tmp_path: Path, torn: bytes, steps: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"global_step": 1, "time": 1, "metrics": {"train/loss": 2.0}}\n' + torn)
    sink = JsonlSink(path)
    sink.open()
    sink.write(3, 1.0, {"train/loss": 0.5})
    sink.close("succeeded")
    assert [json.loads(line)["global_step"] for line in path.read_text().splitlines()] == steps


def test_tensorboard_needs_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from raytrain.runs.sinks.tensorboard import TensorBoardSink

sink = TensorBoardSink(Path({str(tmp_path)!r}))
sink.open()
sink.write(1, 1.0, {{"a": 1.0}})
sink.close("succeeded")
assert "torch" not in sys.modules and "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class FlakySink:
    """Fails as often as it is told to."""

    def __init__(self, num_failures: float) -> None:
        self.num_failures = num_failures
        self.steps: list[int] = []
        self.state: RunState | None = None
        self.released = threading.Event()
        self.released.set()

    def _fail(self) -> None:
        self.released.wait()
        if self.num_failures > 0:
            self.num_failures -= 1
            raise ConnectionError("no route to the tracker")

    def open(self) -> None:
        self._fail()

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        self._fail()
        self.steps.append(global_step)

    def rewind(self, global_step: int) -> None:
        self._fail()
        self.steps = [step for step in self.steps if step <= global_step]

    def close(self, state: RunState) -> None:
        self.state = state


class TestBackground:
    def test_an_outage_is_bridged_and_told_once(self) -> None:
        flaky, told = FlakySink(num_failures=4), []
        sink = BackgroundSink(flaky, "MLflow", told.append, first_pause_s=0.01)
        sink.open()
        for step in range(20):
            sink.write(step, 0.0, {"a": 1.0})
        sink.close("succeeded")
        assert flaky.steps == list(range(20))
        assert flaky.state == "succeeded"
        assert len(told) == 1
        assert "no route to the tracker" in told[0]

    def test_a_tracker_that_never_comes_back_costs_its_rows_and_no_more(self) -> None:
        told: list[str] = []
        sink = BackgroundSink(
            FlakySink(math.inf), "W&B", told.append, first_pause_s=0.01, close_timeout_s=0.2
        )
        started = time.monotonic()
        sink.open()
        for step in range(7):
            sink.write(step, 0.0, {"a": 1.0})
        sink.close("succeeded")
        assert time.monotonic() - started < 5
        assert sink.num_lost == 7
        assert "did not take 7 rows" in told[-1]

    def test_training_never_waits_for_a_tracker_that_hangs(self) -> None:
        hanging = FlakySink(0)
        hanging.released.clear()
        sink = BackgroundSink(hanging, "MLflow", lambda _: None, capacity=50, close_timeout_s=0.1)
        started = time.monotonic()
        sink.open()
        for step in range(200):
            sink.write(step, 0.0, {"a": 1.0})
        sink.close("failed")
        assert time.monotonic() - started < 5
        assert sink.num_lost == 200
        hanging.released.set()

    def test_the_oldest_rows_go_first(self) -> None:
        slow = FlakySink(0)
        slow.released.clear()
        sink = BackgroundSink(slow, "MLflow", lambda _: None, capacity=3)
        sink.open()
        for step in range(10):
            sink.write(step, 0.0, {"a": 1.0})
        slow.released.set()
        sink.close("succeeded")
        assert slow.steps == [7, 8, 9]
        assert sink.num_lost == 7


@pytest.mark.parametrize("extra", ["mlflow", "wandb"])
def test_an_extra_that_is_absent_is_named(
    extra: str, run: RunRecord, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        build_sinks(TrackingSection(**{extra: "somewhere"}), run, records, pytest.fail)
    assert f"raytrain[{extra}]" in caught.value.fix


def test_the_sinks_of_a_run(run: RunRecord, records: Records, home: Path) -> None:
    sinks = build_sinks(TrackingSection(), run, records, pytest.fail)
    sinks.open()
    sinks.write(1, 1.7e9, {"train/loss": 2.0})
    sinks.rewind(0)
    sinks.write(1, 1.7e9, {"train/loss": 1.5})
    sinks.close("succeeded")
    folder = home / "runs" / RUN_ID
    assert [point.value for point in records.metrics(RUN_ID)["train/loss"]] == [1.5]
    assert (folder / "metrics.jsonl").read_text().count("\n") == 1
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
