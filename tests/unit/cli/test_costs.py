"""Costs as they are typed: what earlier runs took, what the next one will, and the question before it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Told

from raytrain.cli.costs import confirm_cost
from raytrain.cli.main import run
from raytrain.data.prepare import prepare_dataset
from raytrain.errors import RefusedError
from raytrain.runs.ownership import Owner
from raytrain.runs.records import open_records
from raytrain.training.spec import RunSpec, load_spec

pytestmark = pytest.mark.whole

HOUR = 3600.0
LONG_AGO = 1_700_000_000.0


@pytest.fixture
def recipe(tmp_path: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "model": {"base_model": "tiny"},
        "data": {"sources": ["rows.jsonl"], "val_fraction": 0.15, "near_duplicate_threshold": None},
        "train": {"num_epochs": 100, "global_batch_size": 8},
        "scaling": {"num_workers": 2},
        "cost": {"cpu_hour": 3.0, "confirm_above": 5.0},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "mine.yaml"


def played(spec: RunSpec, *, step_s: float, steps: int, run_id: str | None = None) -> None:
    """A run of an hour, as its trainer leaves it in the records, with a real dataset."""
    records = open_records()
    dataset = prepare_dataset(spec.data, spec.storage.location)
    run_id = run_id or spec.run_id
    records.create_run(run_id, kind="train", name=spec.name, config=spec.to_dict(), created_at=LONG_AGO)
    records.claim_run(run_id, Owner.current(), now=LONG_AGO)
    records.add_artifact(
        run_id, "dataset", "read", "dataset", dataset.digest, str(dataset.location), parents={}
    )
    records.add_metrics(run_id, [(step, LONG_AGO, {"train/step_s": step_s}) for step in range(1, steps + 1)])
    records.set_state(run_id, "succeeded", global_step=steps, now=LONG_AGO + HOUR)
    records.close()


def test_a_probe_tells_what_the_whole_will_cost(
    recipe: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, probe = load_spec(recipe), load_spec(recipe, ["train.max_steps=5"])
    assert confirm_cost(probe, yes=False, as_json=False) is None, "nobody is asked for a probe"
    assert "a probe gives one: `raytrain train RECIPE train.max_steps=5`" in capsys.readouterr().err
    played(probe, step_s=2.0, steps=5)
    found = confirm_cost(spec, yes=True, as_json=False)
    assert found is not None
    num_rows = found.num_steps / 100 * 8
    assert 40 <= num_rows <= 60, "about 85 % of the 60 rows, in batches of 8, a hundred times"
    seconds = found.num_steps * 2.0 + HOUR - 10.0
    assert found.cost.money == pytest.approx(2 * 3.0 * seconds / HOUR)
    assert f"estimate: {found.cost.money:.2f} USD" in capsys.readouterr().err
    assert (found.cost.money or 0.0) > 5.0
    with pytest.raises(RefusedError, match=r"is above cost\.confirm_above \(5\)"):
        confirm_cost(spec, yes=False, as_json=True)
    code, refused = told("train", recipe)
    assert (code, refused["error"]["kind"]) == (5, "refused")
    assert "add --yes" in refused["error"]["fix"]


SEARCH = "search={space: {train.learning_rate: {type: float, low: 1e-4, high: 1e-3}}, num_trials: 7}"


def test_a_first_run_has_no_estimate_and_is_asked_for(recipe: Path, told: Told) -> None:
    spec = load_spec(recipe)
    for command, *words in (
        ("train",), ("tune", SEARCH), ("tune", SEARCH, "train.max_steps=5"), ("run",), ("queue", "submit", "train"),
    ):  # fmt: skip
        place = [recipe] if command != "queue" else [*words, recipe.name]
        code, refused = told(command, *place, *([] if command == "queue" else words))
        assert (code, refused["error"]["kind"]) == (5, "refused"), command
        assert "there is no estimate to hold against cost.confirm_above (5)" in refused["error"]["what"]
        assert "`raytrain train RECIPE train.max_steps=5`; or add --yes" in refused["error"]["fix"]
    assert told("queue", "submit", "train", recipe.name, "train.max_steps=5")[0] == 0, "the probe itself"
    assert told("queue", "submit", "train", recipe.name, "--yes")[0] == 0
    assert confirm_cost(spec, yes=True, as_json=True) is None
    assert confirm_cost(load_spec(recipe, ["cost.confirm_above=null"]), yes=False, as_json=True) is None


@pytest.mark.parametrize("is_known", [False, True])
def test_who_sits_at_a_terminal_is_asked(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_known: bool
) -> None:
    spec = load_spec(recipe)
    if is_known:
        played(spec, step_s=100.0, steps=5)
    asked = (
        "above cost.confirm_above (5). Start?" if is_known else "hold against cost.confirm_above (5). Start?"
    )
    for answer in ("y\n", "n\n"):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        if answer == "y\n":
            assert (confirm_cost(spec, yes=False, as_json=False) is None) is not is_known
        else:
            with pytest.raises(RefusedError, match="not started"):
                confirm_cost(spec, yes=False, as_json=False)
        assert asked in capsys.readouterr().err.replace("\n", " ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_limit_without_a_price_is_asked_for_too(recipe: Path) -> None:
    played(load_spec(recipe), step_s=1.0, steps=5)
    spec = load_spec(recipe, ["cost.cpu_hour=null"])
    with pytest.raises(RefusedError, match="nothing can be held against") as refused:
        confirm_cost(spec, yes=False, as_json=True)
    assert "set cost.cpu_hour" in refused.value.fix
    assert confirm_cost(spec, yes=True, as_json=True) is not None


def test_a_search_is_asked_for_with_all_of_its_trials(recipe: Path, told: Told) -> None:
    played(load_spec(recipe), step_s=1.0, steps=5)
    one = told("train", recipe, "cost.confirm_above=1e-9")[1]["error"]["why"]
    for command, num_runs in (("tune", 7), ("run", 8)):
        code, refused = told(command, recipe, "cost.confirm_above=1e-9", SEARCH)
        assert code == 5
        assert f"in {num_runs} runs at most" in refused["error"]["why"]
        money = float(refused["error"]["why"].split()[0])
        assert money == pytest.approx(num_runs * float(one.split()[0]), abs=0.01 * num_runs)


def test_a_confirmed_job_asks_nobody_when_it_starts(recipe: Path, told: Told) -> None:
    played(load_spec(recipe), step_s=100.0, steps=5)
    words = ["train", recipe.name, "train.learning_rate=1e-4"]
    assert told("queue", "submit", *words)[0] == 5
    code, found = told("queue", "submit", *words, "--yes")
    assert (code, found["job"]["words"][-1]) == (0, "--yes")


def test_what_was_spent(recipe: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    played(load_spec(recipe), step_s=2.0, steps=5)
    played(
        load_spec(recipe, ["name=other", "scaling.num_workers=1", "cost.currency=EUR"]), step_s=2.0, steps=5
    )
    _, by_recipe = told("runs", "cost", "--by", "recipe")
    assert [(one["key"], one["cpu_hours"], one["money"]) for one in by_recipe["lines"]] == [
        ("mine", pytest.approx(2.0), {"USD": pytest.approx(6.0)}),
        ("other", pytest.approx(1.0), {"EUR": pytest.approx(3.0)}),
    ]
    assert by_recipe["total"] == {"USD": pytest.approx(6.0), "EUR": pytest.approx(3.0)}
    (month,) = told("runs", "cost", "--by", "month")[1]["lines"]
    assert (month["key"], month["num_runs"]) == ("2023-11", 2)
    assert told("runs", "cost", "--since", "1d")[1]["lines"] == []
    assert run(["runs", "cost"]) == 0
    assert "in all: 3.00 EUR, 6.00 USD" in capsys.readouterr().out
    assert told("runs", "cost", "--by", "week")[0] == 2


def test_what_a_job_has_cost(recipe: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    words = [recipe.name, "cost.confirm_above=null"]
    job = told("queue", "submit", "train", *words)[1]["job"]
    assert told("queue", "status", job["id"])[1]["job"]["cost"] is None, "it has not begun"
    played(load_spec(recipe), step_s=2.0, steps=5, run_id=job["run_id"])
    shown = told("queue", "status", job["id"])[1]["job"]["cost"]
    assert shown == told("runs", "cost", "--by", "run")[1]["lines"][0]
    assert (shown["money"], shown["cpu_hours"]) == ({"USD": pytest.approx(6.0)}, pytest.approx(2.0))
    assert run(["queue", "status", job["id"]]) == 0
    assert "cost       6.00 USD (2.00 CPU hours in 1 run)" in capsys.readouterr().out


def test_a_search_has_cost_what_its_trials_have(recipe: Path, told: Told) -> None:
    job = told("queue", "submit", "tune", recipe.name, SEARCH, "--yes")[1]["job"]
    search = job["run_id"]
    records = open_records()
    records.create_run(search, kind="tune", name="mine", config={})
    records.claim_run(search, Owner.current(), now=LONG_AGO)
    assert told("queue", "status", job["id"])[1]["job"]["cost"] is None, "no trial has begun"
    other = f"{search}.2-0000"
    for run_id in (f"{search}-probe", f"{search}-0000", f"{search}-0001", other, "mine-by-itself"):
        played(load_spec(recipe), step_s=1.0, steps=5, run_id=run_id)
    cost = told("queue", "status", job["id"])[1]["job"]["cost"]
    assert (cost["key"], cost["num_runs"], cost["money"]) == (search, 3, {"USD": pytest.approx(18.0)})
    records.close()
