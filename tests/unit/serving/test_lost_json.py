"""Schemas that llguidance takes, and cannot follow to the end: nothing that is no JSON is told as an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from answering_backends import EngineBackend, listening
from asking_engines import Asked

from raytrain.errors import ConfigError
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.section import EngineSection
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

MANY: dict[str, Any] = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}
ENDLESS: dict[str, Any] = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}
LATER = {"type": "array", "prefixItems": [{"enum": [1, 2]}, MANY], "minItems": 2}
"""Its first tokens can be chosen, so that nothing is known beforehand."""


@pytest.fixture(scope="module")
def loaded(base: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_for_inference(str(base), cache=Location(str(tmp_path_factory.mktemp("cache"))))


@pytest.fixture(scope="module")
def engine(loaded: LoadedModel) -> Iterator[ContinuousEngine]:
    engine = ContinuousEngine(loaded, EngineSection(max_rows=4, prefix_cache_mib=1))
    yield engine
    engine.close()


@pytest.mark.parametrize("schema", [MANY, ENDLESS, LATER], ids=["many", "endless", "later"])
def test_an_answer_whose_schema_is_lost_ends_as_an_error(
    engine: ContinuousEngine, schema: dict[str, Any]
) -> None:
    beside = Asked(engine, [5, 6, 7], max_new_tokens=60)
    asked = Asked(engine, [70, 71], max_new_tokens=200, temperature=1.0, seed=1, json_schema=schema)
    assert asked.wait().reason == "error"
    assert beside.wait().reason in ("stop", "length"), "who is answered beside it goes on"


@pytest.mark.parametrize(
    ("schema", "why"), [(MANY, "items; max is"), (ENDLESS, "no text can begin it")], ids=["many", "endless"]
)
def test_a_schema_that_is_lost_at_its_beginning_is_refused(
    engine: ContinuousEngine, schema: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        engine.check_schema(schema)
    assert why in refused.value.why


@pytest.mark.parametrize(
    "schema",
    [{"const": "one that is longer than what is looked at"}, {"const": 5}, {"type": "object"}, LATER],
)
def test_others_are_taken(engine: ContinuousEngine, schema: dict[str, Any]) -> None:
    engine.check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "status", "code"),
    [(MANY, 400, "invalid_json_schema"), (ENDLESS, 400, "invalid_json_schema"), (LATER, 500, "engine_error")],
    ids=["many", "endless", "later"],
)
def test_over_http_nothing_but_json_is_200(
    engine: ContinuousEngine, loaded: LoadedModel, schema: dict[str, Any], status: int, code: str
) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 200,
        "seed": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
    }
    with listening(build_app(EngineBackend(engine, loaded.tokenizer), HttpSection(insecure=True))) as url:
        answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        streamed = requests.post(f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "JSON schema" in answer.json()["error"]["message"]
    assert code in streamed.text and "[DONE]" not in streamed.text, "a stream that began ends with the error"
