"""The gain of one candidate: its test, its interval and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from raytrain.errors import ConfigError
from raytrain.evaluation.statistics.equivalence import beyond, equivalent
from raytrain.evaluation.statistics.means import design_effect, paired_t, standard_error, t_interval
from raytrain.evaluation.statistics.pairs import Interval, Pairs, Test
from raytrain.evaluation.statistics.power import (
    items_for_equivalence,
    items_for_mean,
    items_for_shares,
    needs_about,
    smallest_gain_of_mean,
    smallest_gain_of_shares,
)
from raytrain.evaluation.statistics.proportions import mcnemar_mid_p, most_failures, tango_interval
from raytrain.evaluation.statistics.unanimity import common_difference, unanimous_interval, unanimous_test

Word = Literal["better", "worse", "equivalent", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """What the items say. `needs_items` stands beside `cannot tell`: so many would tell; always more than there are.
    Beyond MOST_ITEMS no number within reach would."""

    word: Word
    gain: float
    interval: Interval
    test: Test
    margin: float
    smallest_gain: float | None
    """What items like these see four times out of five; None where they see nothing."""
    needs_items: int | None = None

    def sentence(self, *, of_failures: bool = False) -> str:
        """For a person: points are hundredths, of failures where what is told beside them counts failures."""
        gain, low, high = self.gain, self.interval.low, self.interval.high
        points = "points"
        if of_failures:
            gain, low, high = (0.0 - one for one in (gain, high, low))
            points = "points of failures"
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        told = (
            f"{self.word}: {100 * gain:+.1f} {points} ({100 * self.interval.level:g} % interval {interval})"
        )
        return told if self.needs_items is None else f"{told}; {needs_about(self.needs_items)}"


def gain_test(pairs: Pairs) -> Test:
    """Right or wrong, item by item: McNemar's mid-p. Graded, or in groups: the paired t test; where all units show the
    same difference, what their number alone says."""
    if pairs.groups is None and pairs.is_binary:
        return mcnemar_mid_p(pairs.num_won, pairs.num_lost)
    return paired_t(pairs) if common_difference(pairs) is None else unanimous_test(pairs)


def gain_interval(pairs: Pairs, level: float = 0.95) -> Interval:
    """Of the mean difference, by the method that belongs to `gain_test`."""
    if pairs.groups is None and pairs.is_binary:
        return tango_interval(pairs.num_won, pairs.num_lost, len(pairs), level)
    return t_interval(pairs, level) if common_difference(pairs) is None else unanimous_interval(pairs, level)


def judge_gain(pairs: Pairs, *, margin: float, level: float = 0.05, p_value: float | None = None) -> Verdict:
    """Better or worse where the test says so at `level`, equivalent where the gain surely lies inside ±margin.

    p_value: the test's after a correction for several; None = as it is. Raises ConfigError where the margin is none.
    """
    if not 0.0 < margin < 1.0:
        raise ConfigError(
            f"a margin of {margin:g} cannot be used",
            why="it is a share of the score, above 0 and below 1",
            fix="write 2 points as 0.02",
        )
    test = gain_test(pairs)
    p_value = test.p_value if p_value is None else p_value
    gain, interval = pairs.gain, gain_interval(pairs, 1.0 - level)
    smallest = smallest_gain(pairs, level=level)
    word: Word = "cannot tell"
    if p_value <= level:
        word = "better" if gain > 0 else "worse"
    elif equivalent(pairs, margin).p_value <= level:
        word = "equivalent"
    needs = None
    if word == "cannot tell":
        needs = needed_items(pairs, margin, level=level)
        if needs is not None and needs <= len(pairs):
            held_to = level_after(test.p_value, p_value, level)
            needs = items_to_tell(
                gain,
                margin,
                len(pairs),
                lambda size: needed_items(pairs, size, level=held_to),
                lambda: equivalent_items(pairs, margin, level=level),
            )
    return Verdict(word, gain, interval, test, margin, smallest, needs)


def judge_beyond(
    pairs: Pairs, *, margin: float, level: float = 0.05, p_value: float | None = None
) -> Verdict:
    """Better or worse only by surely more than `margin`, equivalent where surely less apart: for what is not measured
    under the same conditions on both sides, where a difference of less says nothing.

    p_value: that of `beyond` after a correction for several; None = as it is.
    """
    test = beyond(pairs, margin)
    word: Word = "cannot tell"
    if (test.p_value if p_value is None else p_value) <= level:
        word = "better" if pairs.gain > 0 else "worse"
    elif equivalent(pairs, margin).p_value <= level:
        word = "equivalent"
    interval = gain_interval(pairs, 1.0 - level)
    return Verdict(word, pairs.gain, interval, test, margin, smallest_gain(pairs, level=level))


def level_after(p_value: float, corrected: float, level: float) -> float:
    """What a test must come to so that it is at most `level` once it is corrected, as far as this correction shows."""
    return level * p_value / corrected if corrected > p_value else level


def items_to_tell(
    gain: float,
    margin: float,
    num_items: int,
    to_see: Callable[[float], int | None],
    to_equate: Callable[[], int | None],
) -> int | None:
    """Items that would tell, where so many did not though they suffice for the gain that is sought: those that see a
    gain like the one seen, or say that it is less than `margin`, whichever takes fewer. Always more than there are."""
    size = abs(gain)
    found = [to_see(size)] if size > 0.0 else []
    if size < margin:
        found.append(to_equate())
    return min((max(one, num_items + 1) for one in found if one is not None), default=None)


def smallest_gain(pairs: Pairs, *, level: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest gain that items like these see with that chance; groups count for as few items as they are worth."""
    if pairs.is_binary:
        num_items = int(len(pairs) / design_effect(pairs))
        return smallest_gain_of_shares(num_items, _discordance(pairs), level=level, power=power)
    error, freedom = standard_error(pairs)
    units = int(freedom) + 1
    return smallest_gain_of_mean(units, error * math.sqrt(units), level=level, power=power)


