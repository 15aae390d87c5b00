"""Clients that ask a server as soon as they are answered, while something is changed under them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import requests

from raytrain.errors import EndpointError

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Asked:
    """One request that was answered, by whom and with what."""

    model: str
    """Who answered, as `name@1.2.0`."""
    digest: str
    prompt: str
    text: str


@dataclass
class AskingClients:
    """Runs from the `with` to its end. Each client takes the prompts in turn; nothing is asked twice."""

    url: str
    model: str
    prompts: Sequence[str]
    max_tokens: int = 48
    num_clients: int = 4
    timeout_s: float = 60.0
    """For one answer, and for a change to show."""
    judge: Callable[[str, str], bool] | None = None
    """Of prompt and answer whether it is right; each is then told so with a thumb. None = nobody judges."""
    answers: list[Asked] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> AskingClients:
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(number,)) for number in range(self.num_clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Returns once what was asked is answered."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, model: str, count: int = 1) -> None:
        """Until the next so many answers that `model` gives. Raises EndpointError where they do not come in time, each
        in its own."""
        seen, end = len(self.answers), time.monotonic() + self.timeout_s * count
        while sum(one.model == model for one in self.answers[seen:]) < count:
            if time.monotonic() > end:
                raise EndpointError(
                    f"{model} gives no answer",
                    why=f"{len(self.answers) - seen} others within {self.timeout_s:g} s; {self.told()}",
                    fix=f"raytrain serve status --url {self.url}",
                )
            time.sleep(_LOOK_EVERY_S)

    def told(self) -> str:
        """How many were answered, by whom, and how many were not."""
        by = Counter((one.model, one.digest.removeprefix("sha256:")[:12]) for one in self.answers)
        parts = [f"{num} by {model} ({digest})" for (model, digest), num in sorted(by.items())]
        failed = len(self.failures)
        return f"{len(self.answers) + failed} requests, {failed} failed" + (
            f": {', '.join(parts)}" if parts else ""
        )

    def _keep_asking(self, number: int) -> None:
        with requests.Session() as session:
            for turn in itertools.count(number):
                if self._stopping.is_set():
                    return
                try:
                    self.answers.append(self._ask(session, self.prompts[turn % len(self.prompts)]))
                except (requests.RequestException, KeyError, ValueError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    self._stopping.wait(1.0)  # or thousands of failures a second would be counted

    def _ask(self, session: requests.Session, prompt: str) -> Asked:
        body = {"model": self.model, "prompt": prompt, "max_tokens": self.max_tokens, "temperature": 0}
        response = session.post(f"{self.url}/v1/completions", json=body, timeout=self.timeout_s)
        response.raise_for_status()
        told = response.json()
        text = told["choices"][0]["text"]
        if self.judge is not None:
            thumb = "up" if self.judge(prompt, text) else "down"
            feedback = {"request_id": told["id"], "rating": thumb}
            session.post(f"{self.url}/v1/feedback", json=feedback, timeout=self.timeout_s).raise_for_status()
        headers = response.headers
        return Asked(unquote(headers["x-raytrain-model"]), headers["x-raytrain-digest"], prompt, text)
