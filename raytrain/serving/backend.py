"""What stands between HTTP and whoever answers: a replica in this process, or replicas behind Ray Serve."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from raytrain.serving.engine.request import Piece, Sampling

Message = dict[str, str]
"""Of a conversation: role and content."""

Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text, its token ids, or messages for the chat template."""

Arm = Literal["candidate", "production"]
"""On which side of a trial a request is answered."""


@dataclass(frozen=True)
class Ask:
    """A prompt for a model by its name."""

    id: str
    """Of the HTTP request, and told in logs; one request with n answers makes n of these, with `-K` behind."""
    model: str
    """The base model's name, `name`, `name@alias` or `name@1.2.0`."""
    prompt: Prompt
    sampling: Sampling
    """With 0 max_new_tokens the answer may fill the context."""
    is_streamed: bool = True
    """Whether anybody reads along; where not, the answer comes as one piece."""
    is_one_of_several: bool = False
    """Whether other answers of its request wait to know who answers: that is told before the answer is there."""
    arm: Arm | None = None
    """Of the trial of `model`, where the request takes part in one and that still goes on."""
    is_mirror: bool = False
    """Whether nobody waits for it: it is refused where the queue is more than half full."""


@dataclass(frozen=True)
class ClassifyAsk:
    """Texts for a classifier by its name."""

    id: str
    """Of the HTTP request."""
    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """Who answers: told before the first piece, and held to until the last."""

    model: str
    """As `name@1.2.0`, or the base model's name."""
    digest: str
    """Of the bundle whose adapter answers; of the base model where it answers by itself."""
    base_digest: str
    arm: Arm | None = None
    """Of the trial that this answer is a part of."""


@dataclass(frozen=True)
class Classification:
    """Of one text."""

    probabilities: tuple[float, ...]
    """Of each class, in the order of the classifier's labels."""
    num_tokens: int
    queue_s: float
    """From the request's arrival until the text was read."""


@dataclass(frozen=True)
class Classified:
    """The texts of one request, all by the same classifier."""

    served: Served
    labels: tuple[str, ...]
    answers: tuple[Classification, ...]


@dataclass(frozen=True)
class ModelCard:
    """One line of /v1/models."""

    id: str
    digest: str
    created: int
    """Seconds since 1970."""
    aliases: tuple[str, ...] = ()
    is_loaded: bool = False
    """Whether it answers without being read first."""
    version: str = ""
    """As `1.2.0`; the base model has none."""
    task: str = "causal_lm"
    """What it was trained for: causal_lm is asked to write, sequence_classification to classify."""


@dataclass(frozen=True)
class TrialState:
    """Of one trial of a serving config."""

    name: str
    candidate: str
    mode: str
    share: float
    standing: str
    """running, waiting, or ended: then production answers all."""
    why: str


@dataclass(frozen=True)
class Readiness:
    """Of one replica, or of all."""

    is_ready: bool
    """The base model is loaded, and every name in production can answer: with the version that the registry names, or,
    where that is refused, with the one before it."""
    base: str
    production: dict[str, str]
    """Digest of each adapter in production that can answer, by its name."""
    problems: tuple[str, ...] = ()
    """What is not as the registry says, or cannot be asked of it; is_ready may be true nonetheless."""
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each replica's engine, by the replica's name."""
    trials: tuple[TrialState, ...] = ()


class UnknownModel(Exception):
    """No model of that name answers here."""

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, known


class RefusedModel(Exception):
    """The version is known and may not be loaded: revoked, withdrawn, damaged, or over another base."""


class Undecided(Exception):
    """Nobody can say now whether this version may answer: the registry cannot be asked."""


class OtherTask(Exception):
    """The model is known, and does something else than what it was asked for: `message` says what."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


_OTHER_TASKS = {
    "causal_lm": "writes texts and classifies none: ask /v1/completions or /v1/chat/completions",
    "sequence_classification": "classifies texts and writes none: ask /v1/classify",
    None: "is the base model, which by itself neither writes nor classifies: ask one of its classifiers",
}


def other_task(model: str, task: str | None) -> OtherTask:
    """task: what it does; None = nothing."""
    return OtherTask(f"`{model}` {_OTHER_TASKS[task]}")


class BadPrompt(Exception):
    """The prompt cannot be read: `param` names what is wrong with it."""

    code = "invalid_prompt"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message, param)
        self.message, self.param = message, param


class PromptTooLong(BadPrompt):
    """It leaves no room in the model's context."""

    code = "context_length_exceeded"


class Draining(Exception):
    """An operator lets it take no new requests."""


class AnswerFailed(Exception):
    """The model gave what is no number, or could not be run on this."""


class ReplicaLost(Exception):
    """The replica that answered has died, and the answer with it: it may be asked for again."""


class Backend(Protocol):
    """Whoever answers."""

    def generate(self, ask: Ask) -> AsyncGenerator[Served | Piece]:
        """First who answers, then the pieces; ReplicaLost may be raised in their place. Closing it cancels
        the request.

        Raises UnknownModel, RefusedModel, Undecided, OtherTask, BadPrompt, Draining, ConfigError (a JSON schema) and
        engine.request.Overloaded, all before the first item.
        """
        ...

    async def classify(self, ask: ClassifyAsk) -> Classified:
        """Raises UnknownModel, RefusedModel, OtherTask, BadPrompt, AnswerFailed, ReplicaLost and
        engine.request.Overloaded. Cancelling it takes what has not been read out of the queue."""
        ...

    async def models(self) -> list[ModelCard]:
        """Raises ReplicaLost."""
        ...

    async def readiness(self) -> Readiness: ...
