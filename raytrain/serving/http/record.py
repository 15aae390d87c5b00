"""What is known of one request: for the access log and the metrics. Prompts and answers are no part of it."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from raytrain.serving.backend import Served
from raytrain.serving.engine.request import Finish, Piece
from raytrain.serving.http.keys import ApiKey
from raytrain.serving.http.shapes import Usage

UNMATCHED = "unmatched"
"""The route of a path that leads nowhere: paths may be anything, and are not told."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def request_id_of(asked: str) -> str:
    """What a request is called whose client calls it so: the same if it is a plain word, else one that follows from it.

    Ray Serve tells clients their own id in any case, and they name the request by that.
    """
    return asked if _WORD.fullmatch(asked) else f"req-{hashlib.sha256(asked.encode()).hexdigest()[:32]}"


@dataclass
class Record:
    """Filled in while the request is answered."""

    id: str
    method: str
    began: float = field(default_factory=time.monotonic)
    route: str = UNMATCHED
    key: ApiKey | None = None
    """None where none is needed."""
    model: str | None = None
    """As asked for, if a model may be called so."""
    served: Served | None = None
    status: int = 0
    error: str | None = None
    """Code of what was refused."""
    is_stream: bool = False
    first_piece_s: float | None = None
    """Until the first token stood: as HTTP had it where the answer is streamed, else as the engine did."""
    finishes: dict[int, Finish] = field(default_factory=dict)
    """By the place of the answer."""
    num_answers: int = 1
    """To each prompt."""

    def may_use(self, model: str) -> bool:
        return self.key is None or self.key.may_use(model)

    def note(self, place: int, piece: Piece) -> None:
        finish = piece.finish
        if self.is_stream and self.first_piece_s is None:
            self.first_piece_s = self.elapsed_s
        elif not self.is_stream and finish is not None and finish.num_new_tokens:
            self.first_piece_s = min(finish.first_token_s, self.first_piece_s or finish.first_token_s)
        if finish is not None:
            self.finishes[place] = finish

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def usage(self) -> Usage:
        """Each prompt counts once, however many answers it has, as OpenAI counts."""
        prompts = [one for place, one in self.finishes.items() if place % self.num_answers == 0]
        read = sum(one.num_prompt_tokens for one in prompts)
        written = sum(one.num_new_tokens for one in self.finishes.values())
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(one.num_cached_tokens for one in prompts)},
        }


def record_of(connection: HTTPConnection) -> Record:
    """Of the request that is being answered."""
    found: Record = connection.scope["raytrain.record"]
    return found
