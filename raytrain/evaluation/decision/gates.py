"""What a contract asks, one gate each: the rule in words, the number, its limit, and why it did or did not pass.

A candidate is promoted where every gate passed, so that a false promotion must get through all of them: each test may
use the whole level. Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from raytrain.evaluation.decision.contract import ContractSection, OverallSection, SuiteRules
from raytrain.evaluation.decision.quantity import Unit, counted, needs, plain_points, points, tell
from raytrain.evaluation.decision.verdicts import Together, enough_items, items_that_tell
from raytrain.evaluation.statistics.equivalence import no_worse
from raytrain.evaluation.statistics.gains import gain_interval
from raytrain.evaluation.statistics.pairs import Interval, Pairs
from raytrain.evaluation.statistics.planning import items_for_no_worse

Status = Literal["passed", "failed", "cannot tell"]

_POWER = 0.8
_ROUNDING = 1e-9
"""Of a weighted sum: three suites that gain 3 points each gain 3 points together."""


@dataclass(frozen=True)
class Gate:
    """One thing that was asked."""

    name: str
    rule: str
    """In words."""
    value: float | None
    limit: float
    unit: Unit
    status: Status
    why: str
    suite: str | None = None
    needs_items: int | None = None
    """Beside `cannot tell`: about so many would tell; beyond MOST_ITEMS no number within reach would."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def number(self) -> str:
        return tell(self.value, self.unit)


@dataclass(frozen=True)
class JudgedSuite:
    """What gates need of a suite."""

    rules: SuiteRules
    pairs: Pairs
    share_failed: float = 0.0


def gates_of_scores(
    contract: ContractSection,
    suites: Mapping[str, JudgedSuite],
    whole: Together,
    p_value: float | None = None,
) -> Iterator[Gate]:
    """All gates that scores decide, the cheapest first: who only asks whether all pass may stop early.

    p_value: of the whole, after a correction for several candidates; it counts in how many items would tell.
    """
    asked = contract.overall
    yield _overall_gain(whole, asked)
    yield _overall_chance(whole, asked, p_value)
    for name, suite in suites.items():
        yield from _of_suite(name, suite, contract)
    if asked.min_power is not None:
        yield _enough_items(whole, asked)


def _overall_gain(whole: Together, asked: OverallSection) -> Gate:
    gain = whole.pooled.gain
    passed = gain >= asked.min_gain - _ROUNDING
    return Gate(
        "overall: gain",
        f"the gain seen over all suites is at least {plain_points(asked.min_gain)}",
        gain,
        asked.min_gain,
        "points",
        "passed" if passed else "failed",
        f"{plain_points(asked.min_gain)} asked; {_interval(whole.pooled.interval)}",
    )


def _interval(found: Interval) -> str:
    return f"{100 * found.level:g} % interval {points(found.low)} to {points(found.high)}"


def _overall_chance(whole: Together, asked: OverallSection, p_value: float | None) -> Gate:
    test, gain = whole.pooled.test, whole.pooled.gain
    significant = test.p_value <= asked.level
    status: Status = "passed" if significant and gain > 0 else "failed" if significant else "cannot tell"
    why = f"{test.method}: {tell(test.p_value, 'p-value')}"
    needed = None
    if status == "cannot tell":
        why = f"{why}; chance alone may show such a gain"
        if whole.is_equivalent(asked.margin):
            why = f"{why}, and it is surely less than {plain_points(asked.margin)}"
        else:
            needed = items_that_tell(whole, asked, p_value)
            why = f"{why}: {needs(needed) or 'cannot say how many items it takes'}"
    return Gate(
        "overall: not by chance",
        f"two equal models would differ so much at most {100 * asked.level:g} times in 100",
        test.p_value,
        asked.level,
        "p-value",
        status,
        why,
        needs_items=needed,
    )


def _enough_items(whole: Together, asked: OverallSection) -> Gate:
    assert asked.min_power is not None
    power = whole.power_at(asked.sought)
    passed, needed = enough_items(whole, asked), None
    if passed and power < asked.min_power:
        why = f"the whole interval lies above {plain_points(asked.sought)}: more items are not needed"
    elif passed:
        why = f"{counted(whole.num_items, 'item')} see such a gain {100 * power:.0f} times in 100"
    else:
        needed = items_that_tell(whole, asked)
        why = (
            f"{counted(whole.num_items, 'item')} would see such a gain only {100 * power:.0f} times in 100: "
            f"{needs(needed) or 'nothing is known of their spread'}"
        )
    return Gate(
        "overall: enough items",
        f"a true gain of {plain_points(asked.sought)} is seen at least {100 * asked.min_power:g} times in 100, "
        "or the whole interval lies above it",
        power,
        asked.min_power,
        "power",
        "passed" if passed else "cannot tell",
        why,
        needs_items=needed,
    )


