import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.errors import InputError
from optaware.stats import crossed_bootstrap, crossed_test, mean_interval, paired_bootstrap, wilson


def _wilson_by_roots(successes, n, z):
    # The bounds solve (p̂ − p)² = z²·p(1−p)/n, a quadratic in p: an independent road to the same numbers.
    share = successes / n
    roots = np.roots([1 + z * z / n, -(2 * share + z * z / n), share * share])
    return sorted(roots.real)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(counts):
    successes, n = counts
    interval = wilson(successes, n)
    low, high = _wilson_by_roots(successes, n, statistics.NormalDist().inv_cdf(0.975))
    assert interval.low == pytest.approx(low, abs=1e-7)
    assert interval.high == pytest.approx(high, abs=1e-7)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


def test_wilson_known_value():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (round(wilson(0, 20).low, 4), round(wilson(0, 20).high, 4)) == (0.0, 0.1611)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(InputError):
        wilson(successes, n)


def test_mean_interval_by_hand():
    # mean 2, sd 1, n 3: 2 ± 4.302653·1/√3
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.estimate == 2.0
    assert interval.high - 2.0 == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert interval.method == "t over 3 seeds"


def test_mean_interval_needs_two_seeds():
    with pytest.raises(InputError, match="one-seed"):
        mean_interval([0.7])


def test_one_seed_bootstrap_agrees_with_the_t_interval_of_the_mean():
    rng = np.random.default_rng(3)
    values = (rng.random(400) < 0.3).astype(float) - (rng.random(400) < 0.25)
    ours = crossed_bootstrap(values, rng=rng, draws=20_000)
    theirs = mean_interval(values)
    assert ours.estimate == pytest.approx(theirs.estimate)
    assert ours.low == pytest.approx(theirs.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.high, abs=0.004)
    assert "one seed" in ours.method


def test_seed_effects_alone_give_the_t_interval_over_seeds():
    # Every example of a seed equal: the examples add nothing, so the interval is that of the three seed means.
    values = np.repeat([[0.50], [0.55], [0.63]], 50, axis=1)
    ours = crossed_bootstrap(values, rng=np.random.default_rng(0), draws=20_000)
    theirs = mean_interval([0.50, 0.55, 0.63])
    assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.15)


def test_paired_bootstrap_is_paired_and_seeded():
    rng = np.random.default_rng(5)
    baseline = (rng.random((3, 200)) < 0.5).astype(int)
    arm = baseline.copy()
    arm[:, :10] = 1
    first = paired_bootstrap(arm, baseline, rng=np.random.default_rng(1))
    again = paired_bootstrap(arm, baseline, rng=np.random.default_rng(1))
    assert first == again
    assert first.estimate == pytest.approx((arm - baseline).mean())
    # The hardness of the 190 untouched examples cancels: far narrower than two separate intervals of ±0.07.
    assert first.high - first.low < 0.06


def test_arms_that_never_differ_still_have_a_width():
    same = np.ones((2, 100))
    interval = paired_bootstrap(same, same, rng=np.random.default_rng(0))
    assert interval.estimate == 0.0
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert interval.low == -interval.high


@pytest.mark.parametrize("examples", [1, 5, 6, 100])
def test_arms_that_differ_everywhere_have_a_width_and_it_agrees_with_the_test(examples):
    right, wrong = np.ones((3, examples)), np.zeros((3, examples))
    up = paired_bootstrap(right, wrong, rng=np.random.default_rng(0))
    down = paired_bootstrap(wrong, right, rng=np.random.default_rng(0))
    # A share of at least 0.025^(1/N) of rows differs so; the others may differ the other way.
    assert up.low == pytest.approx(2 * 0.025 ** (1 / examples) - 1)
    assert (up.estimate, up.high) == (1.0, 1.0)
    assert (down.low, down.high) == (-1.0, -up.low)
    assert (up.low > 0) == (crossed_test(right, wrong).p_value < 0.05)


def test_three_rows_gained_once_each_do_not_exclude_zero():
    arm, baseline = np.zeros((3, 100)), np.zeros((3, 100))
    arm[[0, 1, 2], [4, 5, 6]] = 1
    up = paired_bootstrap(arm, baseline, rng=np.random.default_rng(0))
    down = paired_bootstrap(baseline, arm, rng=np.random.default_rng(0))
    assert crossed_test(arm, baseline).p_value == pytest.approx(0.083, abs=0.003)
    assert up.low < 0 < up.estimate < up.high
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low), rel=0.02)


@pytest.mark.parametrize(("seeds", "rows", "share"), [(3, 100, 0.005), (3, 1000, 0.0005), (2, 100, 0.01)])
def test_where_few_cells_differ_intervals_hold_zero_as_often_as_the_test_does(seeds, rows, share):
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        truth = rng.random(rows) < 0.5
        arm, baseline = ((truth ^ (rng.random((seeds, rows)) < share)).astype(int) for _ in range(2))
        interval = paired_bootstrap(arm, baseline, rng=rng, draws=300)
        held += interval.low <= 0 <= interval.high
        assert crossed_test(arm, baseline).p_value < 0.05 or interval.low <= 0 <= interval.high
    assert held / 300 >= 0.93


def test_unpaired_shapes_are_refused():
    with pytest.raises(InputError, match="not-paired"):
        paired_bootstrap(np.ones((2, 3)), np.ones((3, 3)), rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="not-finite"):
        paired_bootstrap([np.nan, 1.0], [0.0, 1.0], rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("seeds", "examples", "seed_sd", "noise"),
    [(1, 100, 0.0, 0.5), (3, 100, 0.0, 0.5), (3, 200, 0.3, 0.5), (5, 200, 0.3, 0.3)],
)
def test_coverage_of_the_paired_bootstrap(seeds, examples, seed_sd, noise):
    """Of 300 simulated studies, about 95 % of the intervals hold the true difference (binomial sd: 1.3 points)."""
    rng = np.random.default_rng(20)
    # A row is right when ability + example + seed (+ the arm's shift) + noise is above zero; probit, so the true
    # difference over all seeds and examples is known in closed form.
    total_sd = math.sqrt(1.2**2 + seed_sd**2 + noise**2)
    normal = statistics.NormalDist()
    truth = normal.cdf(0.9 / total_sd) - normal.cdf(0.6 / total_sd)
    held = 0
    for _ in range(300):
        example = rng.normal(0, 1.2, (1, examples))

        def right(shift, example=example):
            seed = rng.normal(0, seed_sd, (seeds, 1))
            return example + seed + rng.normal(0, noise, (seeds, examples)) + shift > 0

        interval = paired_bootstrap(right(0.9).astype(int), right(0.6).astype(int), rng=rng, draws=500)
        held += interval.low <= truth <= interval.high
    assert 0.91 <= held / 300 <= 0.995


def test_columns_drawn_in_parts_are_those_drawn_at_once():
    from optaware.stats._bootstrap import _draw_columns

    values = np.random.default_rng(0).normal(size=(1001, 71))
    columns = np.random.default_rng(1).integers(0, 71, values.shape)
    found = _draw_columns(values, np.random.default_rng(1))
    assert np.array_equal(found, np.take_along_axis(values, columns, axis=1).mean(axis=1))
