from __future__ import annotations

from pathlib import Path

import pytest
from commands import Told

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_file_that_only_waits_for_values(told: Told) -> None:
    code, found = told("cluster", "check", "clusters/aws.yaml")
    assert (code, found["passed"], found["can_launch"]) == (0, True, False)
    price = found["price_per_hour"]
    assert 0 < price["least"] < price["most"] and price["currency"] == "USD" and price["source"]
    (one, *_) = found["findings"]
    assert one.keys() == {"rule", "level", "place", "key", "what", "fix"}


def test_a_file_with_a_fault(told: Told, tmp_path: Path) -> None:
    text = (
        (ROOT / "clusters/aws.yaml").read_text().replace("dashboard-host=127.0.0.1", "dashboard-host=0.0.0.0")
    )
    file = tmp_path / "aws.yaml"
    file.write_text(text)
    code, found = told("cluster", "check", file)
    assert (code, found["passed"]) == (2, False)
    assert [one["rule"] for one in found["findings"] if one["level"] == "error"] == ["open-dashboard"]
    code, refused = told("cluster", "up", file, "--yes")
    assert (code, refused["error"]["kind"]) == (2, "config")
    assert "head_start_ray_commands.1" in refused["error"]["what"]


def test_a_recipe_that_needs_other_gpus(told: Told, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("scaling: {use_gpu: true, accelerator_type: H100}\n")
    code, found = told("cluster", "check", "clusters/gcp.yaml", "--recipe", recipe)
    assert code == 2
    (one,) = [one for one in found["findings"] if one["level"] == "error"]
    assert one["rule"] == "gpu-type" and "H100" in one["what"] and "L4" in one["what"]


def test_up_does_not_launch_what_is_not_filled_in(told: Told) -> None:
    code, found = told("cluster", "up", "clusters/onprem.yaml", "--yes")
    assert (code, found["error"]["kind"]) == (2, "config")
    assert "<head>" in found["error"]["what"] and "clusters/onprem.yaml:" in found["error"]["what"]


@pytest.mark.parametrize("command", ["check", "up", "down", "status"])
def test_a_cluster_file_that_is_not_there(told: Told, command: str) -> None:
    code, found = told("cluster", command, "nowhere.yaml")
    assert (code, found["error"]["kind"]) == (2, "config")
    assert "nowhere.yaml" in found["error"]["what"]


def test_nobody_can_be_asked(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("cluster_name: mine\nprovider: {type: local, head_ip: 127.0.0.1, worker_ips: []}\n")
    code, found = told("cluster", "down", file)
    assert (code, found["error"]["kind"]) == (2, "config")
    assert "--yes" in found["error"]["fix"]


def test_it_is_shown_to_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    from raytrain.cli.main import run

    assert run(["cluster", "check", "clusters/gcp.yaml"]) == 0
    shown = capsys.readouterr().out
    assert (
        "unfilled: clusters/gcp.yaml:" in shown and "provider.project_id: <project> is not filled in" in shown
    )
    assert "US dollars an hour" in shown and "0 error" in shown
    assert run(["cluster", "check", "clusters/onprem.yaml"]) == 0
    assert "nothing is rented" in capsys.readouterr().out
