"""A registry's mirror in MLflow's model registry: versions, metrics, lineage, tags, aliases.

Each of our versions becomes a run, which holds the metrics and the journal's entry, and a model version that names it.
"""

from __future__ import annotations

from typing import Any

from raytrain.release.registry.mirror import VERSION, Shown, Sight, Told
from raytrain.release.registry.mlflow_client import SCHEMES, client_of, experiment_of
from raytrain.runs.sinks.extra import require_extra

_ENTRY = "raytrain.entry"


class MlflowMirror:
    """Of any number of names, at one tracking server."""

    label = "MLflow"

    def __init__(self, tracking_uri: str) -> None:
        require_extra("mlflow", "--mlflow")
        self.place = tracking_uri
        self.option = f"--mlflow {tracking_uri}"
        self._client, self.faults = client_of(tracking_uri)

    def look(self, name: str) -> Sight:
        model = self._model(name)
        if model is None:
            return Sight()
        found = sorted(self._versions(name), key=lambda one: int(one.version))
        versions = [Shown(str(one.version), dict(one.tags)) for one in found]
        return Sight(versions, {alias: str(number) for alias, number in model.aliases.items()})

    def create(self, told: Told) -> None:
        """The run whole, then the version: whoever is killed between leaves a run that the next one finds."""
        from mlflow.entities import Metric

        if self._model(told.name) is None:
            self._client.create_registered_model(told.name, tags={"raytrain.registry": told.registry})
        run = self._run(told)
        run_id = run.info.run_id
        entry = told.released.entry
        at = int(entry.written_at * 1000)
        points = [
            Metric(key, value, at, 0) for key, value in told.metrics.items() if key not in run.data.metrics
        ]
        if points:
            self._client.log_batch(run_id, metrics=points)
        self._client.log_dict(run_id, vars(entry), "release/entry.json")
        self._client.set_terminated(run_id, "FINISHED")
        # MLflow takes no + in a source, which the place of a registry in MLflow has.
        is_uri = "://" in told.place and not told.place.startswith(SCHEMES)
        source = told.place if is_uri else f"runs:/{run_id}/release"
        self._client.create_model_version(
            told.name, source, run_id, tags=told.facts, description=entry.why, await_creation_for=0
        )

    def delete(self, name: str, shown: Shown) -> None:
        self._client.delete_model_version(name, shown.number)

    def set_fact(self, name: str, shown: Shown, key: str, value: str | None) -> None:
        if value is None:
            self._client.delete_model_version_tag(name, shown.number, key)
        else:
            self._client.set_model_version_tag(name, shown.number, key, value)

    def set_alias(self, name: str, alias: str, shown: Shown) -> None:
        self._client.set_registered_model_alias(name, alias, shown.number)

    def delete_alias(self, name: str, alias: str, _shown: Shown, /) -> None:
        self._client.delete_registered_model_alias(name, alias)

    def _model(self, name: str) -> Any:
        found = self._client.search_registered_models(f"name = '{name}'")
        return found[0] if found else None

    def _run(self, told: Told) -> Any:
        experiment = experiment_of(self._client)
        entry = told.released.entry
        mark = f"{told.name} {entry.token or entry.number}"
        found = self._client.search_runs([experiment], f"tags.`{_ENTRY}` = '{mark}'", max_results=1)
        if found:
            return found[0]
        tags = {_ENTRY: mark, VERSION: told.facts[VERSION], "raytrain.digest": told.released.digest}
        return self._client.create_run(experiment, tags=tags, run_name=str(told))

    def _versions(self, name: str) -> list[Any]:
        found: list[Any] = []
        page = None
        while True:
            part = self._client.search_model_versions(f"name = '{name}'", max_results=200, page_token=page)
            found += part
            page = part.token
            if not page:
                return found
