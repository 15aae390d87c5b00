"""HTTP with a real replica of a tiny model behind it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from answering_backends import listening, wait_until
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.generation import GenerationMode
from served_releases import Releases

from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.whole

TEXT: dict[str, Any] = {"prompt": "What is the sum", "max_tokens": 6}
FUZZED_S = 15.0
"""Of each route: as many requests as are answered in it."""


@dataclass
class Site:
    replica: Replica
    url: str

    def ask(self, model: str, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/v1/completions", json={**TEXT, "model": model, **body}, timeout=60)

    def numbers(self) -> dict[str, float]:
        """Of /metrics: of the engine by name, of histograms their count and sum."""
        page = requests.get(f"{self.url}/metrics", timeout=30).text
        return {
            sample.labels.get("number", sample.name): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.labels.keys() <= {"number", "replica"}
            or sample.labels.get("route") == "/v1/completions"
        }


@pytest.fixture(scope="module")
def site(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`sums` in production, and room for one of `one` and `two` beside it."""
    folder = tmp_path_factory.mktemp("site")
    releases = Releases(folder, base)
    releases.release("sums", "1.0.0", seed=1)
    releases.promote("sums@1.0.0")
    for seed, name in enumerate(("one", "two")):
        releases.release(name, "1.0.0", seed=10 + seed, rank=160)
        releases.promote(f"{name}@1.0.0", "staging")
    section = {
        "base_model": str(base),
        "releases": {"registry": releases.registry.place, "keys": str(releases.ring.folder)},
        "engine": {"max_rows": 4, "prefix_cache_mib": 1, "adapter_mib": 1},
        "storage": {"path": str(folder / "cache")},
    }
    with (
        closing(Replica(ServingSection.model_validate(section))) as replica,
        listening(build_app(replica, HttpSection(insecure=True, access_log=False))) as url,
    ):
        yield Site(replica, url)


def test_metrics_are_what_happened(site: Site) -> None:
    before = site.numbers()
    for model in ("one@staging", "one@staging", "two@staging", "one@staging", "sums"):
        assert site.ask(model, n=2, stream=model == "sums").status_code == 200, model

    def grown_now() -> dict[str, float]:
        return {name: value - before.get(name, 0.0) for name, value in site.numbers().items()}

    # A client may have the end of a stream before it is counted.
    wait_until(lambda: grown_now()["raytrain_http_request_seconds_count"] == 5, "five are counted")
    grown = grown_now()
    assert (grown["loads"], grown["evictions"]) == (3, 2), "one, two, and one again"
    assert site.numbers()["adapters"] == 2
    assert grown["hits"] == 10 - 3, "each of n answers asks for its adapter"
    assert grown["raytrain_queue_seconds_count"] == 10, "of each answer"
    assert 0 < grown["raytrain_queue_seconds_sum"] < grown["raytrain_http_request_seconds_sum"]
    assert grown["rows_in_steps"] == grown["new_tokens"] > grown["steps"] > 0, "n answers share steps"


def ask_for_a_while(site: Site, operation: Any, mode: GenerationMode) -> Counter[int]:
    """The statuses of what was answered; none is the server's fault."""
    statuses, until = Counter[int](), time.monotonic() + FUZZED_S

    @settings(
        max_examples=200, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if time.monotonic() > until:
            return
        body = case.body
        if isinstance(body, dict) and isinstance(body.get("model"), str):
            body["model"] = "sums"  # of all names few are models'
            if mode == GenerationMode.POSITIVE and "input" not in body:
                body.pop("max_completion_tokens", None)
                body["max_tokens"] = 6  # of all lengths few have room in the context
        answer = case.call(base_url=site.url, timeout=60)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (body, answer.text)

    ask()
    return statuses


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_made_from_the_schema_leave_the_engine_alive(site: Site, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    operations = {one.ok().label: one.ok() for one in schema.get_all_operations()}
    for route in ("completions", "chat/completions", "classify"):
        statuses = ask_for_a_while(site, operations[f"POST /v1/{route}"], mode)
        is_answered = mode == GenerationMode.POSITIVE and route != "classify"  # `sums` writes
        assert statuses[200 if is_answered else 400] > 10, (route, statuses)
        assert site.replica.is_alive
    assert site.ask("sums").status_code == 200
