"""The power that the report promises is the power that its test has, by simulation."""

import math

import numpy as np
import pytest

from optaware.errors import InputError
from optaware.stats import (
    Spread,
    crossed_examples_needed,
    crossed_power,
    crossed_seeds_needed,
    crossed_spread,
    crossed_test,
    seeds_needed,
)

SPREAD = Spread(seed=0.012**2, example=0.15**2, rest=0.25**2)


def draw(rng, spread, seeds, examples, shift=0.0):
    """Differences with these variances, as the scores of an arm against a baseline of zeros."""
    scores = (
        shift
        + rng.normal(0, math.sqrt(spread.seed), (seeds, 1))
        + rng.normal(0, math.sqrt(spread.example), (1, examples))
        + rng.normal(0, math.sqrt(spread.rest), (seeds, examples))
    )
    return scores, np.zeros_like(scores)


def test_the_variances_are_found_again():
    rng = np.random.default_rng(1)
    found = [crossed_spread(*draw(rng, SPREAD, 6, 300)) for _ in range(200)]
    assert np.mean([each.rest for each in found]) == pytest.approx(SPREAD.rest, rel=0.02)
    assert np.mean([each.example for each in found]) == pytest.approx(SPREAD.example, rel=0.03)
    assert np.mean([each.seed for each in found]) == pytest.approx(SPREAD.seed, rel=0.15)  # cut at zero: a little above


@pytest.mark.parametrize(("seeds", "examples"), [(3, 500), (5, 300), (8, 1000)])
def test_power_is_what_the_test_has(seeds, examples):
    rng = np.random.default_rng(seeds)
    promised = crossed_power(0.02, SPREAD, seeds=seeds, examples=examples)
    seen = np.mean([crossed_test(*draw(rng, SPREAD, seeds, examples, 0.02)).p_value < 0.05 for _ in range(600)])
    assert seen == pytest.approx(promised, abs=0.07)  # binomial sd 2 points, and the test estimates its df


def test_the_numbers_needed_give_eighty_percent():
    seeds = crossed_seeds_needed(0.02, SPREAD, examples=1000)
    rows = crossed_examples_needed(0.02, SPREAD, seeds=8)
    rng = np.random.default_rng(5)
    for size in ((seeds, 1000), (8, rows)):
        assert crossed_power(0.02, SPREAD, seeds=size[0], examples=size[1]) >= 0.8
        seen = np.mean([crossed_test(*draw(rng, SPREAD, *size, 0.02)).p_value < 0.05 for _ in range(400)])
        assert 0.72 <= seen <= 0.88
    assert crossed_power(0.02, SPREAD, seeds=seeds - 1, examples=1000) < 0.8
    assert crossed_power(0.02, SPREAD, seeds=8, examples=rows - 1) < 0.8


def test_scores_of_zero_and_one_have_the_power_that_their_spread_promises():
    """Correctness is no normal number; the report's figures are for it all the same."""
    rng = np.random.default_rng(6)

    def right(shift, hard, seeds=4, examples=400):
        return (hard + rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.5, (seeds, examples)) + shift > 0).astype(int)

    truth = [right(0.12, hard) - right(0.0, hard) for hard in rng.normal(0, 1, (200, 1, 400))]
    effect = float(np.mean(truth))
    parts = [crossed_spread(each, np.zeros_like(each)) for each in truth]
    spread = Spread(*(float(np.mean([getattr(each, name) for each in parts])) for name in ("seed", "example", "rest")))
    seen = np.mean([crossed_test(each, np.zeros_like(each)).p_value < 0.05 for each in truth])
    assert seen == pytest.approx(crossed_power(effect, spread, seeds=4, examples=400), abs=0.1)


def test_more_of_one_does_not_make_up_for_the_other():
    assert crossed_seeds_needed(0.01, SPREAD, examples=300) is None  # √(0.15²/300) alone is 0.9 points
    assert crossed_examples_needed(0.01, SPREAD, seeds=2) is None
    assert crossed_seeds_needed(0.02, SPREAD, examples=5000) < crossed_seeds_needed(0.02, SPREAD, examples=1000)


def test_seeds_alone_are_the_paired_t_test():
    only = Spread(seed=0.02**2, example=0.0, rest=0.0)
    assert crossed_seeds_needed(0.02, only, examples=100) == seeds_needed(0.02, 0.02) == 10


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(InputError, match="effect"):
        crossed_seeds_needed(0.0, SPREAD, examples=100)
    with pytest.raises(InputError, match="one-seed"):
        crossed_power(0.01, SPREAD, seeds=1, examples=100)
    with pytest.raises(InputError, match="not-paired"):
        crossed_spread(np.ones(5), np.zeros(5))
