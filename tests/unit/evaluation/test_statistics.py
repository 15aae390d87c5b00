"""Against statsmodels where it has the test, against printed examples, and against the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, power, proportion, weightstats
from statsmodels.stats.descriptivestats import sign_test as their_sign_test

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.decision.quantity import needs
from raytrain.evaluation.statistics.bootstrap import bootstrap_interval
from raytrain.evaluation.statistics.corrections import benjamini_hochberg, holm
from raytrain.evaluation.statistics.equivalence import beyond, equivalent, no_worse
from raytrain.evaluation.statistics.gains import (
    gain_interval,
    judge_beyond,
    judge_gain,
    needed_items,
    pool,
    smallest_gain,
)
from raytrain.evaluation.statistics.means import (
    design_effect,
    paired_t,
    sign_test,
    standard_error,
    t_interval,
    wilcoxon,
)
from raytrain.evaluation.statistics.pairs import Pairs, pair
from raytrain.evaluation.statistics.power import (
    MOST_ITEMS,
    about,
    items_for_equivalence,
    items_for_mean,
    items_for_shares,
    mcnemar_power,
    smallest_gain_of_mean,
    smallest_gain_of_shares,
    t_power,
)
from raytrain.evaluation.statistics.proportions import (
    cohens_h,
    mcnemar_exact,
    mcnemar_mid_p,
    most_failures,
    tango_interval,
    tango_statistic,
    wilson_interval,
)

pytestmark = pytest.mark.whole

counts = st.integers(0, 60)


def graded(seed: int, num_items: int = 40, gain: float = 0.1) -> Pairs:
    generator = np.random.default_rng(seed)
    baseline = generator.random(num_items)
    return pair(baseline, baseline + generator.normal(gain, 0.3, num_items))


def right_or_wrong(num_won: int, num_lost: int, num_items: int) -> Pairs:
    """Wins first, then losses, then items that both have right."""
    baseline = np.ones(num_items)
    candidate = np.ones(num_items)
    baseline[:num_won] = 0.0
    candidate[num_won : num_won + num_lost] = 0.0
    return pair(baseline, candidate)


@given(right=counts, wrong=counts, level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_statsmodels(right: int, wrong: int, level: float) -> None:
    if right + wrong == 0:
        return
    low, high = proportion.proportion_confint(right, right + wrong, alpha=1 - level, method="wilson")
    found = wilson_interval(right, right + wrong, level)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@given(before=st.floats(0, 1), after=st.floats(0, 1))
def test_cohens_h_is_statsmodels(before: float, after: float) -> None:
    assert cohens_h(before, after) == pytest.approx(proportion.proportion_effectsize(after, before), abs=1e-9)


def test_no_failure_is_an_upper_bound() -> None:
    for num_items in (1, 10, 300, 5000):
        exact = proportion.proportion_confint(0, num_items, alpha=0.1, method="beta")[1]
        assert most_failures(num_items) == pytest.approx(exact, abs=1e-9)
    assert most_failures(300) == pytest.approx(3 / 300, rel=0.01)


@given(won=counts, lost=counts)
def test_mcnemar_is_statsmodels(won: int, lost: int) -> None:
    theirs = contingency_tables.mcnemar([[30, won], [lost, 30]], exact=True)
    if won + lost:
        assert mcnemar_exact(won, lost).p_value == pytest.approx(theirs.pvalue, abs=1e-9)
    assert mcnemar_mid_p(won, lost).p_value <= mcnemar_exact(won, lost).p_value
    assert mcnemar_mid_p(won, lost).p_value == pytest.approx(mcnemar_mid_p(lost, won).p_value)


@pytest.mark.parametrize(
    ("won", "lost", "exact", "mid"),
    [(0, 0, 1, 1), (1, 7, 18 / 256, 10 / 256), (5, 5, 1, 1 - 126 / 1024), (0, 4, 2 / 16, 1 / 16)],
)
def test_mid_p_by_counting(won: int, lost: int, exact: float, mid: float) -> None:
    """1 against 7: airway hyper-responsiveness before and after transplantation, Fagerland et al. 2013, table 1."""
    assert mcnemar_exact(won, lost).p_value == pytest.approx(exact, abs=1e-12)
    assert mcnemar_mid_p(won, lost).p_value == pytest.approx(mid, abs=1e-12)


def test_the_score_interval_of_the_printed_example() -> None:
    """The same table of 21 patients: Tango's interval for 1/21 - 7/21 is printed as -0.517 to -0.026."""
    found = tango_interval(1, 7, 21)
    assert (found.low, found.high) == (pytest.approx(-0.517, abs=1e-3), pytest.approx(-0.026, abs=1e-3))