def needed_items(pairs: Pairs, gain: float, *, level: float = 0.05, power: float = 0.8) -> int | None:
    """Items like these that see a gain of that size with that chance; None where nothing is known of their spread."""
    effect = design_effect(pairs)
    if not math.isfinite(effect):
        return None
    if pairs.is_binary:
        return math.ceil(items_for_shares(gain, _discordance(pairs), level=level, power=power) * effect)
    deviation = float(np.std(pairs.differences, ddof=1)) if len(pairs) > 1 else 0.0
    if deviation == 0.0:
        return None
    return math.ceil(items_for_mean(gain, deviation, level=level, power=power) * effect)


def equivalent_items(pairs: Pairs, margin: float, *, level: float = 0.05, power: float = 0.8) -> int | None:
    """Items like these that say with such a chance that the gain seen lies inside ±margin; None as above."""
    effect = design_effect(pairs)
    if not math.isfinite(effect) or len(pairs) < 2:
        return None
    deviation = float(np.std(pairs.differences, ddof=1)) or math.sqrt(most_failures(pairs.num_units))
    return math.ceil(items_for_equivalence(pairs.gain, margin, deviation, level=level, power=power) * effect)


def _discordance(pairs: Pairs) -> float:
    """Share of items on which the two differ; where none does, the most that this leaves open."""
    num_discordant = pairs.num_won + pairs.num_lost
    return num_discordant / len(pairs) if num_discordant else most_failures(pairs.num_units)


@dataclass(frozen=True)
class PooledGain:
    """Over several suites. `weights` add up to 1 and are told with every figure made of them."""

    gain: float
    interval: Interval
    test: Test
    weights: dict[str, float]
    error: float
    """Standard error of the gain, with its degrees of freedom."""
    freedom: float


def pool(
    suites: Mapping[str, Pairs], weights: Mapping[str, float] | None = None, level: float = 0.95
) -> PooledGain:
    """Weighted mean of the suites' gains, whose items are independent between suites. Without weights each item weighs
    the same.

    Strata: Cochran 1977, "Sampling techniques", chapter 5; degrees of freedom: Satterthwaite 1946. Raises ConfigError
    where weights name other suites, or are not positive.
    """
    given = {name: float(len(pairs)) for name, pairs in suites.items()} if weights is None else dict(weights)
    if not suites or set(given) != set(suites) or not all(weight > 0 for weight in given.values()):
        raise ConfigError(
            "the suites cannot be pooled",
            why=f"suites: {', '.join(sorted(suites)) or 'none'}; weights: {given}",
            fix="give every suite a weight above 0, or leave the weights out",
        )
    total = sum(given.values())
    shares = {name: given[name] / total for name in suites}
    gain = sum(shares[name] * pairs.gain for name, pairs in suites.items())
    parts = [
        ((shares[name] * _error(pairs)) ** 2, max(1, pairs.num_units - 1)) for name, pairs in suites.items()
    ]
    variance = sum(part for part, _ in parts)
    if not math.isfinite(variance):
        unbounded = Interval(-math.inf, math.inf, level, "t, pooled")
        return PooledGain(gain, unbounded, Test(1.0, 0.0, "t, pooled"), shares, math.inf, 1.0)
    freedom = variance**2 / sum(part**2 / units for part, units in parts if part > 0)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf((1.0 + level) / 2.0, freedom)) * error
    t = gain / error
    test = Test(float(2.0 * stats.t.sf(abs(t), freedom)), t, "t, pooled")
    interval = Interval(gain - reach, gain + reach, level, "t, pooled")
    return PooledGain(gain, interval, test, shares, error, freedom)


def _error(pairs: Pairs) -> float:
    """Standard error; where nothing varies, what the interval's width says of it."""
    if common_difference(pairs) is None:
        return standard_error(pairs)[0]
    return gain_interval(pairs).width / (2 * float(stats.norm.ppf(0.975)))
