"""Requests to an endpoint, tried again with growing waits until one is answered whole."""

from __future__ import annotations

import os
import random
import threading

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from raytrain.errors import ConfigError, EndpointError
from raytrain.evaluation.answering.settings import EndpointSection

_TRY_AGAIN = (408, 429, *range(500, 600))
_PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
"""Faults that may be gone at the next attempt, of the connection or of a body that did not come whole."""
_LONGEST_WAIT_S = 120.0


class Attempts:
    """Sends requests, each as often as the settings allow. Several threads may use it."""

    def __init__(self, url: str, section: EndpointSection) -> None:
        self._url = url
        self._section = section
        self._session = _session(section)

    def send(
        self, method: str, path: str, body: object, is_last: threading.Event | None = None
    ) -> requests.Response:
        """The answer, read whole. Raises EndpointError where no attempt brings one.

        is_last: once it is set, by any thread, no further attempt is made or waited for.
        """
        is_last = is_last or threading.Event()
        num_attempts = 0
        while True:
            num_attempts += 1
            try:
                answer = self._session.request(
                    method, self._url + path, json=body, timeout=self._section.timeout_s
                )
            except requests.RequestException as error:
                if isinstance(error, _PASSING) and self._may_go_on(num_attempts, None, is_last):
                    continue
                raise EndpointError(
                    f"{self._url} does not answer",
                    why=f"{type(error).__name__} after {_attempts(num_attempts)}: {error}",
                    fix="see to the endpoint; the same command goes on where this one ended",
                ) from error
            if answer.status_code not in _TRY_AGAIN:
                return answer
            if not self._may_go_on(num_attempts, answer, is_last):
                raise EndpointError(
                    f"{self._url} answers with status {answer.status_code}",
                    why=f"{_attempts(num_attempts)}; it says: {said(answer)}",
                    fix="see to the endpoint; the same command goes on where this one ended",
                )

    def close(self) -> None:
        self._session.close()

    def _may_go_on(
        self, num_attempts: int, answer: requests.Response | None, is_last: threading.Event
    ) -> bool:
        """Whether there is a further attempt, once it is time for it."""
        return num_attempts <= self._section.max_retries and not is_last.wait(
            self._wait_s(num_attempts, answer)
        )

    def _wait_s(self, num_attempts: int, answer: requests.Response | None) -> float:
        """Twice as long each time, or what the endpoint asks for; neither beyond the longest wait."""
        asked = 0.0 if answer is None else _asked_s(answer)
        grown = self._section.first_wait_s * 2.0 ** (num_attempts - 1) * (0.75 + random.random() / 2)
        return min(_LONGEST_WAIT_S, asked or grown)


def _asked_s(answer: requests.Response) -> float:
    """The endpoint's Retry-After, a number of seconds or a date; 0 where there is none that can be read."""
    told = answer.headers.get("Retry-After", "")
    try:
        return max(0.0, float(Retry().parse_retry_after(told))) if told else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def said(answer: requests.Response) -> str:
    """What an answer that is none says, in a line."""
    return " ".join(answer.text.split())[:300] or answer.reason


def _attempts(number: int) -> str:
    return f"{number} attempt{'' if number == 1 else 's'}"


def _session(section: EndpointSection) -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=section.concurrency))
    if section.api_key_variable is not None:
        key = os.environ.get(section.api_key_variable)
        if not key:
            raise ConfigError(
                f"endpoint.api_key_variable: {section.api_key_variable} is not set",
                why="the environment has no such variable, or it is empty",
                fix=f"export {section.api_key_variable}=…",
            )
        session.headers["Authorization"] = f"Bearer {key}"
    return session