@given(won=counts, lost=counts, same=counts, level=st.sampled_from([0.8, 0.95]))
def test_the_score_interval_ends_where_the_statistic_says(
    won: int, lost: int, same: int, level: float
) -> None:
    num_items = won + lost + same
    if num_items == 0:
        return
    found = tango_interval(won, lost, num_items, level)
    limit = stats.norm.ppf((1 + level) / 2)
    assert -1 <= found.low <= (won - lost) / num_items <= found.high <= 1
    assert found.width > 0
    if found.low > -1:
        assert tango_statistic(won, lost, num_items, found.low) == pytest.approx(limit, abs=1e-4)
    if found.high < 1:
        assert tango_statistic(won, lost, num_items, found.high) == pytest.approx(-limit, abs=1e-4)
    other = tango_interval(lost, won, num_items, level)
    assert (other.low, other.high) == (
        pytest.approx(-found.high, abs=1e-6),
        pytest.approx(-found.low, abs=1e-6),
    )
    # At no difference it is McNemar's own statistic.
    if won + lost:
        assert tango_statistic(won, lost, num_items, 0.0) == pytest.approx(
            (won - lost) / math.sqrt(won + lost)
        )


@pytest.mark.parametrize("seed", range(5))
def test_means_are_statsmodels(seed: int) -> None:
    pairs = graded(seed)
    theirs = weightstats.DescrStatsW(pairs.differences)
    statistic, p_value, freedom = theirs.ttest_mean(0.0)
    found = paired_t(pairs)
    assert (found.statistic, found.p_value) == (
        pytest.approx(statistic, abs=1e-9),
        pytest.approx(p_value, abs=1e-9),
    )
    assert standard_error(pairs) == (pytest.approx(theirs.std_mean, abs=1e-12), freedom)
    low, high = theirs.tconfint_mean()
    interval = t_interval(pairs)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert sign_test(pairs).p_value == pytest.approx(their_sign_test(pairs.differences)[1], abs=1e-9)
    assert wilcoxon(pairs).p_value == pytest.approx(stats.wilcoxon(pairs.differences).pvalue, abs=1e-12)
    margin = 0.25
    p_value, below, _ = theirs.ttost_mean(-margin, margin)
    assert equivalent(pairs, margin).p_value == pytest.approx(p_value, abs=1e-9)
    assert no_worse(pairs, margin).p_value == pytest.approx(below[1], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_clustered_errors_are_statsmodels(seed: int) -> None:
    """A regression on a constant with cluster-robust errors, small-sample factor units / (units - 1)."""
    import statsmodels.api as sm

    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 9, 80)
    differences = generator.normal(0.1, 0.2, 80) + generator.normal(0, 0.3, 9)[groups]
    pairs = pair(np.zeros(80), differences, groups.tolist())
    fitted = sm.OLS(differences, np.ones(80)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}
    )
    # statsmodels multiplies by (n - 1) / (n - k) besides, which is 1 for a constant.
    assert standard_error(pairs)[0] == pytest.approx(float(fitted.bse[0]), abs=1e-9)
    assert standard_error(pairs)[1] == pairs.num_units - 1
    assert design_effect(pairs) > 1.0


def test_groups_of_one_item_are_no_groups() -> None:
    alone = graded(1)
    grouped = pair(alone.baseline, alone.candidate, list(range(len(alone))))
    assert standard_error(grouped) == (pytest.approx(standard_error(alone)[0]), standard_error(alone)[1])
    mine, other = bootstrap_interval(alone, num_draws=500), bootstrap_interval(grouped, num_draws=500)
    assert mine is not None and other is not None
    assert (mine.low, mine.high) == (pytest.approx(other.low), pytest.approx(other.high))


