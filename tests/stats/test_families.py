import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.errors import InputError
from optaware.stats import benjamini_hochberg, cohen_kappa, holm, rows_needed, seeds_needed


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04: ×4 = 0.02, ×3 = 0.03, ×2 = 0.06, ×1 = 0.04 → raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_benjamini_hochberg_by_hand():
    # 4/1·0.005 = 0.02, 4/2·0.01 = 0.02, 4/3·0.03 = 0.04, 0.04
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms())
def test_corrections_hold_their_order(values, random):
    for correct in (holm, benjamini_hochberg):
        corrected = correct(values)
        assert all(raw <= new <= 1 for raw, new in zip(values, corrected, strict=True))
        order = list(range(len(values)))
        random.shuffle(order)
        assert correct([values[i] for i in order]) == pytest.approx([corrected[i] for i in order])
    assert all(h >= b for h, b in zip(holm(values), benjamini_hochberg(values), strict=True))


def test_corrections_refuse_what_is_no_probability():
    with pytest.raises(InputError):
        holm([0.1, float("nan")])
    with pytest.raises(InputError):
        benjamini_hochberg([1.1])


def test_kappa_by_hand():
    # Cohen's textbook table: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o 0.7, p_e 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa([1, 1], [1, 1]) == 1.0
    assert cohen_kappa([1, 0], [0, 1]) == -1.0
    with pytest.raises(InputError):
        cohen_kappa([1], [1, 2])


def test_rows_needed_gives_the_power_it_promises():
    # Connor's formula by hand: δ 0.05, ψ 0.2: ((1.95996·√0.2 + 0.84162·√0.1975)/0.05)² = 25.0109² = 625.5
    n = rows_needed(0.05, 0.2)
    assert n == 626
    rng = np.random.default_rng(0)
    gained, lost, _ = rng.multinomial(n, [0.125, 0.075, 0.8], size=4000).T
    seen = np.abs(gained - lost) / np.sqrt(np.maximum(gained + lost, 1)) > 1.96
    assert seen.mean() == pytest.approx(0.8, abs=0.02)
    assert rows_needed(0.01, 0.2) > rows_needed(0.02, 0.2)
    with pytest.raises(InputError):
        rows_needed(0.3, 0.2)


def test_seeds_needed_against_published_and_simulated_power():
    # Effect of one standard deviation, power 0.8, two-sided 0.05: 10 pairs (Cohen's tables).
    assert seeds_needed(0.02, 0.02) == 10
    assert seeds_needed(0.02, 0.0) == 2
    n = seeds_needed(0.01, 0.02)
    rng = np.random.default_rng(1)
    draws = rng.normal(0.01, 0.02, (20_000, n))
    t = draws.mean(1) / draws.std(1, ddof=1) * np.sqrt(n)
    assert (np.abs(t) > 2.03).mean() == pytest.approx(0.8, abs=0.02)
    with pytest.raises(InputError):
        seeds_needed(0.0, 0.02)
    with pytest.raises(InputError, match="effect-too-small"):
        seeds_needed(1e-6, 1.0)
