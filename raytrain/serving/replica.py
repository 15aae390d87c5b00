"""A replica: one base model, its engine, and the versions that the registry has released over it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raytrain.errors import PlatformError, StorageError
from raytrain.models.inference import tokenizer_digest
from raytrain.models.text_generation import ids_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.store import open_store
from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.opening import CLASSIFIES, WRITES, Admitted, Door
from raytrain.serving.adapters.residents import Residents
from raytrain.serving.adapters.wishes import Wishes
from raytrain.serving.backend import (
    Ask,
    BadPrompt,
    Classified,
    ClassifyAsk,
    Draining,
    ModelCard,
    PromptTooLong,
    Readiness,
    RefusedModel,
    Served,
    Undecided,
    UnknownModel,
    other_task,
)
from raytrain.serving.classification.engines import Engines, NoEngine
from raytrain.serving.classification.texts import TextClassifier
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.request import GenerationRequest, Overloaded, Piece
from raytrain.serving.loading import load_served
from raytrain.serving.routes import Routes
from raytrain.serving.section import ServingSection
from raytrain.serving.trials.watch import Trials
from raytrain.storage.home import raytrain_home

_CHARACTERS_PER_TOKEN = 32
"""No tokenizer's tokens are so long on average: longer prompts are refused without being read."""

_NUM_LOOKUPS = 4
_LOOKUP_S = 5.0
"""For so long whoever asks for a version by its number waits for the registry."""

_START_WITHIN_S = 20.0
"""A registry that cannot be read is tried for so long at the start."""

