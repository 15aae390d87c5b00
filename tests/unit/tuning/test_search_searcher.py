"""The searcher that Ray Tune asks: what each ending of a trial becomes in the study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest_search import RecipeMaker

from raytrain.errors import ConfigError, TrainingError
from raytrain.tuning.deaths import DeathNotes
from raytrain.tuning.searcher import StudySearcher
from raytrain.tuning.study import StudyMemory
from raytrain.tuning.task import Ended

pytestmark = pytest.mark.whole


class Driven:
    """A searcher, and what its driver heard."""

    def __init__(self, recipe: Any, max_concurrent: int = 1) -> None:
        self.memory = StudyMemory(recipe, "s")
        self.heard: list[tuple[int, str]] = []
        self.notes: list[str] = []
        self.searcher = StudySearcher(
            self.memory,
            max_concurrent=max_concurrent,
            on_ended=lambda task, state: self.heard.append((task.number, state)),
            on_note=self.notes.append,
        )

    def end(self, name: str, *, has_crashed: bool = False, **told: Any) -> None:
        self.searcher.on_trial_complete(name, {"ended": Ended(**told)} if told else None, has_crashed)

    def states(self) -> list[str]:
        return [one.state for one in self.memory.trials()]


@pytest.fixture
def driven(tune_recipe: RecipeMaker) -> Driven:
    return Driven(tune_recipe())


def test_each_ending_is_told(driven: Driven) -> None:
    endings: list[dict[str, Any]] = [
        {"state": "complete", "objectives": [0.5], "metrics": {"eval/loss": 0.5}, "global_step": 40},
        {"state": "pruned", "reason": "others were better", "global_step": 5},
        {"state": "failed", "reason": "no rows"},
    ]
    for name, told in zip("abc", endings, strict=True):
        assert isinstance(driven.searcher.suggest(name), dict)
        driven.end(name, **told)
    assert driven.states() == ["complete", "pruned", "failed"]
    assert [one.reason for one in driven.memory.trials()] == [None, "others were better", "no rows"]
    assert driven.memory.trials()[0].objectives == [0.5]
    assert driven.memory.trials()[0].attrs["global_step"] == 40
    assert driven.heard == [(0, "complete"), (1, "pruned"), (2, "failed")]
    assert driven.notes == ["trial 2 failed: no rows"]


def test_no_more_trials_at_once_than_there_is_room_for(tune_recipe: RecipeMaker) -> None:
    driven = Driven(tune_recipe(), max_concurrent=2)
    assert isinstance(driven.searcher.suggest("a"), dict)
    assert isinstance(driven.searcher.suggest("b"), dict)
    assert driven.searcher.suggest("c") is None
    driven.end("a", state="complete", objectives=[1.0], metrics={})
    assert isinstance(driven.searcher.suggest("c"), dict)


def test_the_number_of_trials_ends_it(tune_recipe: RecipeMaker) -> None:
    driven = Driven(tune_recipe("search.num_trials=2"))
    for name in "ab":
        driven.searcher.suggest(name)
        driven.end(name, state="complete", objectives=[1.0], metrics={})
    assert driven.searcher.suggest("c") == "FINISHED"


def test_an_objective_that_nobody_reports(driven: Driven) -> None:
    driven.searcher.suggest("a")
    driven.end("a", state="unreported", reason="eval/los", metrics={"eval/loss": 1.0, "train/loss": 2.0})
    assert isinstance(driven.searcher.error, ConfigError)
    assert driven.searcher.error.fix == "did you mean `eval/loss`?"
    assert driven.searcher.error.why == "reported are: eval/loss, train/loss"
    assert driven.searcher.suggest("b") == "FINISHED"
    assert driven.states() == ["failed"]


def test_one_trial_that_does_not_report_it_ends_no_search_of_others_that_do(driven: Driven) -> None:
    driven.searcher.suggest("a")
    driven.end("a", state="complete", objectives=[0.5], metrics={"eval/loss": 0.5})
    driven.searcher.suggest("b")
    driven.end("b", state="unreported", reason="eval/loss", metrics={"train/loss": 2.0})
    assert driven.searcher.error is None
    assert driven.states() == ["complete", "failed"]
    assert driven.memory.trials()[1].reason == "eval/loss was not reported"
    assert isinstance(driven.searcher.suggest("c"), dict)


def test_an_outage_leaves_the_trial_as_it_is_and_takes_it_up_again(driven: Driven) -> None:
    first = driven.searcher.suggest("a")
    driven.end("a", state="outage", reason="the bucket is away", fix="wait")
    assert driven.states() == ["running"]
    assert driven.searcher.suggest("b") == first
    driven.end("b", state="complete", objectives=[0.5], metrics={})
    for name in "cde":
        driven.searcher.suggest(name)
        driven.end(name, state="outage", reason="the bucket is away", fix="wait")
    assert driven.searcher.error is not None
    assert (driven.searcher.error.why, driven.searcher.error.fix) == ("the bucket is away", "wait")
    assert driven.states() == ["complete", "running"], "the same command goes on with it"


def test_failures_in_a_row_end_it_with_what_to_do(driven: Driven) -> None:
    for name in "abc":
        driven.searcher.suggest(name)
        driven.end(name, state="failed", reason="disk full", fix="free some space")
    error = driven.searcher.error
    assert isinstance(error, TrainingError)
    assert (error.why, error.fix) == ("disk full", "free some space")
    assert "3 trials in a row failed" in error.what


def test_trials_that_all_diverge_end_it_with_the_reason_and_are_pruned_ones(driven: Driven) -> None:
    for name, told in [
        ("a", {"state": "diverged", "reason": "eval/loss is nan at step 5"}),
        ("b", {"state": "failed", "reason": "no rows"}),
        ("c", {"state": "diverged", "reason": "NaN gradients"}),
    ]:
        driven.searcher.suggest(name)
        driven.end(name, **told)
    error = driven.searcher.error
    assert isinstance(error, TrainingError)
    assert (error.what, error.why) == ("3 trials in a row failed, the last of them trial 2", "NaN gradients")
    assert "learning_rate" in (error.fix or "")
    assert driven.states() == ["pruned", "failed", "pruned"]
    assert driven.searcher.suggest("d") == "FINISHED"


@pytest.mark.parametrize("between", ["pruned", "complete"])
def test_diverged_trials_beside_others_end_nothing(driven: Driven, between: str) -> None:
    endings = ["diverged", "diverged", between, "diverged", "diverged"]
    for number, state in enumerate(endings):
        driven.searcher.suggest(str(number))
        driven.end(str(number), state=state, reason="as it says", objectives=[0.5], metrics={})
    assert driven.searcher.error is None
    driven.searcher.suggest("5")
    driven.end("5", state="diverged", reason="as it says")
    is_over = between == "pruned"
    assert (driven.searcher.error is not None) == is_over, "with a result the ranges are wide, not wrong"


def test_trials_that_a_scheduler_prunes_are_no_failures(driven: Driven) -> None:
    for number in range(5):
        driven.searcher.suggest(str(number))
        driven.end(str(number), state="pruned", reason="others were better")
    assert driven.searcher.error is None


def test_a_process_that_dies_for_good_is_a_failed_trial(driven: Driven) -> None:
    driven.searcher.suggest("a")
    driven.searcher.on_trial_result("a", {"state": "running", "global_step": 7})
    driven.end("a", has_crashed=True)
    (trial,) = driven.memory.trials()
    assert trial.state == "failed"
    assert trial.reason == "its process died"
    assert trial.attrs["global_step"] == 7


@dataclass
class OfRay:
    """What Ray Tune shows its scheduler of a trial."""

    trial_id: str
    status: str
    error_file: str | None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("PENDING", "its process could not be started: ModuleNotFoundError: No module named 'mine'"),
        ("RUNNING", "its process died: ModuleNotFoundError: No module named 'mine'"),
    ],
)
def test_the_words_of_ray_say_why_a_process_died(
    driven: Driven, tmp_path: Path, status: str, reason: str
) -> None:
    place = tmp_path / "error.txt"
    place.write_text("Failure # 1\n  a traceback\nModuleNotFoundError: No module named 'mine'\n\n")
    driven.searcher.suggest("a")
    DeathNotes(driven.searcher.deaths).on_trial_error(None, OfRay("a", status, str(place)))
    driven.end("a", has_crashed=True)
    assert driven.memory.trials()[0].reason == reason


def test_what_a_stopped_search_leaves_running_is_taken_up(tune_recipe: RecipeMaker) -> None:
    driven = Driven(tune_recipe())
    found = driven.searcher.suggest("a")
    assert isinstance(found, dict)
    driven.searcher.stop("asked to stop by SIGINT")
    driven.end("a", state="stopped", reason="asked to stop", global_step=9)
    assert driven.states() == ["running"]
    assert driven.searcher.suggest("b") == "FINISHED"
    later = Driven(tune_recipe())
    assert later.searcher.num_left == 1
    again = later.searcher.suggest("c")
    assert isinstance(again, dict)
    assert again["task"] == found["task"]
    spent = later.searcher.live()[0].spent_before_s
    assert spent > 0, "what it has cost before counts"
