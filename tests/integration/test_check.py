"""`raytrain check pipeline` and `raytrain check resume` as a person runs them, with real kills."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import Bench, write_recipe, write_rows

FORGETFUL = '''
import torch

from raytrain.training.hooks import Hook


class Forgetful(Hook):
    """Draws a number when a run resumes, and so moves the generator that dropout draws from."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def on_step_end(self, global_step, metrics):
        if not hasattr(self, "num_calls"):
            self.num_calls = 0
            if global_step > 1:
                torch.rand(1)
        self.num_calls += 1
'''


@pytest.fixture
def recipe(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> Path:
    return write_recipe(
        tmp_path / "sums.yaml", model=tiny_llama, rows=rows_file, adapter={"method": "full"},
        train={"hooks": [], "learning_rate": 5e-3, "warmup_steps": 0},
    )  # fmt: skip


@pytest.mark.timeout(1800)
def test_the_gate_passes_and_leaves_a_report(local: Bench, recipe: Path) -> None:
    outcome = local.run("check", "pipeline", recipe, "--json", timeout_s=1500)
    assert outcome.code == 0, outcome.told()
    verdict = outcome.object
    assert verdict["passed"], outcome.told()
    assert [one["name"] for one in verdict["findings"]] == ["loss", "overfit", "reproducibility", "resume"]
    report = Path(verdict["files"]["report"])
    manifest = json.loads((report / "manifest.json").read_text())
    assert (manifest["kind"], manifest["digest"]) == ("check_report", verdict["files"]["digest"])
    assert sorted(manifest["parents"]) == ["base_model", "dataset"]
    assert (report / "reproducibility.png").read_bytes().startswith(b"\x89PNG")
    checks = {one["check"]: one for one in json.loads((report / "report.json").read_text())["checks"]}
    resumed = {one["name"]: one for one in checks["resume"]["findings"]}
    places = [
        ("killed mid-epoch, step 5", 3),
        ("killed mid-accumulation, step 8", 6),
        ("killed mid-save, step 9", 6),
    ]
    assert {name: resumed[name]["figures"]["resumed_at"] for name, _ in places} == dict(places)
    assert resumed["straight against killed"]["figures"]["num_checkpoints"] == 4
    for run in ("straight run", "killed run"):
        for name in ("numbers", "checkpoints", "logs", "metrics flow"):
            assert resumed[f"{name} ({run})"]["status"] == "passed", resumed
    assert list((local.home / "storage" / "runs").glob("check-*")) == [], "a check leaves no run behind"
    assert local.run("runs", "list", "--json").object["runs"] == [], "nor a record"


@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_a_generator_that_a_hook_moves_is_found_by_real_kills(
    local: Bench, tiny_llama: Path, tmp_path: Path, rows_file: Path
) -> None:
    (local.hooks / "forgetful.py").write_text(FORGETFUL)
    recipe = write_recipe(
        tmp_path / "forgetful.yaml", model=tiny_llama, rows=rows_file,
        train={"hooks": ["forgetful:Forgetful"]}, scaling={"num_workers": 1},
    )  # fmt: skip
    outcome = local.run("check", "resume", recipe, "--json", timeout_s=1500)
    assert outcome.code == 5, outcome.told()
    assert outcome.error["kind"] == "integrity"
    found = next(one for one in outcome.object["findings"] if one["name"] == "straight against killed")
    assert (found["status"], found["figures"]["kind"], found["figures"]["step"]) == ("failed", "RNG", 4)
    assert found["figures"]["where"] == "the torch generator of rank 0"
    assert "the torch generator of rank 0" in outcome.error["why"]


def test_a_recipe_that_does_not_train_says_why(local: Bench, tiny_llama: Path, tmp_path: Path) -> None:
    """The check ends as the recipe's own run would, not with a verdict about nothing."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "", "answer": ""}])
    recipe = write_recipe(tmp_path / "empty.yaml", model=tiny_llama, rows=rows, train={"hooks": []})
    outcome = local.run("check", "loss", recipe, "--json")
    assert outcome.code == 3, outcome.told()
    assert outcome.error["kind"] == "data"
