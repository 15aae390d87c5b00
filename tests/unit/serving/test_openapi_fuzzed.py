"""/openapi.json is true to what is served: requests that are made from it, right ones and wrong ones, find no fault."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from answering_backends import ToldBackend, ToldOperations, listening
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
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
from raytrain.serving.http.section import HttpSection, RequestLogSection

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_ANSWERING = {
    f"POST /{route}": f"#/components/schemas/{body}"
    for route, body in (
        ("v1/completions", "CompletionBody"),
        ("v1/chat/completions", "ChatBody"),
        ("v1/classify", "ClassifyBody"),
        ("v1/feedback", "FeedbackBody"),
        ("operate/load", "LoadBody"),
        ("operate/unload", "VersionBody"),
        ("operate/drain", "DrainBody"),
    )
}
"""Routes that take a body, and what it has to be."""
_quick = settings(
    max_examples=80, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


def ask_operation(operation: Any, mode: GenerationMode, url: str, body: Draft202012Validator) -> list[int]:
    """The statuses of what was answered."""
    statuses: list[int] = []
    takes_body = operation.label in _ANSWERING

    @_quick
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if takes_body and isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = (
                "helper"  # of all names few are models': a request would go no further than that
            )
        response = case.call(base_url=url)
        case.validate_response(response, checks=_CHECKS)
        statuses.append(response.status_code)
        if takes_body and response.status_code == 200:
            assert body.is_valid(case.body), "what is answered is what the schema allows"

    try:
        ask()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE, operation.label
        assert not takes_body, "only a route without parameters cannot be asked wrongly"
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_made_from_the_schema_find_no_fault(mode: GenerationMode, tmp_path: Path) -> None:
    kept = RequestLogSection(share=1.0, feedback=True, folder=str(tmp_path))
    section = HttpSection(insecure=True, access_log=False, request_log=kept)
    expected = 200 if mode == GenerationMode.POSITIVE else 400
    with listening(build_app(ToldBackend(), section, ToldOperations())) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = {found.ok().label: found.ok() for found in schema.get_all_operations()}
        assert operations.keys() > _ANSWERING.keys()
        for label, operation in operations.items():
            body = Draft202012Validator({**schema.raw_schema, "$ref": _ANSWERING.get(label, "#")})
            statuses = ask_operation(operation, mode, url, body)
            assert label not in _ANSWERING or statuses.count(expected) > 10, (label, Counter(statuses))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_TURN = {"role": "user", "content": "Hi"}
_FIELDS = sorted({*ChatBody.model_fields, "prompt", "echo", "input"})
_ASKED: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "Hi"},
    "chat/completions": {"messages": [_TURN]},
    "classify": {"input": "Hi"},
}


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
            st.sampled_from(sorted(_ASKED)),
        )
        def ask(fields: dict[str, Any], route: str) -> None:
            content = json.dumps({"model": "helper", **_ASKED[route], **fields}).encode()
            for sent in (content, content[: len(content) // 2], content.decode().encode("utf-16")):
                response = session.post(f"{url}/v1/{route}", sent, headers=headers, timeout=30)
                assert response.status_code in (200, 400, 404), (sent, response.text)
                if response.status_code != 200:
                    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

        ask()
