"""/openapi.json is true to what is served: requests that are made from it, right ones and wrong ones, find no fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import schemathesis
from answering_backends import ToldBackend, listening
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from raytrain.serving.http.app import build_app
from raytrain.serving.http.bodies import ChatBody
from raytrain.serving.http.section import HttpSection

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_ANSWERING = {"POST /v1/completions", "POST /v1/chat/completions"}
_quick = settings(
    max_examples=80, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_made_from_the_schema_find_no_fault(mode: GenerationMode) -> None:
    asked: dict[str, set[int]] = {}
    with listening(build_app(ToldBackend(), HttpSection(insecure=True, access_log=False))) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()

            @_quick
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                response = case.call(base_url=url)
                asked.setdefault(case.operation.label, set()).add(response.status_code)
                case.validate_response(response, checks=_CHECKS)

            try:
                ask()
            except Unsatisfiable:
                assert mode == GenerationMode.NEGATIVE, operation.label
                assert operation.label not in _ANSWERING, "a route without parameters cannot be asked wrongly"
    assert asked.keys() >= _ANSWERING
    if mode == GenerationMode.NEGATIVE:
        assert all(200 not in asked[one] for one in _ANSWERING), "what the schema forbids is refused"
    else:
        # A model that does not answer, or options that contradict each other: a schema cannot tell them.
        assert all(asked[one] <= {200, 400, 404} for one in _ANSWERING)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_TURN = {"role": "user", "content": "Hi"}
_FIELDS = sorted({*ChatBody.model_fields, "prompt", "echo"})


@pytest.mark.slow
def test_no_value_in_any_field_is_an_error_of_the_servers() -> None:
    headers = {"content-type": "application/json"}
    with (
        listening(build_app(ToldBackend(), HttpSection(insecure=True, access_log=False))) as url,
        requests.Session() as session,
    ):

        @_quick
        @given(
            st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=3),
            st.sampled_from(["completions", "chat/completions"]),
        )
        def ask(fields: dict[str, Any], route: str) -> None:
            prompt: dict[str, Any] = {"prompt": "Hi"} if route == "completions" else {"messages": [_TURN]}
            content = json.dumps({"model": "helper", **prompt, **fields}).encode()
            for sent in (content, content[: len(content) // 2], content.decode().encode("utf-16")):
                response = session.post(f"{url}/v1/{route}", sent, headers=headers, timeout=30)
                assert response.status_code in (200, 400, 404), (sent, response.text)
                if response.status_code != 200:
                    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

        ask()
