"""What an engine is asked, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""stop = the model, a stop text or a complete JSON text ended it; error = the model gave what is no number,
or the answer can no longer be held to its JSON schema."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 = always the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that make up this share of the probability."""
    seed: int = 0
    """The same seed, prompt and adapter draw the same tokens, whatever is answered beside."""
    stop: tuple[str, ...] = ()
    """Texts before which an answer ends."""
    top_logprobs: int | None = None
    """So many alternatives are told of each token; 0 = the chosen alone, None = nothing."""
    json_schema: dict[str, Any] | None = None
    """The answer is JSON of this schema; {} = any JSON object."""


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to be continued once."""

    id: str
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    sampling: Sampling
    adapter: str | None = None
    """Digest of the adapter to answer with; None = the base model by itself."""


@dataclass(frozen=True)
class Token:
    """A token that was written."""

    id: int
    text: str
    """What it adds by itself; a part of a character is shown by its replacement."""
    logprob: float
    """Natural logarithm of its probability at temperature 1."""
    alternatives: tuple[tuple[int, str, float], ...] = ()
    """(id, text, logprob) of the likeliest tokens in its place, the chosen among them if it is one."""
    offset: int = 0
    """Characters of the answer before it; of the parts of one character those before that."""


@dataclass(frozen=True)
class Finish:
    """The end of an answer."""

    reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int
    """Of the prompt, that had been read for another request."""
    num_new_tokens: int
    """The end token counts."""
    queue_s: float
    """Until reading the prompt began."""
    first_token_s: float
    """Until the first token stood; both from the request's arrival."""


@dataclass(frozen=True)
class Piece:
    """What is new of an answer. Texts of all pieces make the answer."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    """Only where logprobs were asked for."""
    finish: Finish | None = None
    """In the last piece, and only there."""


Tell = Callable[[Piece], None]
"""Called in the engine's own thread: it hands on and returns."""


@dataclass(frozen=True)
class EngineStats:
    """Counted since the start, but for what is told of now."""

    running: int = 0
    """Now."""
    waiting: int = 0
    """Now."""
    steps: int = 0
    rows_in_steps: int = 0
    """Divided by steps: how many answers are written at a time."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    adapters: dict[str, int] = field(default_factory=dict)
    """Bytes of each adapter that can answer now."""


class Engine(Protocol):
    """Answers requests side by side. All methods may be called from any thread."""

    @property
    def max_context_tokens(self) -> int:
        """Of a prompt with its answer."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it still takes turns."""
        ...

    def check_schema(self, schema: dict[str, Any]) -> None:
        """ConfigError where answers cannot be held to it."""
        ...

    def submit(self, request: GenerationRequest, tell: Tell) -> None:
        """Queue a request; `tell` gets its pieces in order, the last with `finish`.

        Raises Overloaded where the queue is full, KeyError where the adapter is not loaded. An adapter is kept for
        requests that were accepted, also where it is unloaded meanwhile.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Its place is freed before the next token; the last piece says so. Nothing happens where it has ended."""
        ...

    def load(self, digest: str, weights: Any) -> None:
        """Let an adapter answer; returns once it does. Requests go on meanwhile. Raises RefusedError where it does not
        fit the base model or the memory."""
        ...

    def unload(self, digest: str) -> None:
        """No request is accepted for it any more; its memory is freed once those that were accepted have ended."""
        ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None:
        """Everything that waits or runs ends as cancelled. Returns when nothing runs."""
        ...


class Overloaded(Exception):
    """The queue is full."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(waiting, retry_after_s)
        self.waiting, self.retry_after_s = waiting, retry_after_s

    def __str__(self) -> str:
        return f"{self.waiting} requests wait; try again in {self.retry_after_s:.0f} s"
