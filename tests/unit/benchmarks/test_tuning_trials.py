"""What a trial costs over the function that it calls, worked out from turns."""

from __future__ import annotations

from benchmarks.tuning_trials import overhead_of


def turn(number: int, began: float, function: float = 5.0) -> dict[str, float]:
    return {"number": number, "began": began, "function": function, "by_hand": 1.0, "trial": 0.0}


def test_a_trial_takes_what_is_left_of_its_turn() -> None:
    # The first turn is no measure, and the last has no end.
    turns = [turn(0, 0.0), turn(1, 30.0), turn(2, 41.5, 10.0), turn(3, 63.5), turn(4, 75.5)]
    found = {figure.name: figure.value for figure in overhead_of(turns)}
    # Of 11.5, 22 and 12 s the function and the loop by hand took 6, 11 and 6; a trial 5.5, 11 and 6.
    assert found["what a trial adds to it, median"] == 1.0
    assert abs(found["a trial ÷ the function alone, median of turns"] - 1.1) < 1e-9
    assert found["the same steps by hand, without Ray, records and checkpoints"] == 1.0
