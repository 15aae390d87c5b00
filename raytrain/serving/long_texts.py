"""Texts that take long to be made tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

_NUM_THREADS = 2

_AT_ONCE = 4096
"""Characters for which no thread is worth it: a tokenizer takes some milliseconds."""


class LongTexts:
    """Read beside the event loop, in which all answers are told: a context's fill would stop them for a second.

    In threads of their own: those that read adapters may all be waiting for one.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "texts")

    async def read(self, num_characters: int, read: Callable[[], _T]) -> _T:
        """What `read` returns, or raises; called here where there are few."""
        if num_characters <= _AT_ONCE:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    def close(self) -> None:
        """What is being read is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