@pytest.mark.slow
@pytest.mark.parametrize("num_tests", [1, 2, 7, 30])
def test_corrections_are_statsmodels(num_tests: int) -> None:
    p_values = (
        (np.random.default_rng(num_tests).random(num_tests) ** 3).round(2).tolist()
    )  # small ones, some equal
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1], abs=1e-9)
    assert benjamini_hochberg(p_values) == pytest.approx(
        multitest.multipletests(p_values, method="fdr_bh")[1], abs=1e-9
    )


def test_nothing_to_correct() -> None:
    assert holm([]) == benjamini_hochberg([]) == []


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_bootstrap_intervals_lie_about_the_mean_and_repeat(method: Any) -> None:
    pairs = graded(3, num_items=200)
    first = bootstrap_interval(pairs, method=method, num_draws=2000, seed=5)
    assert first == bootstrap_interval(pairs, method=method, num_draws=2000, seed=5)
    t = t_interval(pairs)
    assert first is not None
    assert first.low == pytest.approx(t.low, abs=0.01) and first.high == pytest.approx(t.high, abs=0.01)


def test_bca_follows_skew_where_the_percentile_does_not() -> None:
    generator = np.random.default_rng(0)
    skewed = pair(np.zeros(40), generator.exponential(1.0, 40))
    plain, corrected = (
        bootstrap_interval(skewed, method=method, num_draws=4000) for method in ("percentile", "BCa")
    )
    assert plain is not None and corrected is not None
    assert corrected.low > plain.low and corrected.high > plain.high


def test_groups_widen_the_bootstrap() -> None:
    generator = np.random.default_rng(1)
    of_group = generator.normal(0, 0.5, 20)
    differences = np.repeat(of_group, 10) + generator.normal(0, 0.1, 200)
    alone = bootstrap_interval(pair(np.zeros(200), differences), num_draws=1000)
    grouped = bootstrap_interval(
        pair(np.zeros(200), differences, np.repeat(np.arange(20), 10).tolist()), num_draws=1000
    )
    assert alone is not None and grouped is not None
    assert grouped.width > 2 * alone.width


def test_draws_that_do_not_vary_give_no_interval() -> None:
    assert bootstrap_interval(right_or_wrong(0, 0, 50)) is None
    assert bootstrap_interval(pair([0.0], [1.0])) is None


@pytest.mark.parametrize(
    ("num_items", "won", "lost"), [(40, 0.2, 0.05), (200, 0.12, 0.06), (1000, 0.10, 0.07)]
)
def test_power_is_what_happens(num_items: int, won: float, lost: float) -> None:
    """20,000 trials: a standard error of 0.35 points."""
    generator = np.random.default_rng(7)
    drawn = generator.multinomial(num_items, [won, lost, 1 - won - lost], size=20_000)
    tables = {(int(w), int(x)) for w, x, _ in drawn}
    called = {table: mcnemar_mid_p(*table).p_value <= 0.05 and table[0] > table[1] for table in tables}
    seen = np.mean([called[int(w), int(x)] for w, x, _ in drawn])
    assert mcnemar_power(num_items, won, lost) == pytest.approx(seen, abs=0.012)


def test_power_of_means_is_statsmodels() -> None:
    for num_items, gain in ((10, 0.9), (50, 0.3), (400, 0.12)):
        theirs = power.TTestPower().power(gain, num_items, 0.05, alternative="two-sided")
        other_side = power.TTestPower().power(-gain, num_items, 0.05, alternative="larger")
        assert t_power(num_items, gain, 1.0) == pytest.approx(theirs, abs=2e-4 + other_side)
    theirs = power.TTestPower().solve_power(effect_size=0.3, alpha=0.05, power=0.8)
    assert items_for_mean(0.3, 1.0) == math.ceil(theirs)
    found = smallest_gain_of_mean(50, 1.0)
    assert found == pytest.approx(power.TTestPower().solve_power(nobs=50, alpha=0.05, power=0.8), abs=1e-4)


