"""Our statistics beside scipy's and statsmodels'."""

import numpy as np
import pytest

from optaware.stats import benjamini_hochberg, holm, mcnemar, mean_interval, seeds_needed, sign_flip_test, wilson

contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
multitest = pytest.importorskip("statsmodels.stats.multitest")
power = pytest.importorskip("statsmodels.stats.power")
proportion = pytest.importorskip("statsmodels.stats.proportion")


@pytest.mark.parametrize(("gained", "lost", "same"), [(7, 1, 30), (40, 21, 500), (3, 3, 10), (0, 9, 1)])
def test_mcnemar(gained, lost, same):
    arm, baseline = [1] * gained + [0] * lost + [1] * same, [0] * gained + [1] * lost + [1] * same
    theirs = contingency.mcnemar([[same, lost], [gained, 0]], exact=True).pvalue
    assert mcnemar(arm, baseline).p_value == pytest.approx(min(1.0, theirs))


@pytest.mark.parametrize("count", [1, 2, 7, 45])
def test_corrections(count):
    values = np.random.default_rng(count).beta(0.5, 4, count)
    assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])
    assert benjamini_hochberg(values) == pytest.approx(multitest.multipletests(values, method="fdr_bh")[1])


@pytest.mark.parametrize(("right", "n"), [(0, 20), (13, 56), (99, 100), (277, 277)])
def test_wilson(right, n):
    low, high = proportion.proportion_confint(right, n, method="wilson")
    ours = wilson(right, n)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-12)


def test_student():
    from scipy.stats import t

    values = np.array([0.61, 0.66, 0.58, 0.64])
    low, high = t.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
    ours = mean_interval(values)
    assert (ours.low, ours.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("difference", "spread"), [(0.01, 0.012), (0.02, 0.012), (0.02, 0.05)])
def test_seeds_needed(difference, spread):
    solver = power.TTestPower()
    ours = seeds_needed(difference, spread)
    reached = solver.power(difference / spread, ours, 0.05)
    assert reached >= 0.8
    assert ours == 2 or solver.power(difference / spread, ours - 1, 0.05) < 0.8


def test_drawn_sign_flips_agree_with_scipy_s_permutation_test():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(4)
    arm, baseline = (rng.random((3, 60)) < 0.70).astype(int), (rng.random((3, 60)) < 0.62).astype(int)
    theirs = permutation_test(
        (arm.mean(axis=0), baseline.mean(axis=0)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).pvalue
    ours = sign_flip_test(arm, baseline, rng=np.random.default_rng(2), draws=20_000).p_value
    assert ours == pytest.approx(theirs, abs=0.015)
