"""A replica: one base model, its engine, and the versions that the registry has released over it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from raytrain.errors import PlatformError
from raytrain.models.inference import tokenizer_digest
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.store import open_store
from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.opening import CLASSIFIES, WRITES, Door, Servable
from raytrain.serving.adapters.residents import Residents
from raytrain.serving.backend import (
    Ask,
    Classified,
    ClassifyAsk,
    Draining,
    ModelCard,
    Readiness,
    RefusedModel,
    ReplicaLost,
    Served,
    UnknownModel,
    other_task,
)
from raytrain.serving.base_model import load_served
from raytrain.serving.classification.texts import TextClassifier
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.request import Engine, Overloaded, Piece
from raytrain.serving.engine.telling import Telling
from raytrain.serving.engines import Engines, NoEngine
from raytrain.serving.long_texts import LongTexts
from raytrain.serving.lookup import Lookup, NotServed, await_registry
from raytrain.serving.operations.wishes import Wishes
from raytrain.serving.prompts import Prompts, num_characters
from raytrain.serving.routes import Routes
from raytrain.serving.section import ServingSection
from raytrain.serving.trials.watch import Trials
from raytrain.storage.home import raytrain_home

_log = logging.getLogger(__name__)

_REGISTRY_ENDS_S = 5.0
"""A question to the registry that hangs is not waited for at the end."""

_ADAPTER_RETRY_S = 5.0
"""Until one of the adapters that answer now may have made room."""


class Replica:
    """A `Backend` in this process. Ready once it is made; `close` it."""

    def __init__(self, section: ServingSection, name: str = "local") -> None:
        """Reads the base model, verifies and loads what is in production. Raises what either does, StorageError where
        the registry cannot be read: whoever asked such a replica would be told that there are no adapters.

        name: what operators know it by.
        """
        self.name, self.answering = name, 0
        self._loaded, writes = load_served(section)
        with ExitStack() as begun:  # it is closed where what follows raises
            self.classifier = TextClassifier(
                self._loaded, section.classification, section.engine.max_context_tokens
            )
            begun.callback(self.classifier.close)
            self.engine: Engine = ContinuousEngine(self._loaded, section.engine) if writes else NoEngine()
            begun.callback(self.engine.close)
            self.residents = Residents(Engines(self.engine, self.classifier.engine))
            self.base = _name_of(section.base_model)
            self._most_waiting = section.engine.max_waiting
            self._base_digest = str(self._loaded.base.digest)
            releases = section.releases
            registry = Registry(open_store(releases.registry or str(raytrain_home() / "registry")))
            ring = KeyRing(None if releases.keys is None else Path(releases.keys))
            door = Door(
                registry, ring, self._base_digest, tokenizer_digest(self._loaded.tokenizer), releases.policies
            )
            self.wishes = Wishes(door, self.residents, name)
            begun.callback(self.wishes.close)
            self.routes = Routes(door, self.residents, releases.names)
            await_registry(self.routes)
            self._watch = threading.Thread(
                target=self.routes.follow, args=(releases.poll_s,), name="registry", daemon=True
            )
            self._watch.start()
            begun.callback(self.routes.stop)
            self._lookup = Lookup(self.routes)
            begun.callback(self._lookup.close)
            self._texts = LongTexts()
            begun.callback(self._texts.close)
            tokenizer, embeddings = self._loaded.tokenizer, self._loaded.model.get_input_embeddings()
            num_embeddings = int(getattr(embeddings, "num_embeddings", len(tokenizer)))
            self._prompts = Prompts(tokenizer, self.engine, num_embeddings)
            self.trials = Trials(section.trials, self.routes, self.residents)
            self.trials.refresh()
            self._trial_watch = threading.Thread(
                target=self.trials.follow, args=(releases.poll_s,), name="trials", daemon=True
            )
            self._trial_watch.start()
            begun.pop_all()

    async def generate(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        """See `Backend`."""
        if self.wishes.wanted.is_draining:
            raise Draining
        self._refuse_mirror_of_a_full_queue(ask)
        if not self.engine.is_alive:
            raise ReplicaLost(ask.id)  # another one is asked, until Ray Serve has put one in this one's place
        self.answering += 1
        try:
            async with aclosing(self._generate(ask)) as answer:
                async for one in answer:
                    yield one
        finally:
            self.answering -= 1

    async def _generate(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        route, arm = await self._route(ask.model), None
        self._check_task(route, WRITES)
        if route is not None:
            route, arm = self.trials.choose(ask.model, ask.arm, route)
        request = await self._texts.read(
            num_characters(ask.prompt), partial(self._prompts.request, ask, route)
        )
        told = Telling(is_streamed=ask.is_streamed)
        async with _Entered(self.residents, route):
            self.engine.submit(request, told)
            try:
                yield replace(self._served(route), arm=arm)
                while True:
                    piece = await told.next()
                    yield piece
                    if piece.finish is not None:
                        break
            finally:
                self.engine.cancel(request.id)

    async def classify(self, ask: ClassifyAsk) -> Classified:
        """See `Backend`."""
        if self.wishes.wanted.is_draining:
            raise Draining
        if not self.classifier.engine.is_alive:
            raise ReplicaLost(ask.id)
        self.answering += 1
        try:
            return await self._classify(ask)
        finally:
            self.answering -= 1

    async def _classify(self, ask: ClassifyAsk) -> Classified:
        route = await self._route(ask.model)
        self._check_task(route, CLASSIFIES)
        assert route is not None, "the base model by itself classifies nothing"
        texts = await self._texts.read(sum(map(len, ask.texts)), partial(self.classifier.encoded, ask))
        async with _Entered(self.residents, route):
            answers = await self.classifier.classify(texts, route.digest)
        return Classified(self._served(route), route.labels, answers)

    async def models(self) -> list[ModelCard]:
        resident = set(self.residents.resident())
        table = self.routes.table
        cards = [ModelCard(self.base, self._base_digest, 0, (), True)] if self._writes else []
        for reference, one in sorted(table.aliases.items()):
            name, _, alias = reference.partition("@")
            held = one.digest in resident
            if alias == PRODUCTION:
                also = [key for key, other in table.aliases.items() if other.digest == one.digest]
                aliases = tuple(key.partition("@")[2] for key in also if key.partition("@")[0] == name)
                cards.append(
                    ModelCard(name, one.digest, one.created, aliases, held, str(one.version), one.task)
                )
            cards.append(
                ModelCard(reference, one.digest, one.created, (alias,), held, str(one.version), one.task)
            )
        return cards

    def warm_models(self) -> list[str]:
        """Names that are answered without an adapter being read first."""
        resident, table = set(self.residents.resident()), self.routes.table
        held = [(reference, one) for reference, one in table.aliases.items() if one.digest in resident]
        names = {self.base, *(f"{one.name}@{one.version}" for _, one in held), *(key for key, _ in held)}
        names |= {name for name, one in table.production.items() if one.digest in resident}
        return sorted(names)

    async def readiness(self) -> Readiness:
        table, resident = self.routes.table, set(self.residents.resident())
        production = {name: one.digest for name, one in table.production.items() if one.digest in resident}
        cold = sorted(table.production.keys() - production.keys())
        problems = [f"{reference}: {why}" for reference, why in sorted(table.refused.items())]
        problems += [f"{reference}: {why}" for reference, why in sorted(self.routes.slow.items())]
        problems += [f"{name} is in production and not loaded" for name in cold]
        problems += [f"{name} is in production and nothing answers as it" for name in table.unanswered]
        complaint = self.routes.complaint
        problems += [f"the registry cannot be read: {complaint}"] if complaint else []
        problems += self.wishes.problems
        problems += [] if self.engine.is_alive else ["the engine has ended"]
        problems += [] if self.classifier.engine.is_alive else ["the engine that classifies has ended"]
        is_draining = self.wishes.wanted.is_draining
        problems += ["it is drained: no new requests are taken"] if is_draining else []
        numbers = asdict(self.engine.stats()) | self.classifier.engine.numbers()
        residents = self.residents
        numbers |= {"hits": residents.hits, "loads": residents.loads, "evictions": residents.evictions}
        numbers |= {
            "alarms": self.routes.alarms,
            "refused": len(table.refused),
            "registry_unreadable": int(complaint is not None),
            "draining": int(is_draining),
            "kept": len(self.wishes.kept),
            "answering": self.answering,
        }
        is_ready = self.is_alive and not cold and not table.unanswered and not is_draining
        return Readiness(
            is_ready, self.base, production, tuple(problems), {self.name: numbers}, self.trials.states()
        )

    @property
    def is_alive(self) -> bool:
        """Whether both engines take turns."""
        return self.engine.is_alive and self.classifier.engine.is_alive

    def close(self) -> None:
        self.routes.stop()
        self.trials.stop()
        self._lookup.close()
        self._texts.close()
        self.wishes.close()
        self.engine.close()
        self.classifier.close()
        self._watch.join(_REGISTRY_ENDS_S)
        self._trial_watch.join(_REGISTRY_ENDS_S)

    def _refuse_mirror_of_a_full_queue(self, ask: Ask) -> None:
        waiting = self.engine.stats().waiting if ask.is_mirror else 0
        if 2 * waiting > self._most_waiting:
            raise Overloaded(waiting, 1.0)

    async def _route(self, model: str) -> Servable | None:
        """None for the base model by itself."""
        if model == self.base:
            return None
        try:
            return await self._lookup.find(model)
        except NotServed as error:
            raise UnknownModel(model, tuple(card.id for card in await self.models())) from error

    def _check_task(self, route: Servable | None, wanted: str) -> None:
        found = route.task if route is not None else WRITES if self._writes else None
        if found != wanted:
            raise other_task(self._served(route).model, found)

    @property
    def _writes(self) -> bool:
        return isinstance(self.engine, ContinuousEngine)

    def _served(self, route: Servable | None) -> Served:
        if route is None:
            return Served(self.base, self._base_digest, self._base_digest)
        return Served(f"{route.name}@{route.version}", route.digest, self._base_digest)


class _Entered:
    """An adapter that can answer, and stays while it does."""

    def __init__(self, residents: Residents, route: Servable | None) -> None:
        self._residents, self._route = residents, route

    async def __aenter__(self) -> None:
        route, is_hit = self._route, True
        while route is not None and not self._residents.enter(route.digest, is_hit=is_hit):
            is_hit = False
            try:
                await asyncio.to_thread(self._residents.load, route.digest, route.read)
            except NoRoomError as error:
                raise Overloaded(0, _ADAPTER_RETRY_S) from error
            except PlatformError as error:
                reference = f"{route.name}@{route.version}"
                # Nobody has put it there before others; only who runs the server may read why.
                _log.error("ALARM %s is not served: %s: %s", reference, error.what, error.why)
                raise RefusedModel(reference) from error

    async def __aexit__(self, *_: Any) -> None:
        if self._route is not None:
            self._residents.leave(self._route.digest)


def _name_of(reference: str) -> str:
    """A hub's own, or the last part of a path without what tells its kind."""
    if "://" not in reference and not Path(reference).exists():
        return reference
    return Path(reference.rpartition("://")[2]).name.removesuffix(".gguf")
