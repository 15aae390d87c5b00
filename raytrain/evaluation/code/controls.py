"""Patches whose outcome is known: people's own fix resolves, none at all does not, and again the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import DataError
from raytrain.evaluation.code.grading import TestRun
from raytrain.evaluation.code.instances import Instance
from raytrain.evaluation.code.suite import Verdict, judge_patch, side_by_side
from raytrain.evaluation.code.testing import TestSettings


@dataclass(frozen=True)
class Control:
    """What an instance's controls came to."""

    instance: Instance
    num_gold: int
    """Times that gold resolved it."""
    num_empty: int
    """Times that the empty patch resolved it."""
    num_repeats: int
    faults: tuple[str, ...]
    """What is wrong with the instance; none = it can be used."""
    gold_run: TestRun | None = None
    """What each test comes to after people's fix."""

    @property
    def passed(self) -> bool:
        return not self.faults


def check_controls(
    instances: Sequence[Instance],
    repositories: Path,
    settings: TestSettings,
    *,
    num_repeats: int = 3,
    num_workers: int = 1,
) -> Iterator[Control]:
    """One for each instance, in their order. Raises ConfigError where tests cannot be run at all."""
    yield from side_by_side(
        lambda one: _check(one, repositories, settings, num_repeats), instances, num_workers
    )


def _check(instance: Instance, repositories: Path, settings: TestSettings, num_repeats: int) -> Control:
    try:
        gold = [judge_patch(instance, instance.patch, repositories, settings) for _ in range(num_repeats)]
        empty = [judge_patch(instance, "", repositories, settings) for _ in range(num_repeats)]
    except DataError as error:
        return Control(instance, 0, 0, num_repeats, (error.line,))
    num_gold, num_empty = (sum(one.is_resolved for one in verdicts) for verdicts in (gold, empty))
    faults = tuple(control_faults(instance, gold, empty))
    return Control(instance, num_gold, num_empty, num_repeats, faults, gold[0].run)


def control_faults(instance: Instance, gold: Sequence[Verdict], empty: Sequence[Verdict]) -> list[str]:
    """What is wrong with an instance, told by repeated runs of both controls."""
    faults = []
    unresolved = [one for one in gold if not one.is_resolved]
    if unresolved:
        told = unresolved[0].note or unresolved[0].status
        faults.append(f"gold resolves it {len(gold) - len(unresolved)} times of {len(gold)}: {told}")
    num_resolved = sum(one.is_resolved for one in empty)
    if num_resolved:
        faults.append(f"the empty patch resolves it {num_resolved} times of {len(empty)}")
    runs = [one.run for one in empty if one.run is not None]
    if any(run.fault for run in runs):
        faults.append(f"without a patch: {next(run.fault for run in runs if run.fault)}")
    elif runs:
        already = [test for test in instance.fail_to_pass if runs[0].has_passed(test)]
        never = [test for test in instance.pass_to_pass if not runs[0].has_passed(test)]
        faults += [f"{test} is to fail before the fix, and passes" for test in already[:3]]
        faults += [f"{test} is to pass before the fix, and is {runs[0].of(test)}" for test in never[:3]]
    for name, verdicts in (("gold", gold), ("the empty patch", empty)):
        faults += _unstable(instance, name, [one.run for one in verdicts if one.run is not None])
    return faults


def _unstable(instance: Instance, name: str, runs: Sequence[TestRun]) -> list[str]:
    faults = []
    for test in instance.tests:
        seen = sorted({run.of(test) for run in runs})
        if len(seen) > 1:
            faults.append(f"with {name}, {test} is now {' and now '.join(seen)}")
    return faults[:3]
