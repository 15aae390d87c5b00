"""The demo's clients, which ask without a pause."""

from __future__ import annotations

import pytest
from answering_backends import ToldBackend, listening

from jobs.asking_clients import AskingClients
from raytrain.errors import EndpointError
from raytrain.serving.backend import ReplicaLost
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

OPEN = HttpSection(insecure=True, access_log=False)
PROMPTS = ["one", "two", "three"]


def test_every_answer_is_kept_with_who_gave_it() -> None:
    backend = ToldBackend(digests=["sha256:" + "1" * 64, "sha256:" + "2" * 64])
    with (
        listening(build_app(backend, OPEN)) as url,
        AskingClients(url, "helper", PROMPTS, num_clients=2) as clients,
    ):
        for _ in PROMPTS:
            clients.wait_for("helper@1.2.0")
    assert len(clients.answers) == len(backend.asks) and not clients.failures
    assert {one.text for one in clients.answers} == {"Hello there"}
    assert {one.prompt for one in clients.answers} <= set(PROMPTS)
    assert {str(one.prompt) for one in backend.asks} > {"one"}, "not the same again and again"
    num = len(clients.answers)
    assert clients.told() == (
        f"{num} requests, 0 failed: 1 by helper@1.2.0 (111111111111), {num - 1} by helper@1.2.0 (222222222222)"
    )


def test_what_fails_is_counted_and_who_never_answers_is_told() -> None:
    with (
        listening(build_app(ToldBackend(refusal=ReplicaLost("x")), OPEN)) as url,
        AskingClients(url, "helper", PROMPTS, num_clients=2, timeout_s=0.5) as clients,
        pytest.raises(EndpointError, match=r"helper@1\.2\.0 gives no answer") as error,
    ):
        clients.wait_for("helper@1.2.0")
    assert "requests, " in error.value.why and not clients.answers
    assert clients.told() == f"{len(clients.failures)} requests, {len(clients.failures)} failed"
    assert clients.failures and all("503" in one for one in clients.failures)
