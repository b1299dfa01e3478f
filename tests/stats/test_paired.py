from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.errors import InputError
from optaware.stats import crossed_test, holm, mcnemar, paired_bootstrap, sign_flip_test


def _pair(gained, lost, same=5):
    arm = [1] * gained + [0] * lost + [1] * same
    baseline = [0] * gained + [1] * lost + [1] * same
    return arm, baseline


def test_mcnemar_by_hand():
    # 7 gained, 1 lost: P(X ≤ 1) = (1 + 8)/256, doubled = 18/256
    result = mcnemar(*_pair(7, 1))
    assert result.p_value == pytest.approx(18 / 256)
    assert result.smallest == pytest.approx(2 / 256)
    assert "7 gained, 1 lost" in result.method


def test_mcnemar_ends():
    assert mcnemar(*_pair(0, 0)).p_value == 1.0
    assert mcnemar(*_pair(4, 4)).p_value == 1.0
    assert mcnemar(*_pair(0, 3)).p_value == pytest.approx(0.25)
    with pytest.raises(InputError, match="not-one-pair"):
        mcnemar(np.ones((2, 3)), np.ones((2, 3)))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=9))
def test_exact_sign_flip_of_one_seed_is_mcnemar(pairs):
    arm, baseline = zip(*pairs, strict=True)
    rng = np.random.default_rng(0)
    assert sign_flip_test(arm, baseline, rng=rng).p_value == pytest.approx(mcnemar(arm, baseline).p_value)


def test_exact_sign_flip_against_enumeration():
    rng = np.random.default_rng(7)
    arm, baseline = (rng.random((3, 10)) < 0.7).astype(int), (rng.random((3, 10)) < 0.4).astype(int)
    sums = [Fraction(int(total), 3) for total in (arm - baseline).sum(axis=0)]
    seen = abs(sum(sums))
    patterns = [
        abs(sum(s * d for s, d in zip(signs, sums, strict=True))) >= seen for signs in product((1, -1), repeat=10)
    ]
    result = sign_flip_test(arm, baseline, rng=rng)
    assert result.p_value == pytest.approx(sum(patterns) / 1024)
    assert "exact" in result.method


def test_drawn_patterns_agree_with_mcnemar():
    arm, baseline = _pair(40, 20, 100)
    drawn = sign_flip_test(arm, baseline, rng=np.random.default_rng(1), draws=20_000)
    assert drawn.p_value == pytest.approx(mcnemar(arm, baseline).p_value, abs=0.003)
    assert drawn.smallest == pytest.approx(1 / 20_001)
    assert drawn == sign_flip_test(arm, baseline, rng=np.random.default_rng(1), draws=20_000)


def test_copies_of_a_seed_are_no_evidence():
    """Three equal seeds must not look like three times the examples."""
    arm, baseline = np.array(_pair(30, 18, 50))
    one = sign_flip_test(arm, baseline, rng=np.random.default_rng(2), draws=20_000)
    three = sign_flip_test(np.tile(arm, (3, 1)), np.tile(baseline, (3, 1)), rng=np.random.default_rng(2), draws=20_000)
    assert three.p_value == pytest.approx(one.p_value, abs=0.01)


def test_few_seeds_cannot_give_a_small_p():
    arm, baseline = np.ones((3, 50)), np.zeros((3, 50))
    result = sign_flip_test(arm, baseline, rng=np.random.default_rng(0), unit="seeds")
    assert result.p_value == result.smallest == 0.25
    assert result.method.startswith("sign flip over 3 seeds")


def test_level_of_the_sign_flip_test():
    """Without a difference, p ≤ 0.05 comes up in about 5 % of studies."""
    rng = np.random.default_rng(11)
    small = 0
    for _ in range(400):
        hard = rng.random((1, 60))
        draw = [(rng.random((2, 60)) < hard).astype(int) for _ in range(2)]
        small += sign_flip_test(*draw, rng=rng, draws=400).p_value <= 0.05
    assert 0.02 <= small / 400 <= 0.08


def test_level_of_the_crossed_test():
    """Seeds that differ more than their rows tell do not make a difference between arms: p ≤ 0.05 stays rare."""
    rng = np.random.default_rng(12)
    small = flips = 0
    for _ in range(300):
        hard, shift = rng.random((1, 80)), rng.normal(0, 0.15, (2, 3, 1))
        arm, baseline = ((rng.random((3, 80)) < hard + moved).astype(int) for moved in shift)
        small += crossed_test(arm, baseline).p_value <= 0.05
        flips += sign_flip_test(arm, baseline, rng=rng, draws=200).p_value <= 0.05
    assert small / 300 <= 0.08
    assert flips / 300 > 0.2  # what holds for these trained models does not for others


def test_the_crossed_test_says_what_the_interval_says():
    rng = np.random.default_rng(13)
    agree = 0
    for gain in np.linspace(0, 0.3, 60):
        hard = rng.random((1, 150)) * 0.6
        arm, baseline = ((rng.random((4, 150)) < hard + more).astype(int) for more in (gain, 0.0))
        interval = paired_bootstrap(arm, baseline, rng=rng)
        agree += (crossed_test(arm, baseline).p_value < 0.05) == (interval.low > 0 or interval.high < 0)
    assert agree >= 57


def test_a_table_without_effects_seldom_has_a_claim():
    """Size of a whole table: six comparisons with one baseline, seeds and rows varying, no true difference.

    Of 200 tables about one in twenty may have any corrected p below 0.05 (binomial sd 1.5 points); uncorrected p-values
    claim something in far more, and each keeps its level.
    """
    rng = np.random.default_rng(14)
    any_claim = any_raw = raw = 0
    for _ in range(200):
        hard = rng.normal(0, 1.0, (1, 120))

        def right(hard=hard):
            return (hard + rng.normal(0, 0.25, (4, 1)) + rng.normal(0, 0.7, (4, 120)) > 0).astype(int)

        baseline = right()
        found = [crossed_test(right(), baseline).p_value for _ in range(6)]
        any_claim += min(holm(found)) < 0.05
        any_raw += min(found) < 0.05
        raw += sum(p < 0.05 for p in found)
    assert any_claim / 200 <= 0.09
    assert any_raw / 200 > any_claim / 200
    assert 0.02 <= raw / 1200 <= 0.075


def test_the_crossed_test_at_its_ends():
    same = np.ones((2, 5))
    assert crossed_test(same, same).p_value == 1.0
    # Nothing varies: five rows alike under both seeds are five heads in a row, not certainty.
    assert crossed_test(same, 0 * same).p_value == pytest.approx(2 / 2**5)
    assert crossed_test([[1, 0], [0, 1]], np.zeros((2, 2))).p_value == pytest.approx(2 / 2**2)
    # One row right under nine of ten seeds says nothing of other rows.
    assert crossed_test(np.array([[1.0]] * 9 + [[0.0]]), np.zeros((10, 1))).p_value == 1.0
    with pytest.raises(InputError, match="one-seed"):
        crossed_test(np.ones(5), np.zeros(5))
