"""The line that a person types to ask a server."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from answering_backends import ToldBackend, listening

from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.serving.launch import curl_line

OPEN = HttpSection(insecure=True, access_log=False)


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