@pytest.mark.thorough
@pytest.mark.slow
def test_where_no_number_of_items_within_reach_would_tell_it_is_said() -> None:
    for gain in (1e-5, 1e-9, 1e-150):
        assert items_for_shares(gain, 0.2) > MOST_ITEMS and items_for_mean(gain, 1.0) > MOST_ITEMS
    assert items_for_equivalence(0.01 - 1e-9, 0.01, 0.5) > MOST_ITEMS
    wins = math.sqrt(2.80**2 * 0.2 / 9_500_000)
    assert 9_000_000 < items_for_shares(wins, 0.2) < MOST_ITEMS, "this many would do"
    verdict = judge_gain(right_or_wrong(500_001, 500_000, 5_000_000), margin=1e-6)
    assert verdict.word == "cannot tell" and (verdict.needs_items or 0) > MOST_ITEMS
    assert "no number of items within reach would tell" in verdict.sentence()
    assert needs(verdict.needs_items) in verdict.sentence() and "needs about" not in verdict.sentence()


def test_items_and_smallest_gain_belong_together() -> None:
    for discordance in (0.05, 0.2, 0.6):
        for num_items in (200, 1000):
            gain = smallest_gain_of_shares(num_items, discordance)
            assert gain is not None
            assert items_for_shares(gain, discordance) == pytest.approx(num_items, rel=0.04)
    # 2.80 * sqrt(discordance / items), the rule of thumb.
    assert smallest_gain_of_shares(200, 0.2) == pytest.approx(2.80 * math.sqrt(0.2 / 200), rel=0.05)
    assert smallest_gain_of_shares(5, 0.2) is None, "five items see nothing"
    assert items_for_shares(0.03, 0.0) > 0
    assert smallest_gain_of_mean(1, 1.0) is None


@pytest.mark.parametrize(
    ("won", "lost", "num_items", "margin", "word"),
    [
        (30, 5, 100, 0.02, "better"),
        (5, 30, 100, 0.02, "worse"),
        (3, 3, 2000, 0.02, "equivalent"),
        (0, 0, 2000, 0.01, "equivalent"),
        (0, 0, 20, 0.02, "cannot tell"),
        (6, 3, 100, 0.02, "cannot tell"),
        (1, 0, 1, 0.02, "cannot tell"),
    ],
)
def test_verdicts_on_shares(won: int, lost: int, num_items: int, margin: float, word: str) -> None:
    verdict = judge_gain(right_or_wrong(won, lost, num_items), margin=margin)
    assert verdict.word == word
    assert (verdict.needs_items is not None) == (word == "cannot tell")
    assert verdict.sentence().startswith(word)
    if word == "cannot tell":
        assert verdict.needs_items is not None and verdict.needs_items > num_items
        assert f"needs about {about(verdict.needs_items):,} items" in verdict.sentence()


def test_verdicts_on_grades_and_groups() -> None:
    assert judge_gain(graded(0, 300, gain=0.2), margin=0.02).word == "better"
    assert judge_gain(graded(0, 300, gain=-0.2), margin=0.02).word == "worse"
    same = graded(0, 30, gain=0.0)
    assert judge_gain(pair(same.baseline, same.baseline), margin=0.5).word == "equivalent"
    # Ten copies of each item are no more evidence than one.
    once = right_or_wrong(9, 2, 60)
    copied = pair(
        np.repeat(once.baseline, 10), np.repeat(once.candidate, 10), np.repeat(np.arange(60), 10).tolist()
    )
    assert judge_gain(pair(copied.baseline, copied.candidate), margin=0.02).test.p_value < 1e-6
    assert judge_gain(copied, margin=0.02).test.p_value == pytest.approx(paired_t(once).p_value, rel=1e-6)
    assert design_effect(copied) == pytest.approx(10, rel=0.03)
    assert smallest_gain(copied) == pytest.approx(smallest_gain(once), rel=0.05)
    assert needed_items(copied, 0.1) == pytest.approx(10 * (needed_items(once, 0.1) or 0), rel=0.05)


