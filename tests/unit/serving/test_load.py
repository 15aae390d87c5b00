"""Clients that ask without a pause, and the line that a person types."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from answering_backends import ToldBackend, listening

from raytrain.errors import EndpointError
from raytrain.serving.backend import ReplicaLost
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.serving.launch import curl_line
from raytrain.serving.load import Load

OPEN = HttpSection(insecure=True, access_log=False)
PROMPTS = ["one", "two", "three"]


def test_every_answer_is_kept_with_who_gave_it() -> None:
    backend = ToldBackend(digests=["sha256:" + "1" * 64, "sha256:" + "2" * 64])
    with listening(build_app(backend, OPEN)) as url, Load(url, "helper", PROMPTS, num_clients=2) as load:
        for _ in PROMPTS:
            load.wait_for("helper@1.2.0")
    assert len(load.answers) == len(backend.asks) and not load.failures
    assert {one.text for one in load.answers} == {"Hello there"}
    assert {one.prompt for one in load.answers} <= set(PROMPTS)
    assert {str(one.prompt) for one in backend.asks} > {"one"}, "not the same again and again"
    num = len(load.answers)
    assert load.told() == (
        f"{num} requests, 0 failed: 1 by helper@1.2.0 (111111111111), {num - 1} by helper@1.2.0 (222222222222)"
    )


def test_what_fails_is_counted_and_who_never_answers_is_told() -> None:
    with (
        listening(build_app(ToldBackend(refusal=ReplicaLost("x")), OPEN)) as url,
        Load(url, "helper", PROMPTS, num_clients=2, timeout_s=0.5) as load,
        pytest.raises(EndpointError, match=r"helper@1\.2\.0 gives no answer") as error,
    ):
        load.wait_for("helper@1.2.0")
    assert "requests, " in error.value.why and not load.answers
    assert load.told() == f"{len(load.failures)} requests, {len(load.failures)} failed"
    assert load.failures and all("503" in one for one in load.failures)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_to_type_is_answered() -> None:
    question = """It's "so": $HOME, größer"""
    backend = ToldBackend()
    with listening(build_app(backend, OPEN)) as url:
        line = f"{curl_line(url, 'helper', question)} --silent --noproxy '*'"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "Hello there"
    assert backend.asks[0].prompt == ({"role": "user", "content": question},)
    assert 'Bearer $RAYTRAIN_API_KEY"' in curl_line("http://x", "helper", "x", with_key=True)
