"""`raytrain tune dashboard`: Optuna's own, over the same database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from conftest_search import RecipeMaker
from object_server import free_port

from raytrain.runs.records import open_records
from raytrain.tuning.study import StudyMemory

pytestmark = pytest.mark.slow


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "raytrain", "tune", "dashboard", "--port", str(port)]


def asked(url: str, process: subprocess.Popen[str]) -> Any:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    raise AssertionError("it does not answer")


def test_it_shows_the_searches_of_the_records_database(tune_recipe: RecipeMaker) -> None:
    open_records()
    memory = StudyMemory(tune_recipe(), "a-search")
    number, _ = memory.ask()
    memory.tell_complete(number, [0.25])
    port = free_port()
    with subprocess.Popen(
        command(port), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            shown = asked(f"http://127.0.0.1:{port}/api/studies", process)
            (study,) = shown["study_summaries"]
            assert study["study_name"] == "a-search"
            trials = asked(f"http://127.0.0.1:{port}/api/studies/{study['study_id']}?after=0", process)[
                "trials"
            ]
            assert [(one["state"], one["values"]) for one in trials] == [("Complete", [0.25])]
            second = subprocess.run(command(port), capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 2
            assert f"port {port} of 127.0.0.1 cannot be listened on" in second.stderr
        finally:
            process.terminate()
