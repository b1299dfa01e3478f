"""Aggregators, conflict figures and schedules: closed forms, and one contract for all of them."""

import math
import typing

import pytest
import torch

from optaware.plan import component_of
from optaware.records import GradientHarmonization
from optaware.train._seeds import derive_seed, generator
from optaware.train.methods.gradient_harmonization import (
    agreement,
    conflict_index,
    explore_share,
    harmonized,
    make_aggregator,
    mean,
    negative_pairs,
    normalised_entropy,
)

AGGREGATORS = typing.get_args(GradientHarmonization.model_fields["aggregator"].annotation)
SCHEDULES = typing.get_args(GradientHarmonization.model_fields["explore"].annotation)


def aggregator(name):
    return make_aggregator(GradientHarmonization(aggregator=name, score="cosine"), seed=5)


@pytest.mark.parametrize("name", AGGREGATORS)
class TestContract:
    """What every aggregator keeps to."""

    def test_equal_gradients_give_that_gradient(self, name):
        weights = aggregator(name)(torch.ones(3, 3))
        assert weights.shape == (3,)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-3)

    def test_weights_do_not_depend_on_the_global_seed_and_leave_it_alone(self, name):
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(1)
        one = aggregator(name)(rows @ rows.T)
        torch.manual_seed(2)
        before = torch.random.get_rng_state()
        other = aggregator(name)(rows @ rows.T)
        assert torch.equal(one, other)
        assert torch.equal(before, torch.random.get_rng_state())

    def test_a_common_factor_of_cosine_like_rules_changes_nothing(self, name):
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
        rule = aggregator(name)
        torch.testing.assert_close(rule(rows @ rows.T), aggregator(name)(100 * rows @ rows.T), rtol=1e-3, atol=1e-4)


def test_two_conflicting_gradients_by_hand():
    """g₁ = (1, 0), g₂ = (−½, √3/2): 120° apart; q = (¼, √3/4), ‖q‖ = ½, ⟨g_i, q⟩ = ¼."""
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])
    index, share = conflict_index(gramian)
    assert float(index) == pytest.approx(2 * (1 - 0.5))
    assert float(share) == pytest.approx(0.5)
    assert float(negative_pairs(gramian)) == 1.0
    assert harmonized(gramian, score="dot", temperature=1.0).tolist() == pytest.approx([0.5, 0.5])


