"""Ray actors that answer: each holds the model, and takes the next unit when it is done with one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from raytrain.cluster.connection import check_capacity, connect, num_placeable
from raytrain.errors import ClusterError, IntegrityError, PlatformError
from raytrain.evaluation.answering.answerer import Unit
from raytrain.evaluation.answering.asking import answer_items
from raytrain.evaluation.answering.local_model import (
    LocalModel,
    absolute_reference,
    find_model,
    identify,
    peak_rss_bytes,
)
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.items import Suite
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluatedModel
from raytrain.models.inference import InferenceModel, LoadedModel
from raytrain.models.packed_reading import reading

_LOOK_EVERY_S = 1.0


class WorkerPool(LocalModel):
    """Answers on as many actors as `scaling` says. One that dies is replaced, and its unit is answered again.

    The same units give the same sums as in one process: a unit is answered whole, by one actor.
    """

    def __init__(self, found: InferenceModel, settings: EvaluateSettings, address: str | None) -> None:
        super().__init__(found, settings, "cuda" if settings.scaling.use_gpu else "cpu")
        self._how = _anywhere(settings, self._template)
        self._address = address
        self._actors: list[Any] = []
        self._num_deaths = 0
        self._peak_rss_bytes = 0

    def answer(self, suite: Suite, units: Sequence[Unit]) -> Iterator[list[ItemRecord]]:
        if not units:
            return
        import ray

        if not self._actors:
            self._start()
        waiting, idle = list(reversed(units)), list(self._actors)
        asked: dict[Any, tuple[Any, Unit]] = {}
        while waiting or asked:
            while waiting and idle:
                actor, unit = idle.pop(), waiting.pop()
                asked[actor.answer.remote(suite.section, unit, suite.digest)] = actor, unit
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=_LOOK_EVERY_S)
            if not ready:
                yield []  # nothing yet: whoever asked may want to stop
                continue
            actor, unit = asked.pop(ready[0])
            try:
                records, peak = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, PlatformError) else error from None
            except ray.exceptions.RayError as error:  # the actor died, its node did, or memory ran out
                waiting.append(unit)
                idle.append(self._replace(actor, error))
                continue
            self._peak_rss_bytes = max(self._peak_rss_bytes, peak)
            idle.append(actor)
            yield records

    def _start(self) -> None:
        connect(self._address, verbose=False)
        scaling = self._how.scaling
        check_capacity(scaling)
        num_actors = max(scaling.min_workers, num_placeable(scaling))
        self._actors = [self._one_more() for _ in range(num_actors)]

    def _one_more(self) -> Any:
        import ray

        scaling = self._how.scaling
        resources = {
            name: amount for name, amount in scaling.worker_resources.items() if name not in ("CPU", "GPU")
        }
        actor = ray.remote(
            num_cpus=scaling.cpus_per_worker,
            num_gpus=1 if scaling.use_gpu else 0,
            resources=resources,
            scheduling_strategy="SPREAD" if "SPREAD" in scaling.placement_strategy else "DEFAULT",
        )(Worker)
        return actor.remote(absolute_reference(self._found.reference), self._how, self.identity, self._device)

    def _replace(self, actor: Any, error: Exception) -> Any:
        import ray

        self._num_deaths += 1
        if self._num_deaths > self._how.scaling.max_failures:
            raise ClusterError(
                "workers died more often than scaling.max_failures allows",
                why=(str(error).strip().splitlines() or [type(error).__name__])[0],
                fix="memory is the usual cause: lower answering.batch_size; the same command goes on where this ended",
            ) from error
        ray.kill(actor)  # one that only cannot be reached would keep its place
        self._actors.remove(actor)
        self._actors.append(self._one_more())
        return self._actors[-1]

    def resources(self) -> dict[str, Any]:
        """Memory is that of the largest actor."""
        scaling = self._how.scaling
        return {
            "peak_rss_bytes": self._peak_rss_bytes or None,
            "num_workers": len(self._actors),
            "threads": scaling.threads,
        }

    def __exit__(self, *details: Any) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


def _anywhere(settings: EvaluateSettings, template: str | None) -> EvaluateSettings:
    """The same settings with no file or folder that only this process finds."""
    answering = settings.answering
    if answering.chat_template is not None:
        answering = answering.model_copy(update={"chat_template": template})
    return settings.model_copy(update={"answering": answering, "storage": settings.storage.resolved()})


def _refuse_another(found: EvaluatedModel, expected: EvaluatedModel) -> None:
    """A machine may hold something else under the same name."""
    names = ("base_digest", "adapter_digest", "tokenizer_digest", "template_digest")
    for name in names:
        if getattr(found, name) != getattr(expected, name):
            raise IntegrityError(
                f"a worker finds another model under {expected.reference}",
                why=f"its {name} is {getattr(found, name)} there, {getattr(expected, name)} here",
                fix="put the same files at the same place on all nodes, or name an artifact by its URI",
            )


class Worker:
    """One actor. It finds the model anew, on whichever machine it is."""

    def __init__(
        self, reference: str, settings: EvaluateSettings, expected: EvaluatedModel, device: str
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._expected = expected
        self._device = device
        self._loaded: LoadedModel | None = None
        self._reading = ExitStack()
        """Until the actor ends."""

    def answer(self, section: Any, unit: Unit, digest: str) -> tuple[list[ItemRecord], int]:
        """The unit's records, and the most memory held so far, in bytes."""
        if self._loaded is None:
            import torch

            torch.set_num_threads(self._settings.scaling.threads)
            found = find_model(self._reference, self._settings)
            _refuse_another(identify(found), self._expected)
            self._loaded = found.load(self._device)
            self._reading.enter_context(reading(self._loaded.model))  # made ready once, not for each unit
        suite = Suite(section, unit, digest)
        size = self._settings.answering.batch_size
        return list(answer_items(self._loaded, suite, unit, batch_size=size)), peak_rss_bytes()
