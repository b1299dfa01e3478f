"""What every estimator and update must do, on a quadratic whose gradient is known."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from optaware.records import MeZO, ZerothOrderConfig
from optaware.train import LowRank, OneSided, PlainMeZO, TwoPoint, ZerothOrderLearner, directions, estimators, updates
from optaware.train._methods import make_estimator, make_learner, make_update
from optaware.train.directions import make_direction

D = 6


def choices(field: str) -> tuple[Any, ...]:
    """All values that a field of the config can have: what is added there is tested here."""
    return get_args(ZerothOrderConfig.model_fields[field].annotation)


ESTIMATORS = choices("estimator")
NORMALISED = ("two-point", "one-sided")
UPDATES = [
    (update, moments)
    for update in choices("update")
    for moments in (("stored", "replayed") if update in ("momentum", "adam") else ("auto",))
]
each_update = pytest.mark.parametrize(("update", "moments"), UPDATES)


def test_everything_exported_can_be_named_in_a_config() -> None:
    """So that no estimator, update or direction is left out of the suites, which go by the config's values."""
    made = {type(make_estimator(MeZO(estimator=name))) for name in ESTIMATORS}
    assert made == exported(estimators, "estimate")
    assert {type(make_update(MeZO(update=name))) for name in choices("update")} == exported(updates, "apply")
    settings = [{"direction": name} for name in choices("direction")] + [{"apply": "in-place"}]
    directions_made = {type(make_direction(nn.Linear(2, 2), MeZO(**each), 0)) for each in settings}
    assert directions_made == exported(directions, "at")


def exported(package: Any, method: str) -> set[type]:
    found = (getattr(package, name) for name in package.__all__)
    return {each for each in found if isinstance(each, type) and hasattr(each, method) and not is_protocol(each)}


def is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


