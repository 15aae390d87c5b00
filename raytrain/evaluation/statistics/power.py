"""How many items it takes, and what so many can see."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

MOST_ITEMS = 10_000_000
"""More are out of anybody's reach."""
_OUT_OF_REACH = MOST_ITEMS + 1
"""Stands for any number beyond; nobody looks which."""


def mcnemar_power(num_items: int, share_won: float, share_lost: float, level: float = 0.05) -> float:
    """Chance that the mid-p test calls the candidate better, at shares of items that it wins and loses.

    Exact: the chance of each number of discordant items, times that of enough wins among them; Duffy 1984,
    "Asymptotic and exact power for the McNemar test", Biometrics 40, with the mid-p test's limit.
    """
    discordance = share_won + share_lost
    if discordance <= 0.0 or num_items < 1:
        return 0.0
    tail = 1e-10
    least, most = (int(stats.binom.ppf(q, num_items, discordance)) for q in (tail, 1.0 - tail))
    counts = np.arange(max(1, least), most + 1)
    chances = stats.binom.pmf(counts, num_items, discordance)
    enough = _fewest_wins(counts, level)
    return float(np.sum(chances * stats.binom.sf(enough - 1, counts, share_won / discordance)))


def _fewest_wins(num_discordant: NDArray[np.int64], level: float) -> NDArray[np.int64]:
    """Wins among so many discordant items from which on mid-p is at most `level`; one more than all where none do."""
    # Mid-p of k wins is 2 P(X >= k) - P(X = k), which falls with k; the normal guess is at most a few off.
    wins = np.maximum(
        np.ceil(num_discordant / 2 + stats.norm.isf(level / 2) * np.sqrt(num_discordant) / 2) - 3, 0
    )
    found = np.full(len(num_discordant), -1.0)
    for _ in range(12):
        above_half = wins > num_discordant / 2
        p_values = 2 * stats.binom.sf(wins - 1, num_discordant, 0.5) - stats.binom.pmf(
            wins, num_discordant, 0.5
        )
        found = np.where((found < 0) & above_half & (p_values <= level), wins, found)
        wins = wins + 1
    return np.where(found < 0, num_discordant + 1, found).astype(np.int64)


def t_power(num_units: int, gain: float, deviation: float, level: float = 0.05) -> float:
    """Chance that the two-sided paired t test calls the candidate better; `deviation` is that of the differences.

    Noncentral t: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2.
    """
    if num_units < 2 or deviation <= 0.0:
        return 0.0
    freedom = num_units - 1
    limit = stats.t.isf(level / 2, freedom)
    return float(stats.nct.sf(limit, freedom, gain / deviation * math.sqrt(num_units)))


def items_for_shares(gain: float, discordance: float, *, level: float = 0.05, power: float = 0.8) -> int:
    """Items that the mid-p test needs to see such a gain with such a chance, where so many items are discordant."""
    discordance = min(1.0, max(discordance, gain))
    won, lost = (discordance + gain) / 2, (discordance - gain) / 2
    # Miettinen 1968, "The matched pairs design in the case of all-or-none responses": a first guess.
    reach = stats.norm.isf(level / 2) + stats.norm.isf(1 - power)
    return _fewest(lambda n: mcnemar_power(n, won, lost, level), power, reach**2 * discordance / gain**2)


def items_for_mean(gain: float, deviation: float, *, level: float = 0.05, power: float = 0.8) -> int:
    """The same for the paired t test."""
    reach = stats.norm.isf(level / 2) + stats.norm.isf(1 - power)
    return _fewest(lambda n: t_power(n, gain, deviation, level), power, (reach * deviation / gain) ** 2)


def items_for_equivalence(
    gain: float, margin: float, deviation: float, *, level: float = 0.05, power: float = 0.8
) -> int:
    """Items of which two one-sided tests at `level` say with such a chance that the difference lies inside ±margin,
    where it truly is `gain`, which must be less. Julious 2004, Statistics in Medicine 23, section on equivalence.
    """
    reach = float(stats.norm.isf(level))

    def chance(num_items: int) -> float:
        error = deviation / math.sqrt(num_items)
        sides = [float(stats.norm.cdf((margin + one) / error - reach)) for one in (gain, -gain)]
        return sum(sides) - 1.0

    nearest = margin - abs(gain)
    guess = ((reach + float(stats.norm.isf(1.0 - power))) * deviation / nearest) ** 2
    return _fewest(chance, power, guess)


def about(number: int) -> int:
    """Two leading digits: a number that nobody should take to the last item. Rounded up."""
    if number < 100:
        return number
    step = int(10 ** (len(str(number)) - 2))
    return -(-number // step) * step


def needs_about(number: int) -> str:
    """How many items would tell, in words."""
    if number > MOST_ITEMS:
        return f"no number of items within reach would tell, not even {MOST_ITEMS:,}"
    return f"needs about {about(number):,} items"


def _fewest(power_at: Callable[[int], float], power: float, guess: float) -> int:
    """Smallest number with at least that power, by halving; power rises with the number but for small steps.
    Beyond MOST_ITEMS where so many have less."""
    low, high = 1, max(2, int(min(guess, MOST_ITEMS)))
    while power_at(high) < power:
        if high == MOST_ITEMS:
            return _OUT_OF_REACH
        low, high = high, min(2 * high, MOST_ITEMS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high


def smallest_gain_of_shares(
    num_items: int, discordance: float, *, level: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest gain that the mid-p test sees with such a chance; None where even no loss at all is not enough."""

    def excess(gain: float) -> float:
        return mcnemar_power(num_items, (discordance + gain) / 2, (discordance - gain) / 2, level) - power

    if not 0.0 < discordance <= 1.0 or excess(discordance) < 0.0:
        return None
    return float(optimize.brentq(excess, 0.0, discordance, xtol=1e-6))


def smallest_gain_of_mean(
    num_units: int, deviation: float, *, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The same for the paired t test."""
    if num_units < 2 or not 0.0 < deviation < math.inf:
        return None
    most = deviation * 100.0
    return float(optimize.brentq(lambda gain: t_power(num_units, gain, deviation, level) - power, 0.0, most))
