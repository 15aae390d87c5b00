"""What is answered, key by key: OpenAI's shapes, with `raytrain` beside."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

FinishWord = Literal["stop", "length"]


class Origin(TypedDict):
    """Who answered."""

    model: str
    digest: str
    base_digest: str
    trial: NotRequired[Literal["candidate", "production"]]
    """On which side of a trial it was answered; not there where it was in none."""


class PromptDetails(TypedDict):
    cached_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishWord | None


class CompletionAnswer(TypedDict):
    """Of /v1/completions, and each of its chunks."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None
    raytrain: Origin


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[TokenLogprob]
    refusal: None


class ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord


class ChatAnswer(TypedDict):
    """Of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    raytrain: Origin


class ChatDelta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str


class ChatChunkChoice(TypedDict):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None


class ChatChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None
    raytrain: Origin


class ClassifiedText(TypedDict):
    """`probs` are in the order of the answer's `labels`."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyAnswer(TypedDict):
    """Of /v1/classify: vLLM's and SGLang's shape, with `labels` and `raytrain` beside."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    labels: list[str]
    data: list[ClassifiedText]
    usage: Usage
    raytrain: Origin


class ModelOrigin(TypedDict):
    digest: str
    task: str
    aliases: list[str]
    is_loaded: bool
    version: str


class ModelAnswer(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["raytrain"]
    raytrain: ModelOrigin


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelAnswer]