def _of_suite(name: str, suite: JudgedSuite, contract: ContractSection) -> Iterator[Gate]:
    rules, pairs = suite.rules, suite.pairs
    if rules.min_gain is not None:
        passed = pairs.gain >= rules.min_gain - _ROUNDING
        yield Gate(
            f"{name}: gain",
            f"the gain seen is at least {plain_points(rules.min_gain)}",
            pairs.gain,
            rules.min_gain,
            "points",
            "passed" if passed else "failed",
            f"{plain_points(rules.min_gain)} asked; "
            + _interval(gain_interval(pairs, 1.0 - contract.overall.level)),
            suite=name,
        )
    if rules.max_loss is not None:
        yield _no_loss(name, pairs, rules.max_loss, contract.overall)
    if rules.min_resolved is not None:
        net = pairs.num_won - pairs.num_lost
        yield Gate(
            f"{name}: resolved",
            f"items won less items lost are at least {rules.min_resolved:,}",
            float(net),
            float(rules.min_resolved),
            "items",
            "passed" if net >= rules.min_resolved else "failed",
            f"{pairs.num_won:,} won, {pairs.num_lost:,} lost",
            suite=name,
        )
    most = contract.limits.max_failed_items
    if most is not None:
        yield Gate(
            f"{name}: items without a score",
            f"at most {tell(most, 'share')} of the items have none, of either model",
            suite.share_failed,
            most,
            "share",
            "passed" if suite.share_failed <= most else "failed",
            "each counts as 0",
            suite=name,
        )


def _no_loss(name: str, pairs: Pairs, max_loss: float, asked: OverallSection) -> Gate:
    """One-sided at half the level, which is what the two-sided interval shows: its lower end above -max_loss."""
    low = gain_interval(pairs, 1.0 - asked.level).low
    test = no_worse(pairs, max_loss)
    needed = None
    if test.p_value <= asked.level / 2:
        status: Status = "passed"
        why = f"{test.method}: {tell(test.p_value, 'p-value')}"
    elif pairs.gain <= -max_loss:
        status, why = "failed", f"{points(pairs.gain)} points were seen"
    else:
        status = "cannot tell"
        power = asked.min_power or _POWER
        needed = items_for_no_worse(pairs, max_loss, level=asked.level / 2, power=power)
        why = f"cannot rule out a loss of more than {plain_points(max_loss)}: " + (
            needs(needed) or "nothing is known of the items' spread"
        )
    return Gate(
        f"{name}: no loss",
        f"a loss of {plain_points(max_loss)} is ruled out, as by the lower end of the "
        f"{100 * (1 - asked.level):g} % interval",
        low,
        -max_loss,
        "points at least",
        status,
        why,
        suite=name,
        needs_items=needed,
    )


def gate_of_many(
    p_value: float, num_candidates: int, asked: OverallSection, needs_items: int | None = None
) -> Gate:
    """Of several candidates the luckiest is chosen: its least certain test, corrected for how many there were.

    needs_items: of the verdict, which was corrected for them too.
    """
    passed = p_value <= asked.level
    needed = None if passed else needs_items
    why = f"{tell(p_value, 'p-value')} after the correction"
    return Gate(
        "several candidates",
        f"the least certain of its tests holds after {asked.correction} over {num_candidates} candidates",
        p_value,
        asked.level,
        "p-value",
        "passed" if passed else "cannot tell",
        why if needed is None else f"{why}: {needs(needed)}",
        needs_items=needed,
    )


def promotion_p_value(suites: Mapping[str, JudgedSuite], whole: Together) -> float:
    """Of the candidate's tests the least certain: small only where it gains and no suite loses. Two-sided scale."""
    if whole.pooled.gain <= 0:
        return 1.0
    of_suites = [
        2.0 * no_worse(one.pairs, one.rules.max_loss).p_value
        for one in suites.values()
        if one.rules.max_loss is not None
    ]
    return min(1.0, max([whole.pooled.test.p_value, *of_suites]))
