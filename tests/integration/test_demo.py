"""The whole demo as a submitted job, with the real model: some ten minutes on two fast cores."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from bench import BIN, ROOT, Bench
from conftest import Cluster

pytestmark = [pytest.mark.thorough, pytest.mark.alone]


@pytest.mark.timeout(4000)
def test_it_passes_as_a_submitted_job(joined: Bench, cluster: Cluster) -> None:
    runtime = {"env_vars": {"RAYTRAIN_HOME": str(joined.home), "HF_HUB_OFFLINE": "1"}}
    submitted = subprocess.run(
        [
            str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--working-dir", str(ROOT),
            "--runtime-env-json", json.dumps(runtime), "--", str(BIN / "python"), "-m", "jobs.demo",
        ],
        env=joined.child_environment(),
        capture_output=True, text=True, timeout=3900, check=False,
    )  # fmt: skip
    told = submitted.stdout
    assert submitted.returncode == 0, told[-6000:] + submitted.stderr[-3000:]
    assert re.search(r"best of 4 trials: .*train\.learning_rate", told), told
    assert re.search(r"Better by .*: promote", told), told
    assert re.search(r"All 6 gates\s+of the contract default passed", told), told
    for line in (
        "NO-GO: demo-tool-calls@1.1.0 stays out of production",
        "NO-GO, set aside: demo-tool-calls@1.1.0 is in production",
        "taken back: demo-tool-calls@production is 1.0.0 again",
    ):
        assert line in told, told
    assert re.search(r"^GO: demo-tool-calls@1\.0\.0 is in production", told, re.MULTILINE), told
    assert re.search(r"seen in the first \d+ answers, beside \d+ of before, score [1-9]", told), told
    assert "would order a retraining (demo-000001): drift/score above 1" in told, told
    assert re.search(r"^1[5-8] of 18 wrong corrections are set aside", told, re.MULTILINE), told
    (asked, failed) = map(int, re.findall(r"(\d+) requests, (\d+) failed", told)[0])
    assert asked > 0 and failed == 0
    assert f"word for word what the same version wrote in its evaluation: {asked} of {asked}" in told
