"""An HTTP endpoint that speaks OpenAI's API as an answerer."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests

from raytrain.errors import ConfigError, EndpointError
from raytrain.evaluation.answering.answerer import Unit
from raytrain.evaluation.answering.attempts import Attempts, said
from raytrain.evaluation.answering.outcomes import failed_record, scored_record
from raytrain.evaluation.answering.settings import EndpointSection
from raytrain.evaluation.items import Item, Suite
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluatedModel
from raytrain.evaluation.scoring.registry import Scorer, build_scorer

_LOOK_EVERY_S = 1.0
_MOST_REFUSALS = 5
_REFUSED = "the endpoint answered 4"
_UNREADABLE = "the endpoint's answer cannot be read"
_MOST_TOKENS = 2**40
"""Of one text; sums of more would not be told as they are."""
_OF_THE_ITEM = (400, 413, 422)
"""The endpoint says that it cannot answer this question: too long, refused, not to be read."""


class Endpoint:
    """Answers over HTTP, several requests under way at a time; greedy as far as the endpoint heeds temperature 0."""

    def __init__(self, url: str, section: EndpointSection) -> None:
        _refuse_secrets(url)
        self._url = url.rstrip("/")
        if not self._url.endswith("/v1"):
            self._url += "/v1"
        self._section = section
        self._attempts = Attempts(self._url, section)
        self._model = section.model or self._only_model()
        self.identity = EvaluatedModel(url, base_model=self._model, host=_own_host(url))
        self.settings: dict[str, Any] = {}
        self._was_answered = False

    def plan(self, suite: Suite) -> list[Unit]:
        if suite.section.kind != "generation":
            raise ConfigError(
                f"suite {suite.section.suite} cannot be put to an endpoint",
                why=f"it is of kind {suite.section.kind}, and the API gives no likelihoods of given texts",
                fix="evaluate the model itself, or leave the suite out",
            )
        return [(item,) for item in suite.items]

    def answer(self, suite: Suite, units: Sequence[Unit]) -> Iterator[list[ItemRecord]]:
        section = suite.section.scorer
        assert section is not None, "a generation has one"
        scorer = build_scorer(section.name, section.options)
        waiting = iter(units)
        # Also where all that is left is refused: that others were answered tells that the question's form is not.
        self._was_answered |= len(units) < len(suite.items)
        gate = _Refusals(self._url, is_open=self._was_answered)
        asked: set[Future[ItemRecord]] = set()
        failure: BaseException | None = None
        is_last = threading.Event()
        try:
            while True:
                may_ask = failure is None and not gate.is_full
                while may_ask and len(asked) < self._section.concurrency and (unit := next(waiting, None)):
                    asked.add(self._begin(suite, unit[0], scorer, is_last))
                if not asked:
                    break
                done, asked = wait(asked, _LOOK_EVERY_S, FIRST_COMPLETED)
                kept: list[ItemRecord] = []
                for one in done:
                    if (error := one.exception()) is None:
                        kept += gate.let_through(one.result())
                    else:
                        failure = failure or error
                        is_last.set()  # answers under way are still taken and kept, but none is asked for again
                self._was_answered |= gate.is_open
                yield kept  # or nothing yet: whoever asked may want to stop
        finally:
            is_last.set()
            for one in asked:
                one.cancel()
        if failure is not None:
            raise failure
        gate.refuse_held()

    def resources(self) -> dict[str, Any]:
        return {"concurrency": self._section.concurrency}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attempts.close()

    def _begin(
        self, suite: Suite, item: Item, scorer: Scorer, is_last: threading.Event
    ) -> Future[ItemRecord]:
        """Ask in a thread that nobody waits for: one that hangs holds back neither a stop nor the end of the process.

        What is cancelled before its answer is there is not scored any more.
        """
        future: Future[ItemRecord] = Future()

        def work() -> None:
            try:
                answer, seconds = self._ask(suite, item, is_last)
                if future.set_running_or_notify_cancel():
                    future.set_result(self._read(suite, item, scorer, answer, seconds))
            except BaseException as error:  # noqa: BLE001 - told to who waits for it, whatever it is
                if future.running() or future.set_running_or_notify_cancel():
                    future.set_exception(error)

        threading.Thread(target=work, name="asks-endpoint", daemon=True).start()
        return future

    def _ask(self, suite: Suite, item: Item, is_last: threading.Event) -> tuple[requests.Response, float]:
        """The answer, and the seconds that it took."""
        generation, is_chat = suite.section.generation, not isinstance(item.prompt, str)
        body = {
            "model": self._model,
            "messages" if is_chat else "prompt": item.prompt,
            "max_tokens": generation.max_new_tokens,
            "temperature": 0,
            **({"stop": generation.stop} if generation.stop else {}),
        }
        began = time.perf_counter()
        path = "/chat/completions" if is_chat else "/completions"
        answer = self._attempts.send("POST", path, body, is_last)
        return answer, time.perf_counter() - began

    def _read(
        self, suite: Suite, item: Item, scorer: Scorer, answer: requests.Response, seconds: float
    ) -> ItemRecord:
        is_chat = not isinstance(item.prompt, str)
        prompt = json.dumps(item.prompt, ensure_ascii=False) if is_chat else str(item.prompt)
        if answer.status_code in _OF_THE_ITEM:
            return replace(
                failed_record(item, f"the endpoint answered {answer.status_code}: {said(answer)}", prompt),
                seconds=seconds,
            )
        self._refuse_bad(answer)
        try:
            content = answer.json()
            choice = content["choices"][0]
            text = _as_text((choice["message"]["content"] if is_chat else choice["text"]) or "")
            usage = content.get("usage")
            told: dict[str, Any] = {
                "num_prompt_tokens": _count_of(usage, "prompt_tokens"),
                "num_new_tokens": _count_of(usage, "completion_tokens"),
                "stop_reason": None if choice.get("finish_reason") is None else str(choice["finish_reason"]),
            }
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            return replace(
                failed_record(item, f"{_UNREADABLE}: {type(error).__name__}: {error}", prompt),
                seconds=seconds,
            )
        record = scored_record(item, prompt, text, suite.section.generation.stop, scorer)
        return replace(record, **told, seconds=seconds)

    def _only_model(self) -> str:
        answer = self._attempts.send("GET", "/models", None)
        self._refuse_bad(answer)
        try:
            names = [str(one["id"]) for one in answer.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise EndpointError(
                f"{self._url}/models lists no models",
                why=f"{type(error).__name__}: {error}",
                fix="set endpoint.model, or check the URL",
            ) from error
        if len(names) != 1:
            raise ConfigError(
                f"{self._url} has {len(names)} models",
                why=", ".join(names[:20]) or "it lists none",
                fix="name one with endpoint.model",
            )
        return names[0]

    def _refuse_bad(self, answer: requests.Response) -> None:
        if answer.ok:
            return
        code = answer.status_code
        raise ConfigError(
            f"{answer.url} answers with status {code}",
            why=said(answer),
            fix="set endpoint.api_key_variable" if code in (401, 403) else "check the URL and endpoint.model",
        )


class _Refusals:
    """Holds back items without an answer until one is answered: where none is, the items are not what is at fault.

    Refused, it is the question's form; unreadable, whatever listens there speaks another language.

    is_open: whether one was answered before, in an earlier session or suite of the evaluation.
    """

    def __init__(self, url: str, *, is_open: bool) -> None:
        self._url = url
        self._held: list[ItemRecord] | None = None if is_open else []

    @property
    def is_open(self) -> bool:
        return self._held is None

    @property
    def is_full(self) -> bool:
        """Whether so many got no answer that no further one need be asked."""
        return self._held is not None and len(self._held) >= _MOST_REFUSALS

    def let_through(self, record: ItemRecord) -> list[ItemRecord]:
        """What may be kept now."""
        if self._held is None:
            return [record]
        self._held.append(record)
        if record.error is not None and record.error.startswith((_REFUSED, _UNREADABLE)):
            return []
        kept, self._held = self._held, None
        return kept

    def refuse_held(self) -> None:
        """Once no answer is under way. Raises ConfigError or EndpointError where no answer came."""
        if not self._held:
            return
        refused = [record for record in self._held if str(record.error).startswith(_REFUSED)]
        if refused:
            raise ConfigError(
                f"{self._url} refuses every question",
                why=f"{len(self._held)} in a row; the last: {refused[-1].error}",
                fix="see what it says: a setting of the suite's `generation`, the name of the model, or its length",
            )
        raise EndpointError(
            f"{self._url} answers no question as OpenAI's API does",
            why=f"{len(self._held)} in a row; the last: {self._held[-1].error}",
            fix="check the URL: another service, or a proxy, may listen there",
        )


def _as_text(content: Any) -> str:
    """Of several parts those that are text. Raises TypeError where there is none."""
    if isinstance(content, list):
        return "".join(str(one["text"]) for one in content if one.get("type") in (None, "text"))
    if not isinstance(content, str):
        raise TypeError(f"its text is a {type(content).__name__}")
    return content


def _count_of(usage: Any, name: str) -> int:
    """Tokens as the endpoint counts them; 0 where it tells none, or what can be no count: an answer is worth more."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found <= _MOST_TOKENS else 0


def _refuse_secrets(url: str) -> None:
    """An address is written into records and reports."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the endpoint's address holds more than a place",
            why="a name, a key or a query in it would be written into every report",
            fix="leave them out, and name the variable that holds the key: endpoint.api_key_variable",
        )


def _own_host(url: str) -> str | None:
    """This machine's name where the address leads to whichever machine asks; nothing is looked up for it."""
    name = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(name)
        is_own = address.is_loopback or address.is_unspecified
    except ValueError:
        is_own = name == "localhost" or name.endswith(".localhost")
    return socket.gethostname() if is_own else None
