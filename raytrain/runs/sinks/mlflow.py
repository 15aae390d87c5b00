"""An MLflow tracking server or store; needs the extra raytrain[mlflow]."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from raytrain.runs.compare import flat
from raytrain.runs.record_types import RunRecord, RunState
from raytrain.runs.sinks.extra import require_extra

_RUN_TAG = "raytrain.run_id"
_MAX_PARAMS_PER_CALL = 100
_MAX_PARAM_CHARS = 6000
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED", "queued": "SCHEDULED"}


class MlflowSink:
    """One MLflow run for one of ours, found again by a tag when the run resumes.

    MLflow cannot forget a value. A resumed run repeats its steps exactly, so the values that are there
    stand and the repeated ones are passed over.
    """

    def __init__(self, tracking_uri: str, experiment: str, run: RunRecord) -> None:
        require_extra("mlflow", "tracking.mlflow")
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run = run
        self._client: Any = None
        self._mlflow_run_id = ""
        self._last_steps: dict[str, int] = {}

    def open(self) -> None:
        # We try again ourselves (BackgroundSink), so MLflow should not spend minutes on each attempt.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        # It tells of its pages on stdout, which belongs to the command (`--json`).
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self._tracking_uri)
        experiment_id = self._experiment_id()
        found = self._client.search_runs(
            [experiment_id], f"tags.`{_RUN_TAG}` = '{self._run.id}'", max_results=1
        )
        if found:
            self._mlflow_run_id = found[0].info.run_id
            self._last_steps = {key: self._last_step(key) for key in found[0].data.metrics}
            self._client.update_run(self._mlflow_run_id, status="RUNNING")
            return
        tags = {_RUN_TAG: self._run.id, "raytrain.config_digest": self._run.config_digest}
        made = self._client.create_run(experiment_id, tags=tags, run_name=self._run.id)
        self._mlflow_run_id = made.info.run_id
        self._log_params()

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        known = self._client.get_experiment_by_name(self._experiment)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException:
            known = self._client.get_experiment_by_name(self._experiment)
            if known is None:
                raise
            return str(known.experiment_id)  # another run made it at the same moment

    def _last_step(self, key: str) -> int:
        history = self._client.get_metric_history(self._mlflow_run_id, key)
        return max(int(point.step) for point in history)

    def _log_params(self) -> None:
        from mlflow.entities import Param

        params = [
            Param(_allowed(key), str(value)[:_MAX_PARAM_CHARS])
            for key, value in flat(self._run.config).items()
        ]
        for start in range(0, len(params), _MAX_PARAMS_PER_CALL):
            self._client.log_batch(self._mlflow_run_id, params=params[start : start + _MAX_PARAMS_PER_CALL])

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        new = {_allowed(key): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in new.items() if global_step > self._last_steps.get(key, -1)}
        if not new:
            return
        milliseconds = int(time * 1000)
        points = [Metric(key, value, milliseconds, global_step) for key, value in new.items()]
        self._client.log_batch(self._mlflow_run_id, metrics=points)
        self._last_steps.update(dict.fromkeys(new, global_step))

    def rewind(self, global_step: int) -> None:
        """The values that are there stand."""

    def close(self, state: RunState) -> None:
        if state in _STATUS:
            self._client.set_terminated(self._mlflow_run_id, _STATUS[state])


def _allowed(key: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", key)