def test_a_corrected_p_value_decides() -> None:
    pairs = right_or_wrong(16, 6, 100)
    assert judge_gain(pairs, margin=0.02).word == "better"
    assert judge_gain(pairs, margin=0.02, p_value=0.12).word == "cannot tell"


def test_where_nothing_varies_the_number_of_items_gives_the_interval_its_width() -> None:
    few, many = gain_interval(right_or_wrong(0, 0, 30)), gain_interval(right_or_wrong(0, 0, 3000))
    assert few.high == pytest.approx(-few.low) and 0.1 < few.high < 0.12
    assert many.high < 0.002
    grouped = pair(np.ones(100), np.ones(100), np.repeat(np.arange(10), 10).tolist())
    assert gain_interval(grouped).high > 0.2, "ten groups are ten"
    assert no_worse(right_or_wrong(0, 0, 30), 0.01).p_value > 0.05


@pytest.mark.parametrize(
    ("baseline", "candidate", "groups"),
    [
        ([0, 0], [1, 1], ["a", "b"]),
        ([0.25] * 2, [0.5] * 2, None),
        ([0.5] * 30, [0.75] * 30, None),
        ([0.1] * 30, [0.4] * 30, None),
        ([0.5] * 30, [0.46875] * 30, None),
        ([0, 1] * 10, [1, 0] * 10, [i // 2 for i in range(20)]),
        ([0, 0, 0, 0], [1, 0, 1, 0], list("aabb")),
        ([0, 1, 0], [1, 1, 1], ["a"] * 3),
        ([1.0], [0.5], None),
        ([0, 1], [1, 0], None),
    ],
)
def test_units_that_all_say_the_same_are_evidence_by_their_number_alone(
    baseline: list[float], candidate: list[float], groups: list[Any] | None
) -> None:
    pairs = pair(baseline, candidate, groups)
    verdict = judge_gain(pairs, margin=0.05)
    assert verdict.interval.low <= verdict.gain <= verdict.interval.high
    assert verdict.interval.width > 0
    excludes_zero = verdict.interval.low > 0 or verdict.interval.high < 0
    assert (verdict.word in ("better", "worse")) == excludes_zero, "the test and its interval agree"
    if pairs.num_units <= 3:
        assert verdict.word == "cannot tell"
    if groups is not None:
        assert pool({"one": pairs, "two": graded(1)}).interval.width > 0


def test_unanimity_by_counting() -> None:
    two = pair([0, 0], [1, 1], ["a", "b"])
    assert judge_gain(two, margin=0.05).test.p_value == pytest.approx(0.25), "as the sign test of two"
    constant = pair([0.5] * 30, [0.46875] * 30)
    assert no_worse(constant, 0.2).p_value < 0.05 < no_worse(constant, 0.05).p_value
    assert no_worse(constant, 0.03).p_value == 1.0, "it loses more than that"
    outside = gain_interval(pair([1.0] * 9, [3.0] * 9))
    assert (outside.low, outside.high) == (-math.inf, math.inf), (
        "without bounds on the scores nothing follows"
    )


def test_groups_count_once_where_ranks_and_signs_are_counted() -> None:
    baseline, candidate = np.zeros(20), np.zeros(20)
    candidate[:10] = 1.0
    groups = ["one"] * 10 + [f"other{i}" for i in range(10)]
    assert sign_test(pair(baseline, candidate)).p_value < 0.01
    assert sign_test(pair(baseline, candidate, groups)).p_value == 1.0
    assert wilcoxon(pair(baseline, candidate, groups)).p_value > 0.3


def test_one_group_says_nothing_of_what_is_needed() -> None:
    one = pair([0, 1, 0], [1, 1, 1], ["a"] * 3)
    assert design_effect(one) == math.inf
    assert needed_items(one, 0.1) is None
    assert smallest_gain(one) is None


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, 5.0, math.nan])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ConfigError, match="margin"):
        judge_gain(graded(0), margin=margin)