class Quadratic(nn.Module):
    """`L = ½ Σ_i h_i (w_i − t_i)²`, reached through a Linear so that side products act on it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3, bias=False, dtype=torch.float64)
        grid = torch.arange(D, dtype=torch.float64).reshape(3, 2)
        self.layer.weight.data = grid / 5
        self.target, self.scale = torch.cos(grid), 1 + grid / 4
        self.eye = torch.eye(2, dtype=torch.float64)

    def forward(self) -> Tensor:
        return 0.5 * (self.scale * (self.layer(self.eye).T - self.target) ** 2).sum()

    def gradient(self) -> Tensor:
        return self.scale * (self.layer.weight.data - self.target)


def learner_of(model: Quadratic, method: ZerothOrderConfig, seed: int = 0) -> ZerothOrderLearner:
    made = make_learner(model, lambda batch: model(), method, seed, 100)  # type: ignore[arg-type]
    assert isinstance(made, ZerothOrderLearner)
    return made


@torch.no_grad()
def estimates(method: ZerothOrderConfig, count: int) -> tuple[Tensor, Quadratic]:
    """`ĝ` of many independent steps at the same weights, (count, 3, 2)."""
    model = Quadratic()
    learner = learner_of(model, method)
    direction, found = learner.direction, []
    direction.begin(1)
    for index in range(count):
        seeds = [index * 16 + query for query in range(method.queries)]
        probe = learner.estimator.estimate(direction, lambda: float(model()), seeds)
        terms = [g * direction.coordinates(s, "layer.weight") for s, g in zip(seeds, probe.coefficients, strict=True)]
        found.append(torch.stack(terms).mean(0))
    learner.close()
    return torch.stack(found), model


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("direction", ["gaussian", "rademacher"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_have_the_gradient_as_mean_and_the_textbook_second_moment(
    estimator: Any, direction: Any, queries: int
) -> None:
    eps = 1e-3 if estimator in ("two-point", "one-sided") else 1.0
    found, model = estimates(MeZO(estimator=estimator, direction=direction, eps=eps, queries=queries), 1800 // queries)
    gradient = model.gradient()
    error = found.std(0) / math.sqrt(len(found))
    if estimator == "one-point-residual":  # steps share a loss, so their estimates are not independent
        error = error * 2
    assert ((found.mean(0) - gradient).abs() < 4.5 * error + 1e-3).all()
    if eps < 1:  # with L linear within eps
        squares = found.square().sum((1, 2)) / gradient.square().sum()
        expected = (D + queries + (1 if direction == "gaussian" else -1)) / queries
        if direction == "rademacher" and queries == 1:
            assert float(squares.mean()) == pytest.approx(D * float(_projected(found, gradient)), rel=1e-2)
        assert abs(float(squares.mean()) - expected) < 4.5 * float(squares.std()) / math.sqrt(len(squares)) + 0.02


def _projected(found: Tensor, gradient: Tensor) -> Tensor:
    """Mean of g² over ‖∇L‖², from ‖g·z‖² = g²·d."""
    return (found.square().sum((1, 2)) / D).mean() / gradient.square().sum()


@pytest.mark.parametrize("estimator", ["two-point", "one-sided"])
@pytest.mark.parametrize("direction", ["gaussian", "rademacher"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # inside torch.func
@torch.no_grad()
def test_coefficients_become_directional_derivatives(estimator: Any, direction: Any) -> None:
    """For eps → 0, g = dL·z; the error falls with eps (one-sided) or eps² (two-point)."""
    model = nn.Sequential(nn.Linear(4, 5, dtype=torch.float64), nn.Tanh(), nn.Linear(5, 1, dtype=torch.float64))
    source = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    x = torch.randn(8, 4, generator=source, dtype=torch.float64)
    weights = {name: each.data.clone() for name, each in model.named_parameters()}
    method = MeZO(estimator=estimator, direction=direction)
    learner = make_learner(model, lambda batch: model(x).square().mean(), method, 0)
    assert isinstance(learner, ZerothOrderLearner)
    learner.direction.begin(1)
    z = {name: learner.direction.coordinates(5, name).clone().double() for name in weights}

    def loss(values: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(model, values, (x,))
        return out.square().mean()

    _, exact = torch.func.jvp(loss, (weights,), (z,))
    errors = []
    for eps in (1e-1, 1e-2, 1e-3):
        probe = make_estimator(method.model_copy(update={"eps": eps})).estimate(
            learner.direction, lambda: float(model(x).square().mean()), [5]
        )
        errors.append(abs(probe.coefficients[0] - float(exact)) / abs(float(exact)))
    learner.close()
    order = 2 if estimator == "two-point" else 1
    assert errors[2] < 2e-2 if order == 1 else errors[2] < 1e-4
    assert errors[1] < errors[0]
    assert errors[2] < errors[1] / 3 or errors[2] < 1e-6


@torch.no_grad()
def test_the_mean_of_n_queries_is_the_mean_of_n_single_ones() -> None:
    model = Quadratic()
    direction = LowRank(model, rank=1, refresh_every=10, seed=0)
    direction.begin(1)

    def loss() -> float:
        return float(model())

    for estimator in (TwoPoint(1e-3), OneSided(1e-3)):
        together = estimator.estimate(direction, loss, [1, 2, 3]).coefficients
        assert together == tuple(estimator.estimate(direction, loss, [seed]).coefficients[0] for seed in (1, 2, 3))
    direction.close()


@pytest.mark.parametrize("direction", ["gaussian", "low-rank"])
@each_update
@torch.no_grad()
def test_what_is_remembered_is_what_is_declared(direction: Any, update: Any, moments: Any) -> None:
    model = nn.Sequential(nn.Linear(16, 8, bias=False))
    method = MeZO(direction=direction, update=update, moments=moments, rank=2, window=3)
    learner = make_learner(model, lambda batch: model(torch.ones(1, 16)).sum(), method, 0, 10)
    assert isinstance(learner, ZerothOrderLearner)
    for step in (1, 2):
        learner.step(step, [["row"]])  # type: ignore[list-item]
    state = learner.update.state()
    held = sum(each.numel() * each.element_size() for name, each in state.items() if name.endswith(".0.weight"))
    assert learner.update.bytes_per_parameter(learner.direction) * 16 * 8 == held
    count = {"momentum": 1, "adam": 2}.get(update, 0) if moments == "stored" else 0
    assert held == 4 * count * (2 * 8 if direction == "low-rank" else 16 * 8)
    learner.close()


def test_a_loss_that_differs_at_the_same_weights_is_refused() -> None:
    from optaware.errors import ModelError

    model, calls = Quadratic(), iter(range(100))
    method = MeZO(direction="low-rank", rank=1)
    learner = make_learner(model, lambda batch: model() + next(calls), method, 0)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="loss-not-deterministic"):
        learner.step(1, [["row"]])  # type: ignore[list-item]
    learner.close()


def test_senseless_combinations_are_refused_with_all_reasons() -> None:
    with pytest.raises(ValueError, match=r"mask: .*apply: .*normalise: .*moments: "):
        MeZO(
            direction="low-rank",
            mask="random",
            apply="in-place",
            estimator="one-point",
            normalise=True,
            moments="stored",
        )
    with pytest.raises(ValueError, match="two queries"):
        MeZO(estimator="one-sided", normalise=True)


@pytest.mark.parametrize("kind", sorted(exported(estimators, "estimate"), key=lambda each: each.__name__))
@pytest.mark.parametrize("eps", [0.0, -1e-3, math.inf, math.nan])
def test_a_perturbation_scale_that_tells_no_points_apart_is_refused(kind: Any, eps: float) -> None:
    from optaware.errors import InputError

    with pytest.raises(InputError, match="eps-not-positive"):
        kind(eps)
    for field in ("eps", "lr"):
        with pytest.raises(ValueError, match=field):
            MeZO(**{field: eps if field == "eps" else math.inf})


def test_schedules_are_functions_of_the_step() -> None:
    from optaware.train.schedules import settings_at

    method = MeZO(
        lr=1.0, warmup=4, lr_schedule="linear", eps=0.1, eps_schedule="cosine", queries=5, query_schedule="linear"
    )
    lrs = [settings_at(method, step, 14).lr for step in range(1, 15)]
    assert lrs[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert lrs[4:] == pytest.approx([1 - i / 10 for i in range(10)])
    assert settings_at(method, 1, 14).eps == pytest.approx(0.1)
    assert settings_at(method, 14, 14).eps == pytest.approx(0.01)
    assert [settings_at(method, step, 5).queries for step in range(1, 6)] == [1, 2, 3, 4, 5]


@torch.no_grad()
def test_the_one_sided_spread_makes_steps_of_one_length_whatever_the_scale_of_the_loss() -> None:
    moved = []
    for scale in (1.0, 1000.0):
        model = Quadratic()
        method = MeZO(estimator="one-sided", normalise=True, queries=8, direction="rademacher", lr=1e-2)
        learner = make_learner(model, lambda batch, m=model, s=scale: m() * s, method, 0)  # type: ignore[misc]
        before = model.layer.weight.data.clone()
        result = learner.step(1, [["row"]])  # type: ignore[list-item]
        assert not result.skipped
        learner.settle()
        moved.append(model.layer.weight.data - before)
        learner.close()
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-9)
    assert moved[0].abs().max() > 0


def test_updates_take_clipped_coefficients() -> None:
    assert make_update(MeZO(clip=0.5)).weighted(  # type: ignore[attr-defined]
        TwoPoint(1.0).recall([1, 2, 3], [2.0, -9.0, math.nan])
    ) == ((1, 0.25), (2, -0.25))


class Rows:
    """A loss over rows of tokens, in double precision, that can tell copies of its batch apart."""

    can_copy = True

    def __init__(self, model: Any) -> None:
        self.model, self.passes = model, 0

    def each(self, batch: Sequence[Any]) -> Tensor:
        self.passes += 1
        logits = self.model(input_ids=torch.stack(list(batch)), use_cache=False).logits[:, -1]
        return nn.functional.cross_entropy(logits, torch.stack([row[0] % 2 for row in batch]), reduction="none")

    def __call__(self, batch: Sequence[Any]) -> Tensor:
        return self.each(batch).mean()

    def copies(self, batch: Sequence[Any], count: int) -> Tensor:
        return self.each(list(batch) * count).view(count, -1).mean(1)


def tokens(count: int, seed: int = 0) -> list[Tensor]:
    return list(torch.randint(4, 60, (count, 6), generator=torch.Generator().manual_seed(seed)))


FORMS = [(name, False) for name in ESTIMATORS] + [(name, True) for name in NORMALISED]
each_form = pytest.mark.parametrize(("estimator", "normalise"), FORMS)
each_kind = pytest.mark.parametrize("direction", choices("direction"))


@each_form
@each_kind
@torch.no_grad()
def test_probes_in_one_pass_are_the_probes_one_by_one(
    kit: Any, direction: Any, estimator: Any, normalise: bool
) -> None:
    """With real perturbations of a model, whatever number of points a pass holds."""
    found, passes = [], []
    for most in (1, 2, 3, 32):
        model = kit.llama().double()
        method = MeZO(direction=direction, estimator=estimator, normalise=normalise, queries=3, eps=1e-2)
        learner = make_learner(model, Rows(model), method, 3)
        assert isinstance(learner, ZerothOrderLearner)
        learner.most_copies = most
        results = [learner.step(step, [tokens(3, seed=step), tokens(2, seed=step + 9)]) for step in (1, 2)]
        found.append([value for result in results for value in result.coefficients])
        passes.append(learner.loss.passes)  # type: ignore[attr-defined]
        learner.close()
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6, abs=1e-9)
    assert any(abs(value) > 1e-3 for value in found[0][3:])
    assert passes == sorted(passes, reverse=True)
    assert passes[0] > passes[1] > passes[3]


@each_form
@each_kind
@torch.no_grad()
def test_parts_of_a_batch_are_the_batch(kit: Any, direction: Any, estimator: Any, normalise: bool) -> None:
    batch, found = tokens(8), []
    for parts in ([8], [4, 4], [3, 4, 1]):
        model = kit.llama().double()
        method = MeZO(direction=direction, estimator=estimator, normalise=normalise, queries=2, eps=1e-2, lr=1e-3)
        learner = make_learner(model, Rows(model), method, 3)
        assert isinstance(learner, ZerothOrderLearner)
        results = []
        for step in (1, 2, 3):
            rest = list(batch)
            pieces = [[rest.pop(0) for _ in range(size)] for size in parts]
            results += learner.step(step, pieces).coefficients
        learner.settle()
        learner.close()
        found.append((results, {name: each.data for name, each in model.named_parameters()}))
    for coefficients, weights in found[1:]:
        assert coefficients == pytest.approx(found[0][0], rel=1e-5, abs=1e-9)
        torch.testing.assert_close(weights, found[0][1], rtol=1e-6, atol=1e-8)


@each_update
@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_saved_update_goes_on_to_the_same_bits(
    kit: Any, direction: Any, update: Any, moments: Any, dtype: torch.dtype
) -> None:
    method = MeZO(
        direction=direction,
        update=update,
        moments=moments,
        window=2,
        rank=2,
        refresh_every=2,
        lr=1e-2,
        eps=1e-2,
        weight_decay=0.1,
        clip=1.0,
    )

    def made() -> ZerothOrderLearner:
        model = kit.llama(dtype)
        learner = make_learner(model, lambda batch: Rows(model)(batch).float(), method, 3)
        assert isinstance(learner, ZerothOrderLearner)
        return learner

    def steps(learner: ZerothOrderLearner, first: int, last: int) -> None:
        for step in range(first, last + 1):
            learner.step(step, [tokens(3, seed=step)])

    whole = made()
    steps(whole, 1, 3)
    state = copy.deepcopy(whole.state())  # may make moves that wait; the weights come after it
    weights = copy.deepcopy(whole.weights())
    steps(whole, 4, 6)
    resumed = made()
    resumed.load(weights, state)
    steps(resumed, 4, 6)
    ends = []
    for learner in (whole, resumed):
        learner.settle()
        learner.close()
        ends.append({name: each.clone() for name, each in learner.weights().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], weights[name]) for name in weights)


def test_a_random_mask_is_not_mixed_into_moments_made_again() -> None:
    with pytest.raises(ValueError, match=r"mask: moments made again"):
        MeZO(mask="random", update="momentum")
    MeZO(mask="random", update="momentum", moments="stored")
    with pytest.raises(ValueError, match=r"host_residuals: a dense"):
        MeZO(host_residuals=True)


def test_the_loop_of_the_paper_is_only_what_rounds_as_it_does() -> None:
    model = nn.Linear(2, 2, dtype=torch.bfloat16)
    for changes, plain in (({}, True), ({"precision": "auto"}, False), ({"noise": "store"}, False)):
        method = MeZO(**{"apply": "in-place", "precision": "none", **changes})
        learner = make_learner(model, lambda batch: model(torch.ones(1, 2)).sum(), method, 0)
        assert isinstance(learner, PlainMeZO) == plain
        learner.close()


def test_every_field_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "methods" / "zeroth_order.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z0-9_]+)`", manual))
    assert set(ZerothOrderConfig.model_fields) - {"name"} <= named
