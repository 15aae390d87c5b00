"""The sinks of one run, as its recipe asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raytrain.runs.folder import METRICS_FILE, TENSORBOARD_FOLDER
from raytrain.runs.record_types import RunRecord, RunState
from raytrain.runs.records import Records
from raytrain.runs.section import TrackingSection
from raytrain.runs.sinks.background import BackgroundSink, Warn
from raytrain.runs.sinks.database import DatabaseSink
from raytrain.runs.sinks.jsonl import JsonlSink
from raytrain.runs.sinks.mlflow import MlflowSink
from raytrain.runs.sinks.sink import MetricSink
from raytrain.runs.sinks.tensorboard import TensorBoardSink
from raytrain.runs.sinks.wandb import WandbSink
from raytrain.storage.home import run_folder


class MetricSinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self._sinks = sinks

    def open(self) -> None:
        for sink in self._sinks:
            sink.open()

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write(global_step, time, metrics)

    def rewind(self, global_step: int) -> None:
        for sink in self._sinks:
            sink.rewind(global_step)

    def close(self, state: RunState) -> None:
        for sink in self._sinks:
            sink.close(state)


def build_sinks(tracking: TrackingSection, run: RunRecord, records: Records, warn: Warn) -> MetricSinks:
    """metrics.jsonl is written at once, what can fail or wait is written behind it.

    `warn` is called, also from other threads, when a tracker fails and when rows were lost. Raises
    ConfigError where an extra that the recipe asks for is not installed.
    """
    folder = run_folder(run.id)
    behind: list[tuple[str, MetricSink]] = [("the records database", DatabaseSink(records, run.id))]
    if tracking.tensorboard:
        behind.append(("TensorBoard", TensorBoardSink(folder / TENSORBOARD_FOLDER)))
    if tracking.mlflow is not None:
        behind.append(("MLflow", MlflowSink(tracking.mlflow, tracking.mlflow_experiment, run)))
    if tracking.wandb is not None:
        behind.append(("W&B", WandbSink(tracking.wandb, tracking.wandb_mode, run, folder)))
    return MetricSinks(
        [JsonlSink(folder / METRICS_FILE), *(BackgroundSink(sink, name, warn) for name, sink in behind)]
    )
