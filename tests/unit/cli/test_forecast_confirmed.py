"""The forecast of a search, held against `cost.confirm_above` before its first trial."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from test_costs import SEARCH, Terminal, played, recipe  # noqa: F401

from raytrain.cli.costs import confirm_forecast
from raytrain.errors import RefusedError
from raytrain.pipeline import recipe as pipeline
from raytrain.runs.cost import Cost, Estimate
from raytrain.training.spec import load_spec
from raytrain.tuning import search
from raytrain.tuning.forecast import Forecast
from raytrain.tuning.spec import load_tune_recipe

pytestmark = pytest.mark.whole


def forecast(cost: float | None) -> Forecast:
    return Forecast(60.0, None, 420.0, 0.0, cost, 1000, 7, None)


def estimate(money: float | None) -> Estimate:
    return Estimate(100, 60.0, Cost(1.0, 2.0, 0.0, money, "USD"), "mine-1")


def confirmed(recipe: Path, *overrides: str, known: Estimate | None = None) -> Callable[[Forecast], None]:  # noqa: F811
    found = confirm_forecast(load_tune_recipe(recipe, [SEARCH, *overrides]), known, yes=False, as_json=False)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("cost", "overrides", "known", "told"),
    [
        (4.9, [], None, None),
        (5.1, [], None, "the forecast of 5.10 USD is above cost.confirm_above (5)"),
        (5.1, ["search.budget.cost=4"], None, None),
        (9.0, ["search.budget.cost=6"], None, "the forecast of 6.00 USD is above cost.confirm_above (5)"),
        (9.0, [], estimate(9.5), None),
        (9.0, [], estimate(4.0), "the forecast of 9.00 USD is above cost.confirm_above (5)"),
        (None, [], estimate(4.0), "nothing can be held against cost.confirm_above (5)"),
        (None, [], None, None),
    ],
)
def test_what_is_asked_for(
    recipe: Path,  # noqa: F811
    cost: float | None,
    overrides: list[str],
    known: Estimate | None,
    told: str | None,
) -> None:
    ask = confirmed(recipe, *overrides, known=known)
    if told is None:
        ask(forecast(cost))
        return
    with pytest.raises(RefusedError) as refused:
        ask(forecast(cost))
    assert refused.value.what == f"no trial was begun: {told}"
    assert "--yes" in refused.value.fix


def test_nobody_is_asked_with_yes_or_without_a_limit(recipe: Path) -> None:  # noqa: F811
    searched = load_tune_recipe(recipe, [SEARCH])
    assert confirm_forecast(searched, None, yes=True, as_json=False) is None
    assert confirm_forecast(None, None, yes=False, as_json=False) is None
    free = load_tune_recipe(recipe, [SEARCH, "cost.confirm_above=null"])
    assert confirm_forecast(free, None, yes=False, as_json=False) is None


@pytest.mark.parametrize("answer", ["y\n", "n\n", "ctrl-c"])
def test_who_sits_at_a_terminal_is_asked(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
) -> None:
    class Interrupted(Terminal):
        def readline(self, *_: Any) -> str:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the question stands on")

    heard: list[int] = []
    monkeypatch.setattr("sys.stdin", Interrupted() if answer == "ctrl-c" else Terminal(answer))
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))  # as a search has it
    try:
        if answer == "y\n":
            confirmed(recipe)(forecast(9.0))
        else:
            with pytest.raises(RefusedError, match="no trial was begun"):
                confirmed(recipe)(forecast(9.0))
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 1, "the search's own handler is back"
    told = capsys.readouterr().err.replace("\n", " ")
    assert "the forecast of 9.00 USD is above cost.confirm_above (5). Go on?" in told


@pytest.mark.parametrize(
    ("command", "module", "name"), [("tune", search, "tune"), ("run", pipeline, "run_recipe")]
)
def test_the_commands_that_search_ask(
    recipe: Path,  # noqa: F811
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    module: Any,
    name: str,
) -> None:
    played(load_spec(recipe), step_s=1e-4, steps=5)

    def reaches_its_forecast(*given: Any, observer: Any = None, **_: Any) -> None:
        (observer or given[1].tuning).forecast(forecast(1e6))
        raise AssertionError("nobody asked")

    monkeypatch.setattr(module, name, reaches_its_forecast)
    code, refused = told(command, recipe, SEARCH, "cost.confirm_above=1000")
    assert (code, refused["error"]["kind"]) == (5, "refused")
    assert "the forecast of 1000000.00 USD is above" in refused["error"]["what"]
    assert refused["error"]["why"].startswith("forecast: a trial takes about")
