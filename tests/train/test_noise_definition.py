"""The definition of the noise: fixed numbers, exact moments, independence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from optaware.train.noise import _reference as reference
from optaware.train.noise import noise_key, reference_noise, table

INT32 = torch.int32


def unsigned(word: Tensor) -> np.ndarray:
    return word.numpy().astype(np.int64) & 0xFFFFFFFF


def word_by_hand(counter: int, first: int, second: int) -> int:
    low = 0xFFFFFFFF
    x = (counter + first) & low
    x ^= x >> 16
    x = x * 0x7FEB352D & low
    x ^= x >> 15
    x ^= second
    x = x * 0x846CA68B & low
    return x ^ x >> 16


def test_words_are_those_of_the_definition() -> None:
    key = 0x0123456789ABCDEF
    rows = torch.tensor([0, 1, 77, 2**31 - 1])
    first, second = reference.row_keys(key, rows)
    low, high = key & 0xFFFFFFFF, key >> 32
    for index, row in enumerate(rows.tolist()):
        assert unsigned(first)[index, 0] == word_by_hand(2 * row, low, high)
        assert unsigned(second)[index, 0] == word_by_hand(2 * row + 1, low, high)
    word = unsigned(reference.words(torch.arange(9, dtype=INT32), first, second))
    halves = zip(unsigned(first)[:, 0].tolist(), unsigned(second)[:, 0].tolist(), strict=True)
    expected = [[word_by_hand(counter, a, b) for counter in range(9)] for a, b in halves]
    assert word.tolist() == expected


GOLDEN_GAUSSIAN = [
    "0x1.d018520000000p-2",
    "-0x1.15593a0000000p-1",
    "-0x1.c9676a0000000p-2",
    "-0x1.32475c0000000p+1",
    "0x1.709eb60000000p-5",
]
GOLDEN_SIGNS = "----+--+--+++++----++-+---+--+++++-+-+++"


def test_golden_numbers() -> None:
    """These may never change: journals are replayed with them."""
    key = noise_key(7, "model.embed_tokens.weight")
    drawn = reference_noise(key, (3, 5), "gaussian")
    assert [each.hex() for each in drawn[2].double().tolist()] == GOLDEN_GAUSSIAN
    signs = reference_noise(key, (2, 40), "rademacher")
    assert "".join("+" if each > 0 else "-" for each in signs[1].tolist()) == GOLDEN_SIGNS


def test_gaussian_moments_are_exact_over_all_words() -> None:
    """z² = r(k)²·c(j)² with k and j from separate bits, so a mean over all words is a product of two short means."""
    k, j = 5000, 3000
    by_radius = reference.pairs(torch.arange(1 << 16, dtype=INT32) | j << 16)
    by_angle = reference.pairs(torch.arange(1 << 14, dtype=INT32) << 16 | k)
    variances = []
    for radius, angle in zip(by_radius, by_angle, strict=True):
        radius, angle = radius.double().square(), angle.double().square()
        assert radius[k] == angle[j]
        variances.append(float(radius.mean() * angle.mean() / radius[k]))
        fourth = float(radius.square().mean() * angle.square().mean() / radius[k] ** 2)
        assert fourth == pytest.approx(3.0, abs=2e-3)
    assert variances == pytest.approx([1.0, 1.0], abs=2e-5)
    assert sum(variances) / 2 == pytest.approx(1.0, abs=5e-7)
    widest = reference.pairs(torch.arange(1 << 14, dtype=INT32) << 16)
    assert max(float(each.max()) for each in widest) <= reference.TAIL
    assert all(each.isfinite().all() and each.min() > 0 for each in (*by_radius, *by_angle))


def test_the_top_bits_are_the_signs() -> None:
    for sign in range(4):
        at = reference.pairs(torch.tensor([12345 | 777 << 16 | reference._signed(sign << 30)], dtype=INT32))
        assert [float(each) < 0 for each in at] == [bool(sign & 2), bool(sign & 1)]


def test_gaussian_numbers_follow_the_normal_law() -> None:
    drawn = reference_noise(noise_key(3, "w"), (400, 1001), "gaussian").flatten().numpy()
    assert stats.kstest(drawn[:50_000], "norm").pvalue > 1e-4
    edges = stats.norm.ppf(np.linspace(0, 1, 257))
    counts = np.histogram(drawn, edges)[0]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_words_are_uniform_and_no_bit_leans() -> None:
    keys = reference.row_keys(noise_key(11, "w"), torch.arange(512))
    word = unsigned(reference.words(torch.arange(1024, dtype=INT32), *keys)).ravel()
    for shift in (0, 8, 16, 24):
        assert stats.chisquare(np.bincount(word >> shift & 0xFF, minlength=256)).pvalue > 1e-4
    bits = (word[:, None] >> np.arange(32) & 1).mean(0)
    assert np.abs(bits - 0.5).max() < 4.5 * 0.5 / len(word) ** 0.5


def test_words_repeat_as_often_as_chance_has_it() -> None:
    """Birthdays: 2¹⁸ rows × 8 words have n²/2³³ = 512 expected repeats, Poisson."""
    keys = reference.row_keys(noise_key(1, "w"), torch.arange(1 << 18))
    word = unsigned(reference.words(torch.arange(8, dtype=INT32), *keys)).ravel()
    repeats = len(word) - len(np.unique(word))
    assert abs(repeats - 512) < 4.5 * 512**0.5


@pytest.mark.parametrize("of", ["counter", "first", "row"])
def test_one_bit_changes_half_of_the_word(of: str) -> None:
    source = np.random.default_rng(0)
    counter = torch.from_numpy(source.integers(0, 4096, 20_000).astype(np.int32))
    first, second = (torch.from_numpy(source.integers(-(2**31), 2**31, 20_000).astype(np.int32)) for _ in "ab")
    before = reference.words(counter, first, second)
    for bit in range(12):
        flip = 1 << bit
        if of == "counter":
            after = reference.words(counter ^ flip, first, second)
        elif of == "first":
            after = reference.words(counter, first ^ flip, second)
        else:
            rows = torch.from_numpy(np.random.default_rng(bit).choice(2**31, 20_000))
            a, b = reference.row_keys(5, rows ^ flip), reference.row_keys(5, rows)
            before, after = (reference.words(torch.tensor([3], dtype=INT32), *key)[:, 0] for key in (b, a))
        changed = unsigned(before ^ after)[:, None] >> np.arange(32) & 1
        assert np.abs(changed.mean(0) - 0.5).max() < 5 * 0.5 / len(changed) ** 0.5


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_seeds_names_rows_and_columns_are_uncorrelated(distribution: str) -> None:
    shape = (64, 640)
    drawn = [
        reference_noise(noise_key(seed, name), shape, distribution)  # type: ignore[arg-type]
        for seed in (0, 1, 2**63)
        for name in ("a", "b")
    ]
    flat = torch.stack([each.flatten() for each in drawn])
    limit = 5 / flat.shape[1] ** 0.5
    assert (torch.corrcoef(flat) - torch.eye(6)).abs().max() < limit
    z = drawn[0]
    for across in (z, z.T):
        gram = across @ across.T / across.shape[1]
        off = gram - torch.diag(gram.diagonal())
        assert off.abs().max() < 6 / across.shape[1] ** 0.5
        assert off.square().sum() / (off.numel() - len(off)) == pytest.approx(1 / across.shape[1], rel=0.15)
    lags = [float((z.flatten()[lag:] * z.flatten()[:-lag]).mean()) for lag in range(1, 330)]
    assert max(map(abs, lags)) < limit


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
@pytest.mark.parametrize("columns", [1, 2, 31, 33, 64, 577])
def test_any_rows_alone_are_those_of_the_whole(distribution: str, columns: int) -> None:
    whole = reference_noise(5, (40, columns), distribution)  # type: ignore[arg-type]
    chosen = torch.tensor([39, 0, 7, 7])
    assert torch.equal(reference_noise(5, (40, columns), distribution, rows=chosen), whole[chosen])  # type: ignore[arg-type]


def test_layout_of_shapes() -> None:
    assert [table(shape) for shape in ((), (7,), (3, 4), (2, 3, 4), (0, 4))] == [(1, 1), (1, 7), (3, 4), (6, 4), (0, 4)]
    assert reference_noise(1, (2, 3, 4), "gaussian").flatten().equal(reference_noise(1, (6, 4), "gaussian").flatten())
    assert reference_noise(1, (), "rademacher").shape == ()
    assert reference_noise(1, (3, 0), "rademacher").shape == (3, 0)


def test_a_random_mask_keeps_its_share() -> None:
    shares = reference.mask_shares(9, torch.arange(300), 501)
    assert int(shares.min()) >= 0
    assert int(shares.max()) < 65536
    for density in (0.25, 0.01):
        kept = (shares < round(65536 * density)).double().mean()
        assert abs(float(kept) - density) < 5 * (density / shares.numel()) ** 0.5
