"""What a registry says, shown in MLflow's model registry as well: versions, metrics, lineage, tags, aliases.

MLflow has no compare-and-set, and anybody may change what is there: it is a mirror, and never asked what is released.
Each of our versions becomes a run, which holds the metrics and the journal's entry, and a model version that names it.
`follow` does what is still missing, in whatever state it finds the mirror, and may be stopped anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from raytrain.errors import EndpointError
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import Released, State
from raytrain.runs.sinks.extra import require_extra

EXPERIMENT = "raytrain registry"
_ENTRY, _VERSION = "raytrain.entry", "raytrain.version"
_OURS = ("raytrain.", "made_from.")
_LONGEST_TAG = 4_000
_MOST_ROUNDS = 8


@dataclass(frozen=True)
class Step:
    """One thing in which the mirror differs, and what makes it alike."""

    what: str
    act: Callable[[], Any]


class MlflowMirror:
    """Of any number of names, at one tracking server."""

    def __init__(self, tracking_uri: str) -> None:
        require_extra("mlflow", "--mlflow")
        # A person waits, and runs the command again: it should not take minutes to say that nobody answers.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        self.uri = tracking_uri
        self._client: Any = MlflowClient(tracking_uri=tracking_uri)

    def follow(self, registry: Registry, name: str) -> list[str]:
        """Make the mirror say what the registry says; returns what was done.

        Raises EndpointError where the server does not answer: what is missing then is done by the next call.
        """
        done: list[str] = []
        state = registry.state(name)
        with self._told(f"publish {name}", name):
            # Steps name versions that earlier ones make, hence again until there is none.
            for _ in range(_MOST_ROUNDS):
                steps = self._steps(registry, name, state)
                if not steps:
                    return done
                for one in steps:
                    one.act()
                    done.append(one.what)
        raise EndpointError(
            f"MLflow at {self.uri} does not keep what it is told of {name}",
            why=steps[0].what,
            fix="look whether somebody else changes it at the same time, then publish again",
        )

    def drift(self, registry: Registry, name: str) -> list[str]:
        """In what the mirror differs, and what in it is none of ours. Changes nothing. Raises EndpointError."""
        state = registry.state(name)
        with self._told(f"look at {name}", name):
            strangers = [
                f"{name}: MLflow's version {one.version} is none of the registry's"
                for one in self._versions(name)
                if one.tags.get(_VERSION) not in map(str, state.versions)
            ]
            return [one.what for one in self._steps(registry, name, state)] + strangers

    def _steps(self, registry: Registry, name: str, state: State) -> list[Step]:
        found = self._client.search_registered_models(f"name = '{name}'")
        if not found:
            tags = {"raytrain.registry": registry.place}
            return [
                Step(f"{name} is not there", partial(self._client.create_registered_model, name, tags=tags))
            ]
        mirrored: dict[str, Any] = {}
        steps: list[Step] = []
        for one in sorted(self._versions(name), key=lambda one: int(one.version)):
            version = one.tags.get(_VERSION)
            if version in mirrored:
                act = partial(self._client.delete_model_version, name, one.version)
                steps.append(Step(f"{name}@{version} is there twice", act))
            elif version is not None:
                mirrored[version] = one
        missing = [one for key, one in state.versions.items() if str(key) not in mirrored]
        if missing:
            create = partial(self._create, registry, name, state)
            return steps + [
                Step(f"{name}@{one.version} is not there", partial(create, one)) for one in missing
            ]
        for released in state.versions.values():
            steps += self._tag_steps(
                name, mirrored[str(released.version)], _tags(registry, name, released, state)
            )
        wanted = {alias: str(mirrored[str(version)].version) for alias, version in state.aliases.items()}
        return steps + self._alias_steps(name, found[0].aliases, wanted)

    def _tag_steps(self, name: str, mirrored: Any, wanted: Mapping[str, str]) -> Iterator[Step]:
        for key, value in wanted.items():
            if mirrored.tags.get(key) != value:
                what = (
                    f"{name}@{wanted[_VERSION]}: {key} is {mirrored.tags.get(key)!r} and should be {value!r}"
                )
                yield Step(
                    what, partial(self._client.set_model_version_tag, name, mirrored.version, key, value)
                )
        for key in mirrored.tags:
            if key.startswith(_OURS) and key not in wanted:
                what = f"{name}@{wanted[_VERSION]}: {key} should not be there"
                yield Step(what, partial(self._client.delete_model_version_tag, name, mirrored.version, key))

    def _alias_steps(self, name: str, there: Mapping[str, Any], wanted: Mapping[str, str]) -> list[Step]:
        steps = []
        for alias, number in wanted.items():
            if str(there.get(alias)) != number:
                what = f"{name}@{alias} is MLflow's version {there.get(alias)} and should be {number}"
                steps.append(
                    Step(what, partial(self._client.set_registered_model_alias, name, alias, number))
                )
        for alias in there.keys() - wanted.keys():
            act = partial(self._client.delete_registered_model_alias, name, alias)
            steps.append(Step(f"{name}@{alias} should not be there", act))
        return steps

    def _create(self, registry: Registry, name: str, state: State, released: Released) -> None:
        """The run whole, then the version: whoever is killed between leaves a run that the next one finds."""
        from mlflow.entities import Metric

        run = self._run(name, released)
        run_id = run.info.run_id
        at = int(datetime.fromisoformat(released.entry.time).timestamp() * 1000)
        metrics = released.entry.details.get("metrics", {})
        points = [
            Metric(key, float(value), at, 0) for key, value in metrics.items() if key not in run.data.metrics
        ]
        if points:
            self._client.log_batch(run_id, metrics=points)
        self._client.log_dict(run_id, vars(released.entry), "release/entry.json")
        self._client.set_terminated(run_id, "FINISHED")
        place = registry.store.bundle_place(name, released.digest.removeprefix("sha256:"))
        source = place if "://" in place else f"runs:/{run_id}/release"
        tags = _tags(registry, name, released, state)
        self._client.create_model_version(
            name, source, run_id, tags=tags, description=released.entry.why, await_creation_for=0
        )

    def _run(self, name: str, released: Released) -> Any:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known is not None else self._client.create_experiment(EXPERIMENT)
        mark = f"{name} {released.entry.token or released.entry.number}"
        found = self._client.search_runs([experiment], f"tags.`{_ENTRY}` = '{mark}'", max_results=1)
        if found:
            return found[0]
        tags = {_ENTRY: mark, _VERSION: str(released.version), "raytrain.digest": released.digest}
        return self._client.create_run(experiment, tags=tags, run_name=f"{name}@{released.version}")

    def _versions(self, name: str) -> list[Any]:
        found: list[Any] = []
        page = None
        while True:
            part = self._client.search_model_versions(f"name = '{name}'", max_results=200, page_token=page)
            found += part
            page = part.token
            if not page:
                return found

    @contextmanager
    def _told(self, action: str, name: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            raise EndpointError(
                f"MLflow at {self.uri}: cannot {action}",
                why=_shortened(str(error).strip().split("\n")[0]),
                fix="the registry is whole, and is what counts. Once MLflow answers: "
                f"raytrain registry publish {name} --mlflow {self.uri}",
            ) from error


def _shortened(text: str) -> str:
    """Its beginning says what was asked, its end why that did not work."""
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"


def _tags(registry: Registry, name: str, released: Released, state: State) -> dict[str, str]:
    """What a version is, was made from, and is called."""
    place = registry.store.bundle_place(name, released.digest.removeprefix("sha256:"))
    entry = released.entry
    tags = {
        _VERSION: str(released.version),
        "raytrain.digest": released.digest,
        "raytrain.subject": str(entry.details.get("subject", released.digest)),
        "raytrain.place": place,
        "raytrain.released": entry.time,
        "raytrain.by": entry.who,
        "raytrain.tags": ", ".join(sorted(state.tags[released.version])),
    }
    tags |= {f"made_from.{role}": digest for role, digest in released.made_from.items()}
    return {key: value[:_LONGEST_TAG] for key, value in tags.items() if value}