_ASKED_EVERY_S = 0.5
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
        self.classifier = TextClassifier(
            self._loaded, section.classification, section.engine.max_context_tokens
        )
        self.engine = ContinuousEngine(self._loaded, section.engine) if writes else NoEngine()
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
        self.routes = Routes(door, self.residents, releases.names)
        _read_once(self.routes)
        self._watch = threading.Thread(
            target=self.routes.follow, args=(releases.poll_s,), name="registry", daemon=True
        )
        self._watch.start()
        # Of their own: a registry that hangs would keep threads that read adapters.
        self._lookups = ThreadPoolExecutor(_NUM_LOOKUPS, "lookup")
        self.trials = Trials(section.trials, self.routes, self.residents)
        self.trials.refresh()
        self._trial_watch = threading.Thread(
            target=self.trials.follow, args=(releases.poll_s,), name="trials", daemon=True
        )
        self._trial_watch.start()

    async def generate(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        """See `Backend`."""
        if self.wishes.wanted.is_draining:
            raise Draining
        self._refuse_mirror_of_a_full_queue(ask)
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
        request = self._request(ask, route)
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Piece]()

        def tell(piece: Piece) -> None:
            loop.call_soon_threadsafe(told.put_nowait, piece)

        async with _Entered(self.residents, route):
            self.engine.submit(request, tell)
            try:
                yield replace(self._served(route), arm=arm)
                while True:
                    piece = await told.get()
                    yield piece
                    if piece.finish is not None:
                        break
            finally:
                self.engine.cancel(request.id)

    async def classify(self, ask: ClassifyAsk) -> Classified:
        """See `Backend`."""
        if self.wishes.wanted.is_draining:
            raise Draining
        self.answering += 1
        try:
            return await self._classify(ask)
        finally:
            self.answering -= 1

    async def _classify(self, ask: ClassifyAsk) -> Classified:
        route = await self._route(ask.model)
        self._check_task(route, CLASSIFIES)
        assert route is not None, "the base model by itself classifies nothing"
        texts = self.classifier.encoded(ask)
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
        problems += [f"{name} is in production and not loaded" for name in cold]
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
            "registry_unreadable": int(table.complaint is not None),
            "draining": int(is_draining),
            "kept": len(self.wishes.kept),
            "answering": self.answering,
        }
        is_ready = self.is_alive and not cold and not is_draining
        return Readiness(is_ready, self.base, production, tuple(problems), numbers, self.trials.states())

    @property
    def is_alive(self) -> bool:
        """Whether both engines take turns."""
        return self.engine.is_alive and self.classifier.engine.is_alive

    def close(self) -> None:
        self.routes.stop()
        self.trials.stop()
        self._lookups.shutdown(wait=False, cancel_futures=True)
        self.wishes.close()
        self.engine.close()
        self.classifier.close()
        self._watch.join(_REGISTRY_ENDS_S)
        self._trial_watch.join(_REGISTRY_ENDS_S)

    def _refuse_mirror_of_a_full_queue(self, ask: Ask) -> None:
        waiting = self.engine.stats().waiting if ask.is_mirror else 0
        if 2 * waiting > self._most_waiting:
            raise Overloaded(waiting, 1.0)

    async def _route(self, model: str) -> Admitted | None:
        """None for the base model by itself."""
        if model == self.base:
            return None
        table = self.routes.table
        reference = model if "@" in model else f"{model}@{PRODUCTION}"
        found = table.aliases.get(reference)
        if found is not None:
            return found
        if reference in table.refused:
            raise RefusedModel(model)
        name, _, wanted = reference.partition("@")
        served = {one.partition("@")[0] for one in table.aliases}
        if name not in served or not wanted[:1].isdigit():
            raise UnknownModel(model, tuple(card.id for card in await self.models()))
        return await self._version(reference)

    async def _version(self, reference: str) -> Admitted:
        """By its number."""
        for one in self.routes.table.aliases.values():
            if f"{one.name}@{one.version}" == reference:
                return one
        found = asyncio.get_running_loop().run_in_executor(self._lookups, self.routes.version, reference)
        try:
            return await asyncio.wait_for(found, _LOOKUP_S)
        except (StorageError, TimeoutError) as error:
            raise Undecided(reference) from error
        except PlatformError as error:
            if error.kind == "config":
                raise UnknownModel(reference, tuple(card.id for card in await self.models())) from error
            raise RefusedModel(reference) from error

    def _check_task(self, route: Admitted | None, wanted: str) -> None:
        found = route.task if route is not None else WRITES if self._writes else None
        if found != wanted:
            raise other_task(self._served(route).model, found)

    @property
    def _writes(self) -> bool:
        return isinstance(self.engine, ContinuousEngine)

    def _request(self, ask: Ask, route: Admitted | None) -> GenerationRequest:
        prompt = ask.prompt
        most = self.engine.max_context_tokens
        if prompt and isinstance(prompt[0], int):
            ids = tuple(int(one) for one in prompt)  # type: ignore[arg-type]
            top = len(self._loaded.tokenizer)
            if any(not 0 <= one < top for one in ids):
                raise BadPrompt(f"a token of the prompt is none of the {top} that the model has", "prompt")
        else:
            ids = self._encoded(prompt, route, most)  # type: ignore[arg-type]
        if not ids:
            raise BadPrompt("the prompt is empty", "prompt")
        room = most - len(ids)
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {len(ids)} tokens, and the model's context is {most} with the answer",
                "prompt",
            )
        wanted = ask.sampling.max_new_tokens
        if wanted > room:
            raise PromptTooLong(
                f"{len(ids)} tokens of prompt and {wanted} of answer exceed the model's context of {most}",
                "max_tokens",
            )
        sampling = ask.sampling if wanted else replace(ask.sampling, max_new_tokens=room)
        if sampling.json_schema is not None:
            self.engine.check_schema(sampling.json_schema)
        return GenerationRequest(ask.id, ids, sampling, None if route is None else route.digest)

    def _encoded(
        self, prompt: str | tuple[dict[str, str], ...], route: Admitted | None, most: int
    ) -> tuple[int, ...]:
        tokenizer = self._loaded.tokenizer
        if isinstance(prompt, str):
            _refuse_long(len(prompt), most)
            return tuple(ids_of(tokenizer, prompt))
        _refuse_long(sum(len(one["content"]) for one in prompt), most)
        template = (route.chat_template if route is not None else None) or tokenizer.chat_template
        if not template:
            raise BadPrompt("the model has no chat template: ask /v1/completions", "messages")
        from jinja2 import TemplateError

        try:
            text = tokenizer.apply_chat_template(
                list(prompt), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise BadPrompt(f"the chat template refuses these messages: {error}", "messages") from error
        return tuple(tokenizer(str(text), add_special_tokens=False)["input_ids"])

    def _served(self, route: Admitted | None) -> Served:
        if route is None:
            return Served(self.base, self._base_digest, self._base_digest)
        return Served(f"{route.name}@{route.version}", route.digest, self._base_digest)


class _Entered:
    """An adapter that can answer, and stays while it does."""

    def __init__(self, residents: Residents, route: Admitted | None) -> None:
        self._residents, self._route = residents, route

    async def __aenter__(self) -> None:
        route = self._route
        while route is not None and not self._residents.enter(route.digest):
            try:
                await asyncio.to_thread(self._residents.load, route.digest, route.read)
            except NoRoomError as error:
                raise Overloaded(0, _ADAPTER_RETRY_S) from error
            except PlatformError as error:
                raise RefusedModel(f"{route.name}@{route.version}") from error

    async def __aexit__(self, *_: Any) -> None:
        if self._route is not None:
            self._residents.leave(self._route.digest)


def _read_once(routes: Routes) -> None:
    """Raises StorageError where the registry cannot be read for a while."""
    deadline = time.monotonic() + _START_WITHIN_S
    routes.refresh()
    while (complaint := routes.complaint) is not None:
        if time.monotonic() > deadline:
            raise StorageError(
                "the registry cannot be read, so nobody knows what is to be served",
                why=complaint,
                fix="see that the registry is there; a replica that is started anew needs it",
            )
        time.sleep(_ASKED_EVERY_S)
        routes.refresh()


def _name_of(reference: str) -> str:
    """A hub's own, or the last part of a path without what tells its kind."""
    if "://" not in reference and not Path(reference).exists():
        return reference
    return Path(reference.rpartition("://")[2]).name.removesuffix(".gguf")


def _refuse_long(num_characters: int, most_tokens: int) -> None:
    if num_characters > most_tokens * _CHARACTERS_PER_TOKEN:
        raise PromptTooLong(
            f"the prompt has {num_characters} characters, and the model's context is {most_tokens} tokens",
            "prompt",
        )
