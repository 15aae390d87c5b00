"""A machine of the cluster has another raytrain than whoever sends work to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raytrain
from raytrain.cli.main import run
from raytrain.cluster.installed import SENT_BY, check_driver, check_sender
from raytrain.errors import ClusterError


def test_the_same_version_and_a_command_that_is_no_job_are_let_through() -> None:
    check_driver(raytrain.__version__)
    check_sender({SENT_BY: raytrain.__version__})
    check_sender({})


def test_a_worker_says_both_versions_and_where_its_own_is() -> None:
    with pytest.raises(ClusterError, match=r"raytrain 9\.9\.9 drives this run") as caught:
        check_driver("9.9.9")
    assert f"has raytrain {raytrain.__version__}" in caught.value.what
    assert str(Path(raytrain.__file__).parent) in caught.value.why
    assert "install the same version" in caught.value.fix


def test_a_job_that_another_version_sent_ends_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SENT_BY, "9.9.9")
    assert run(["train", "absent.yaml", "--json"]) == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["what"].startswith("raytrain 9.9.9 sent this job, and ")
