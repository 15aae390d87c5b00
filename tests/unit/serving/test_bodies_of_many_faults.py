"""A body of a million faults costs no more than one of a few: the ingress answers others meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from raytrain.serving.http.bodies import Body, ChatBody, ClassifyBody, CompletionBody
from raytrain.serving.http.errors import ApiError
from raytrain.serving.http.reading import parse, validated

_MANY = 10_000
_FEW = 20
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
LISTS: list[tuple[type[Body], dict[str, Any], tuple[str | int, ...]]] = [
    (CompletionBody, {"model": "m"}, ("prompt",)),
    (CompletionBody, {"model": "m", "prompt": [[]]}, ("prompt", 0)),
    (CompletionBody, {"model": "m", "prompt": "x"}, ("stop",)),
    (ChatBody, CHAT, ("messages",)),
    (ChatBody, CHAT, ("messages", 0, "content")),
    (ChatBody, CHAT, ("messages", 0, "tool_calls")),
    (ChatBody, CHAT, ("tools",)),
    (ChatBody, CHAT, ("modalities",)),
    (ClassifyBody, {"model": "m"}, ("input",)),
]


def with_value(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    made = json.loads(json.dumps(body))
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return made


@pytest.mark.parametrize(("model", "body", "path"), LISTS)
@pytest.mark.parametrize("fault", ["", [], {}, None, -1, [""], [-1], {"type": "text", "of": 1}])
def test_a_list_has_no_more_faults_than_its_first(
    model: type[Body], body: dict[str, Any], path: tuple[str | int, ...], fault: Any
) -> None:
    for many in ([fault] * _MANY, [[fault] * _MANY], ["x", *[fault] * _MANY], [1, *[fault] * _MANY]):
        with pytest.raises(ValidationError) as raised:
            model.model_validate(with_value(body, path, many))
        assert raised.value.error_count() <= _FEW


NAMES = {f"x{place}": 1 for place in range(_MANY)}


@pytest.mark.parametrize(
    "wide",
    [
        {**CHAT, **NAMES},
        {**CHAT, "messages": [NAMES]},
        {**CHAT, "response_format": {"type": "text", **NAMES}},
        {**CHAT, "logit_bias": NAMES},
    ],
)
def test_an_object_of_very_many_fields_is_refused_before_they_are_looked_at(wide: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="more than 5000 fields") as refused:
        parse(json.dumps(wide).encode())
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")
    assert parse(json.dumps(CHAT).encode()) == CHAT


def test_the_first_fault_of_many_is_the_one_that_is_told() -> None:
    messages = [CHAT["messages"][0], {"role": "robot", "content": "x"}, *[{}] * _MANY]
    with pytest.raises(ApiError) as refused:
        validated(ChatBody, {**CHAT, "messages": messages})
    assert refused.value.param == "messages.1.role"
