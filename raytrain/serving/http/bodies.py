"""What may stand in a request: OpenAI's names, limits and defaults.

Nothing is passed over in silence. What a name asks for and raytrain does not do is refused, unless it asks for what
happens anyway (`frequency_penalty: 0`); null is as if it were left out. Where raytrain differs from OpenAI:
`prompt` is required, `response_format` is known to /v1/completions too, and a JSON schema is always held to as if
`strict` were true.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

UNSUPPORTED = frozenset(
    {
        "audio", "best_of", "echo", "frequency_penalty", "function_call", "functions", "logit_bias", "modalities",
        "name", "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "refusal", "service_tier",
        "suffix", "tool_calls", "tool_choice", "tools", "verbosity", "web_search_options",
    }
)  # fmt: skip
"""Names of OpenAI's that ask for what is not done here, or only in part."""

_MOST_STOP_TEXTS = 4
_StopText = Annotated[str, Field(min_length=1, max_length=256)]
_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(fail_fast=True, min_length=1)]
_Tokens = Annotated[list[_TokenId], Field(fail_fast=True, min_length=1)]
_Zero = Annotated[float, Field(ge=0, le=0)]
_One = Annotated[int, Field(ge=1, le=1)]
_Nothing = Annotated[list[Any], Field(fail_fast=True, max_length=0)]


class Body(BaseModel):
    """Strict: nothing is converted, and no field is passed over. Each of its lists has to be `fail_fast`: one fault is
    told, and a list may hold a million."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class StreamOptions(Body):
    include_usage: bool | None = None
    """A last chunk tells the tokens of the whole request."""
    include_obfuscation: Literal[False] | None = None


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class JsonSchema(Body):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class AnswerBody(Body):
    """What both kinds of request have."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    """The base model's name, `name`, `name@alias` or `name@1.2.0`."""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """1 where none is given, as OpenAI's; 0 = always the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    """Answers to each prompt."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Random where none is given. The first of n answers draws with it, each other with one that follows from it."""
    stop: (
        _StopText | Annotated[list[_StopText], Field(fail_fast=True, max_length=_MOST_STOP_TEXTS)] | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    """Of one user or conversation: all its requests are on the same side of a trial. The request log has a pseudonym
    in its place."""
    store: bool | None = None
    """true: the request log may keep it, and models may learn from it; false: it is not kept; null: its share decides,
    and no model learns from it."""
    frequency_penalty: _Zero | None = None
    presence_penalty: _Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class CompletionBody(AnswerBody):
    """Of /v1/completions. `max_tokens` is 16 where none is given, as OpenAI's."""

    prompt: _Text | _Texts | _Tokens | Annotated[list[_Tokens], Field(fail_fast=True, min_length=1)]
    """A text, texts, token ids, or lists of them: each is answered by itself."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: _One | None = None
    suffix: Literal[""] | None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class MessageBody(Body):
    """A turn of a conversation. Chat templates know no developers: they are told to be the system."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True, min_length=1)]
    name: None = None
    refusal: None = None
    tool_calls: _Nothing | None = None
    function_call: None = None
    audio: None = None


class ChatBody(AnswerBody):
    """Of /v1/chat/completions. An answer may fill the context where no limit is given, as OpenAI's."""

    messages: Annotated[list[MessageBody], Field(fail_fast=True, min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: _Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, min_length=1, max_length=1)] | None = (
        None
    )
    service_tier: Literal["auto", "default"] | None = None


class ClassifyBody(Body):
    """Of /v1/classify."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    """A classifier: `name`, `name@alias` or `name@1.2.0`."""
    input: _Text | _Texts
    """A text, or texts: each is classified by itself."""
    user: str | None = None
    """The request log has a pseudonym in its place."""
    store: bool | None = None
    """As of the other requests."""