def test_scores_by_hand():
    """g₁ = 3e₁, g₂ = −e₁: q = e₁, dots 3 and −1, cosines 1 and −1, scaled 3 and −1 (‖q‖ = 1)."""
    gramian = torch.tensor([[9.0, -3.0], [-3.0, 1.0]])

    def first(score, temperature):
        return float(harmonized(gramian, score=score, temperature=temperature)[0])

    assert first("dot", 2.0) == pytest.approx(1 / (1 + math.exp(-2)))
    assert first("cosine", 0.5) == pytest.approx(1 / (1 + math.exp(-4)))
    assert float(harmonized(4 * gramian, score="scaled", temperature=2.0)[0]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert agreement(gramian).tolist() == pytest.approx([6 / 8, -2 / 8])


def test_opposite_gradients_are_full_conflict_and_parallel_ones_none():
    index, share = conflict_index(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert (float(index), float(share)) == (2.0, 1.0)
    index, share = conflict_index(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    assert float(index) == pytest.approx(0, abs=1e-6)


def test_pcgrad_by_hand():
    """g₁ = (1, 0), g₂ = (−1, 1): each loses its part along the other: (½, ½) and (0, 1), of mean (¼, ¾)."""
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    weights = aggregator("pcgrad")(gradients @ gradients.T)
    torch.testing.assert_close(weights @ gradients, torch.tensor([0.25, 0.75]))


def test_mgda_finds_the_shortest_mean():
    """g₁ = (3, 0), g₂ = (0, 1): the shortest convex combination has weights 1/10 and 9/10."""
    gradients = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(aggregator("mgda")(gradients @ gradients.T), torch.tensor([0.1, 0.9]), atol=1e-3, rtol=0)


def test_cagrad_is_the_best_direction_in_its_ball():
    """It maximises min_i ⟨g_i, d⟩ over ‖d − q‖ ≤ ‖q‖/2 (Liu et al., 2021, eq. 3): no direction tried does better."""
    gradients = torch.tensor([[1.0, 0.2], [-0.6, 0.9], [0.3, -0.1]], dtype=torch.float64)
    q = gradients.mean(0)
    found = 1.5 * aggregator("cagrad")(gradients @ gradients.T) @ gradients
    assert float((found - q).norm()) == pytest.approx(0.5 * float(q.norm()), rel=1e-3)
    angles = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
    tried = q + 0.5 * q.norm() * torch.stack([angles.cos(), angles.sin()], 1)
    assert float((gradients @ found).min()) == pytest.approx(float((tried @ gradients.T).amin(1).max()), abs=1e-4)


def test_gradvac_raises_cosines_that_are_below_the_mean_one():
    """Unit vectors at 0°, 30° and 120°: cosines 0.866, −0.5 and 0 with mean 0.122; only 120° is below it, against 0°
    and 30°. The rule with its orders is computed here on the vectors themselves."""
    gradients = torch.tensor([[math.cos(a), math.sin(a)] for a in (0.0, math.pi / 6, 2 * math.pi / 3)]).double()
    target = (math.cos(math.pi / 6) - 0.5 + 0.0) / 3
    wanted = torch.zeros(2, dtype=torch.float64)
    source = generator(derive_seed(5, "aggregator") >> 1)
    for i in range(3):
        own = gradients[i].clone()
        for j in torch.randperm(3, generator=source).tolist():
            cosine = float(torch.cosine_similarity(own, gradients[j], 0))
            if i != j and cosine < target:
                turn = target * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - target**2)
                own = own + own.norm() * turn / math.sqrt(1 - target**2) * gradients[j]
                assert float(torch.cosine_similarity(own, gradients[j], 0)) == pytest.approx(target)
        wanted += own / 3
    weights = aggregator("gradvac")(gradients @ gradients.T)
    torch.testing.assert_close(weights @ gradients, wanted)
    assert not torch.allclose(weights, torch.full_like(weights, 1 / 3))


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - {"harmonized", "mean", "agreement"}))
def test_an_aggregator_carries_nothing_from_one_call_to_the_next(name):
    """Layers of one update share it, and a resumed run makes it anew."""
    rows = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(4))
    one, other = (each @ each.T for each in rows)
    used = aggregator(name)
    used(one)
    torch.testing.assert_close(used(other), aggregator(name)(other), rtol=0, atol=0)


def test_entropy_of_weights():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0]])
    assert normalised_entropy(weights).tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_low_temperature_takes_the_best_task_and_high_temperature_the_mean():
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    gramian = rows @ rows.T
    assert float(harmonized(gramian, score="cosine", temperature=1e-4).max()) == pytest.approx(1.0)
    torch.testing.assert_close(harmonized(gramian, score="cosine", temperature=1e4), mean(gramian), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_stay_in_range_and_share_one_area(kind):
    count = 40_000
    values = [explore_share(kind, (index + 0.5) / count, cycles=4) for index in range(count)]
    assert min(values) >= 0
    assert max(values) <= 1
    assert sum(values) / count == pytest.approx(0.0 if kind == "none" else 0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("Attention operator in layer-wise dynamic gradient harmonization", "attention", "softmax"),
        ("Cosine annealing schedule in explore-exploit mechanism", "explore", "cosine"),
    ],
)
def test_the_words_of_the_published_plan_name_the_right_switches(part, field, value):
    component = component_of(part, GradientHarmonization)
    assert component is not None
    assert (component.field, component.sure, component.baseline[0]) == (field, True, value)