def test_pooling_says_its_weights() -> None:
    suites = {"maths": right_or_wrong(20, 10, 300), "code": right_or_wrong(4, 6, 100)}
    found = pool(suites)
    assert found.weights == {"maths": 0.75, "code": 0.25}
    assert found.gain == pytest.approx((10 - 2) / 400)
    even = pool(suites, {"maths": 1, "code": 1})
    assert even.gain == pytest.approx((10 / 300 - 2 / 100) / 2)
    assert even.interval.low < even.gain < even.interval.high
    one = pool({"only": graded(2)})
    assert one.test.p_value == pytest.approx(paired_t(graded(2)).p_value)
    with pytest.raises(ConfigError, match="cannot be pooled"):
        pool(suites, {"maths": 1})
    with pytest.raises(ConfigError, match="cannot be pooled"):
        pool({})


@pytest.mark.parametrize(
    ("baseline", "candidate", "groups", "match"),
    [
        ([], [], None, "nothing to compare"),
        ([1.0], [1.0, 0.0], None, "cannot be paired"),
        ([1.0], [math.nan], None, "1 of 1 scores are not numbers"),
        ([1.0, 1.0], [0.0, 1.0], ["a"], "cannot be paired"),
    ],
)
def test_what_cannot_be_paired(
    baseline: list[float], candidate: list[float], groups: list[str] | None, match: str
) -> None:
    with pytest.raises(DataError, match=match):
        pair(baseline, candidate, groups)


@pytest.mark.parametrize("graded_scores", [False, True])
def test_a_loss_does_not_hide_in_groups_that_hardly_differ(graded_scores: bool) -> None:
    """Two models that have nearly solved a suite; the candidate truly loses 1 point, in a handful of items. The t test
    alone calls it no worse in 15 % of these trials."""
    generator = np.random.default_rng(4)
    num_groups, trials = 50, 600
    groups = np.repeat(np.arange(num_groups), 10).tolist()
    called = 0
    for _ in range(trials):
        hard = np.repeat(generator.random(num_groups) < 0.1, 10)  # losses come together
        lost = hard & (generator.random(500) < 0.105)
        won = ~lost & (generator.random(500) < 0.0005)
        size = 0.95 if graded_scores else 1.0
        pairs = pair(np.where(lost, size, 0.0), np.where(won, size, 0.0), groups)
        called += no_worse(pairs, 0.01).p_value <= 0.025
    assert called / trials <= 0.05


def test_groups_of_one_are_no_less_sure_than_items() -> None:
    """The guard against hidden losses costs nothing where differences are many."""
    generator = np.random.default_rng(6)
    baseline = (generator.random(2000) < 0.5).astype(float)
    candidate = np.where(generator.random(2000) < 0.2, 1.0 - baseline, baseline)
    alone, in_groups = pair(baseline, candidate), pair(baseline, candidate, list(range(2000)))
    assert no_worse(in_groups, 0.03).p_value == pytest.approx(no_worse(alone, 0.03).p_value, abs=0.003)


@pytest.mark.parametrize("sign", [-1, 1])
def test_beyond_a_margin_is_said_of_what_lies_on_it_as_seldom_as_its_level(sign: int) -> None:
    generator = np.random.default_rng(3)
    worlds = [pair(np.zeros(40), generator.normal(sign * 0.2, 0.3, 40)) for _ in range(2000)]
    said = np.mean([beyond(one, 0.2).p_value <= 0.05 for one in worlds])
    assert 0.015 < said < 0.036, (
        "half of the level lies on each side: 0.025, give or take three standard errors"
    )


def test_words_beyond_a_margin() -> None:
    generator = np.random.default_rng(4)

    def word(gain: float, margin: float) -> str:
        return judge_beyond(pair(np.zeros(60), generator.normal(gain, 0.1, 60)), margin=margin).word

    told = [word(0.5, 0.2), word(-0.5, 0.2), word(-0.1, 0.2), word(-0.2, 0.2)]
    assert told == ["better", "worse", "equivalent", "cannot tell"]
