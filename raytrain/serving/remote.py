"""Replicas behind Ray Serve, as one `Backend`: what was lost with its replica is asked of another one, and who reads it
along does not see that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from raytrain.errors import PlatformError
from raytrain.serving.backend import (
    AnswerFailed,
    Ask,
    BadPrompt,
    Classified,
    ClassifyAsk,
    Draining,
    ModelCard,
    OtherTask,
    Readiness,
    RefusedModel,
    ReplicaLost,
    Served,
    TrialState,
    Undecided,
    UnknownModel,
)
from raytrain.serving.engine.request import Overloaded, Piece
from raytrain.serving.failover import OtherAnswer, ToldSoFar

REFUSALS = (
    UnknownModel, RefusedModel, Undecided, OtherTask, BadPrompt, AnswerFailed, Overloaded, Draining, PlatformError,
)  # fmt: skip
"""What a replica says of a request, in place of an answer."""

_READINESS_TIMEOUT_S = 3.0
_ONE_READINESS_TIMEOUT_S = 1.0
_MODELS_TIMEOUT_S = 3.0
"""Of one try. Where no replica lives, Ray Serve waits for one without end."""

_RETRY_AFTER_S = 2.0


@dataclass(frozen=True)
class Refusal:
    """Crosses from a replica as what it is: Ray wraps what is raised."""

    error: Exception


class RemoteBackend:
    """For the event loop of an ingress."""

    def __init__(self, handle: Any) -> None:
        """handle: of the deployment of `ReplicaProcess`."""
        self._handle = handle

    async def generate(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        """See `Backend`. Raises ReplicaLost where the replica died twice, or once and another one writes another
        answer."""
        if not (ask.is_streamed or ask.is_one_of_several):
            for one in await self._asked(self._handle.answer, ask):
                yield one
            return
        served: Served | None = None
        so_far = ToldSoFar()
        for is_last in (False, True):
            # Asked again by its version: an alias may have moved, and who answers has been told.
            again = ask if served is None else replace(ask, model=served.model, arm=None)
            so_far.begin_anew()
            try:
                async with aclosing(self._once(again)) as answer:
                    async for one in answer:
                        if isinstance(one, Served):
                            if served is None:
                                yield one
                                served = one
                            elif replace(one, arm=served.arm) != served:
                                raise ReplicaLost(ask.id)
                        elif (new := so_far.new_of(one)) is not None:
                            yield new
                return
            except OtherAnswer as error:
                raise ReplicaLost(ask.id) from error
            except ReplicaLost:
                if is_last:
                    raise

    async def classify(self, ask: ClassifyAsk) -> Classified:
        """See `Backend`. What was lost with its replica is asked of another one, once: nothing of it has been told."""
        found: Classified = await self._asked(self._handle.classify, ask)
        return found

    async def _asked(self, method: Any, ask: Ask | ClassifyAsk) -> Any:
        found = await _twice(lambda: _told(method.remote(ask), ask.id))
        if isinstance(found, Refusal):
            raise found.error
        return found

    async def models(self) -> list[ModelCard]:
        """Of whichever replica; of another one where that dies or hangs. Raises ReplicaLost where no other tells them
        either."""
        found: list[ModelCard] = await _twice(
            lambda: _told(self._handle.models.remote(), "models", _MODELS_TIMEOUT_S)
        )
        return found

    async def readiness(self) -> Readiness:
        """Of those that answer: one that has died or hangs is told, and keeps the others from no request."""
        asked = self._handle.broadcast("readiness")
        try:
            found = await asked.results_async(timeout_s=_READINESS_TIMEOUT_S, return_exceptions=True)
        except TimeoutError as error:  # one that hangs leaves nothing of the others
            found = [error, await self._readiness_of_one()]
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody can say that they are ready
            found = [error]
        told = combined([one for one in found if isinstance(one, Readiness)])
        silent = [type(one).__name__ for one in found if not isinstance(one, Readiness)]
        problems = tuple(f"a replica does not answer: {name}" for name in dict.fromkeys(silent))
        return replace(told, problems=problems + told.problems)

    async def _readiness_of_one(self) -> Readiness | Exception:
        """Of whichever Ray Serve thinks the least busy."""
        try:
            async with asyncio.timeout(_ONE_READINESS_TIMEOUT_S):
                found: Readiness = await self._handle.readiness.remote()
        except Exception as error:  # noqa: BLE001 - it does not answer either
            return error
        return found

    async def _once(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        from ray.exceptions import RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        stream = self._handle.options(stream=True).generate.remote(ask)
        has_ended = False
        try:
            async for one in stream:
                if isinstance(one, Refusal):
                    has_ended = True
                    raise one.error
                has_ended = isinstance(one, Piece) and one.finish is not None
                yield one
            if not has_ended:
                raise ReplicaLost(ask.id)
        except BackPressureError as error:
            raise Overloaded(0, _RETRY_AFTER_S) from error
        except (RayError, RayServeException) as error:
            raise ReplicaLost(ask.id) from error
        finally:
            if not has_ended:
                stream.cancel()


async def _twice(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Once more where the replica was lost."""
    try:
        return await ask()
    except ReplicaLost:
        return await ask()


async def _told(asked: Any, name: str, timeout_s: float | None = None) -> Any:
    """What a replica answers that was asked; it is taken back where nobody waits for it any more.

    name: of the question. Raises ReplicaLost, also where it takes longer, and Overloaded.
    """
    from ray.exceptions import RayError
    from ray.serve.exceptions import BackPressureError, RayServeException

    try:
        async with asyncio.timeout(timeout_s):
            return await asked
    except BackPressureError as error:
        raise Overloaded(0, _RETRY_AFTER_S) from error
    except (RayError, RayServeException, TimeoutError) as error:
        asked.cancel()
        raise ReplicaLost(name) from error
    except asyncio.CancelledError:
        asked.cancel()
        raise


def combined(found: Sequence[Readiness]) -> Readiness:
    """What all replicas come to. Pure."""
    if not found:
        return Readiness(False, "", {}, ("no replica answers yet",))
    first = found[0].production
    shared = {
        name: digest
        for name, digest in first.items()
        if all(other.production.get(name) == digest for other in found)
    }
    names = {name for one in found for name in one.production}
    problems = list(dict.fromkeys(problem for one in found for problem in one.problems))
    problems += [f"replicas differ in what they serve as {name}" for name in sorted(names - shared.keys())]
    numbers = {name: told for one in found for name, told in one.numbers.items()}
    is_ready = all(one.is_ready for one in found)
    return Readiness(is_ready, found[0].base, shared, tuple(problems), numbers, _trials(found))


def _trials(found: Sequence[Readiness]) -> tuple[TrialState, ...]:
    """Of each, as a replica says where it does not run; they agree but for the moments after a move."""
    told: dict[str, TrialState] = {}
    for one in (trial for each in found for trial in each.trials):
        if one.name not in told or one.standing != "running":
            told[one.name] = one
    return tuple(told.values())
