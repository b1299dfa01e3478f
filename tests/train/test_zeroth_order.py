from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen2Config, Qwen2ForCausalLM

from optaware.train import SGD, LowRank, PlainMeZO, Probe, TwoPoint, ZerothOrderLearner
from optaware.train._seeds import derive_seed
from optaware.train.directions import gaussian_noise
from optaware.train.directions._merge import RESIDUAL_SCALE, merge_product


class Quadratic(nn.Module):
    """`L = ½ tr((W − T)ᵀ H (W − T))`, reached through a Linear so that side products act on it."""

    def __init__(self, rows: int = 3, columns: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(columns, rows, bias=False, dtype=torch.float64)
        grid = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
        self.layer.weight.data = grid / 5
        self.target = torch.cos(grid)
        self.scale = 1 + torch.arange(rows, dtype=torch.float64)[:, None]
        self.eye = torch.eye(columns, dtype=torch.float64)

    def forward(self) -> Tensor:
        difference = self.layer(self.eye).T - self.target
        return 0.5 * (self.scale * difference**2).sum()

    def gradient(self) -> Tensor:
        return self.scale * (self.layer.weight.data - self.target)


class Dense:
    """The dense direction as the protocol has it, for one parameter."""

    def __init__(self, model: Quadratic) -> None:
        self.weight = model.layer.weight

    def z(self, seed: int) -> Tensor:
        shape, dtype = self.weight.shape, self.weight.dtype
        return gaussian_noise(seed, "layer.weight", shape, dtype=dtype, source=torch.Generator())

    def at(self, seed: int, scale: float) -> Any:
        weight, change = self.weight, scale * self.z(seed)

        class At:
            def __enter__(self) -> None:
                self.before = weight.data
                weight.data = self.before + change

            def __exit__(self, *_: object) -> None:
                weight.data = self.before

        return At()


@torch.no_grad()
def estimates(model: Quadratic, make: Callable[[int], tuple[Any, Callable[[int], Tensor]]], count: int) -> Tensor:
    found = []
    for index in range(count):
        direction, z = make(index)
        probe = TwoPoint(1e-3).estimate(direction, lambda: float(model()), [index])
        found.append(probe.coefficients[0] * z(index))
    return torch.stack(found)


def test_the_dense_estimate_has_the_gradient_as_mean_and_the_textbook_second_moment() -> None:
    model = Quadratic()
    direction = Dense(model)
    found = estimates(model, lambda _: (direction, direction.z), 3000)
    gradient, d = model.gradient(), 6
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - gradient).abs() < 4 * error).all()
    for n in (1, 4):
        means = found.reshape(-1, n, 3, 2).mean(1)
        squares = means.square().sum((1, 2)) / gradient.square().sum()
        expected = (d + n + 1) / n
        assert abs(float(squares.mean()) - expected) < 4 * float(squares.std()) / math.sqrt(len(squares))


@pytest.mark.parametrize("rank", [1, 2])
def test_the_low_rank_estimate_has_the_gradient_as_mean_and_its_second_moment(rank: int) -> None:
    model = Quadratic()

    def make(index: int) -> tuple[Any, Callable[[int], Tensor]]:
        if index:
            made[0].close()
        made[:] = [LowRank(model, rank=rank, refresh_every=1, seed=index)]
        made[0].begin(1)
        return made[0], lambda seed: made[0].written_out(seed)["layer.weight"]

    made: list[LowRank] = []
    found = estimates(model, make, 1500)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - model.gradient()).abs() < 4 * error).all()
    squares = found.square().sum((1, 2)) / model.gradient().square().sum()
    expected = 6 + 2 + 2 * (3 + 2 + 1) / rank  # a dense Gaussian direction would have d + 2
    assert abs(float(squares.mean()) - expected) < 4 * float(squares.std()) / math.sqrt(len(squares))


def test_one_step_by_hand() -> None:
    """L = w² at w = 1 along z = 1: g = ((1 + ε)² − (1 − ε)²) / 2ε = 2, so w becomes 1 − lr·2."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))

    model = One()
    learner = PlainMeZO(
        model,
        lambda batch: (model.w**2).sum(),
        lr=0.125,
        eps=0.5,
        weight_decay=0.5,
        noise=lambda seed, name, parameter: torch.ones_like(parameter),
    )
    result = learner.step(1, [["row"]])  # type: ignore[list-item]
    assert result.coefficients == (2.0,)
    assert result.loss == pytest.approx((2.25 + 0.25) / 2)
    assert model.w.item() == pytest.approx(1 * (1 - 0.125 * 0.5) - 0.125 * 2)


def qwen2() -> Any:
    config = Qwen2Config(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return Qwen2ForCausalLM(config)


def gemma3() -> Any:
    config = Gemma3TextConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        initializer_range=0.2,
        pad_token_id=0,
    )
    return Gemma3ForCausalLM(config)


def family(kit: Any, name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = {
            "llama": kit.llama,
            "llama-untied": lambda: kit.llama(tied=False),
            "llama-bias": lambda: kit.llama(attention_bias=True, mlp_bias=True),
            "gpt2": kit.gpt2,
            "qwen2": qwen2,
            "gemma3": gemma3,
        }[name]()
    return model.eval()


FAMILIES = ["llama", "llama-untied", "llama-bias", "gpt2", "qwen2", "gemma3"]


def exact_loss(model: Any) -> Callable[[Any], Tensor]:
    """Cross-entropy without a cast to fp32, so that two double-precision trajectories can be compared closely."""

    def loss(batch: Any) -> Tensor:
        ids = torch.tensor([row.prompt_ids for row in batch])
        logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1]
        return nn.functional.cross_entropy(logits, torch.tensor([row.label for row in batch]))

    return loss


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("refresh_every", "weight_decay"), [(2, 0.0), (1, 0.3)])
def test_side_products_follow_the_plain_oracle(kit: Any, name: str, refresh_every: int, weight_decay: float) -> None:
    model = family(kit, name).double()
    oracle, mirrored = copy.deepcopy(model), copy.deepcopy(model)
    settings: dict[str, Any] = {"rank": 2, "refresh_every": refresh_every, "seed": 11}
    mirror = LowRank(mirrored, **settings)
    step_size: dict[str, Any] = {"lr": 1e-2, "weight_decay": weight_decay}
    plain = PlainMeZO(
        oracle,
        exact_loss(oracle),
        eps=1e-3,
        queries=2,
        seed=4,
        noise=lambda seed, key, parameter: mirror.written_out(seed)[key],
        **step_size,
    )
    direction = LowRank(model, **settings)
    engine = ZerothOrderLearner(
        model, exact_loss(model), direction, TwoPoint(1e-3), SGD(**step_size), queries=2, seed=4
    )
    before = copy.deepcopy(model.state_dict())
    for step in range(1, 6):
        mirror.begin(step)
        batch = [kit.rows(4, seed=step)]
        told = engine.step(step, batch), plain.step(step, batch)
        assert told[0].coefficients == pytest.approx(told[1].coefficients, rel=1e-6, abs=1e-6)
    engine.settle()
    engine.close()
    moved = {key: value for key, value in oracle.state_dict().items() if not torch.equal(value, before[key])}
    assert moved.keys() >= {key for key, _ in oracle.named_parameters()}
    for key, value in oracle.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_probe_acts_and_writes_no_weight(kit: Any, name: str, dtype: torch.dtype) -> None:
    model = family(kit, name).to(dtype)
    direction = LowRank(model, rank=1, refresh_every=1, seed=0)
    direction.begin(1)
    parameters = dict(model.named_parameters())
    bits = {key: each.data.view(torch.uint8).clone() for key, each in parameters.items()}
    places = {key: each.data_ptr() for key, each in parameters.items()}
    stored = {key: each.data for key, each in parameters.items()}
    loss = exact_loss(model)
    batch = kit.rows(4)
    bare = float(loss(batch))
    with direction.at(3, 0.3):
        above = float(loss(batch))
        assert all(torch.equal(stored[key].view(torch.uint8), bits[key]) for key in bits)
    with pytest.raises(ZeroDivisionError), direction.at(4, 0.1):
        raise ZeroDivisionError
    assert above != bare
    assert float(loss(batch)) == bare
    assert {key: each.data_ptr() for key, each in parameters.items()} == places
    assert all(torch.equal(each.data.view(torch.uint8), bits[key]) for key, each in parameters.items())
    direction.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_a_norm_scale_in_bf16_feels_perturbations_below_its_own_step() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8, dtype=torch.bfloat16)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(x)
            return out

    net = Net()
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = copy.deepcopy(net).float()
    direction = LowRank(net, rank=1, refresh_every=1, seed=0)
    direction.begin(1)
    z = direction.written_out(5)
    assert ((1 + 1e-3 * z["norm.weight"]).bfloat16() == 1).all()  # writing it to the weight would lose it
    with direction.at(5, 1e-3):
        out = net(x)
    assert out.dtype == torch.bfloat16
    exact.norm.weight.data.add_(1e-3 * z["norm.weight"])
    exact.norm.bias.data.add_(1e-3 * z["norm.bias"])
    assert torch.equal(out, exact(x.float()).bfloat16())
    assert not torch.equal(out, net(x))


@torch.no_grad()
def test_many_small_merges_are_not_lost_in_bf16() -> None:
    source = torch.Generator().manual_seed(0)
    start = (0.02 * torch.randn(64, 48, generator=source)).bfloat16()
    weight, residual, naive, exact = start.clone(), torch.zeros_like(start), start.clone(), start.double()
    for _ in range(300):
        left, right = 1e-3 * torch.randn(64, 2, generator=source), 1e-2 * torch.randn(48, 2, generator=source)
        merge_product(weight, residual, left, right, 1.0)
        naive.copy_(naive.float() + left @ right.T)
        exact += left.double() @ right.double().T
    moved = (exact - start.double()).flatten()

    def cosine(value: Tensor) -> float:
        return float(nn.functional.cosine_similarity((value - start.double()).flatten(), moved, dim=0))

    assert cosine(naive.double()) < 0.8
    assert cosine(weight.double() + residual.double() / RESIDUAL_SCALE) > 0.9999
    assert torch.equal(weight, exact.bfloat16()) or (weight != exact.bfloat16()).float().mean() < 0.01


@torch.no_grad()
def test_decay_takes_the_same_share_whatever_the_merges() -> None:
    """Five steps of decay and no move: W becomes (1 − lr·wd)⁵·W, with merges after every step or after all."""
    for refresh_every in (1, 3, 50):
        model = Quadratic()
        before = model.layer.weight.data.clone()
        direction = LowRank(model, rank=1, refresh_every=refresh_every, seed=0)
        for step in range(1, 6):
            direction.begin(step)
            SGD(lr=0.1, weight_decay=0.5).apply(direction, Probe((1,), (0.0,), ((1.0, 1.0),), 2))
        direction.settle()
        torch.testing.assert_close(model.layer.weight.data, before * 0.95**5)


def test_noise_does_not_depend_on_the_order_of_the_parameters() -> None:
    def net(order: tuple[str, ...]) -> nn.Module:
        return nn.ModuleDict({key: nn.Linear(4, 3) for key in order})

    drawn = []
    for order in (("a", "b"), ("b", "a")):
        direction = LowRank(net(order), rank=2, refresh_every=4, seed=9)
        direction.begin(5)
        drawn.append(direction.written_out(17))
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])
    assert not torch.equal(drawn[0]["a.weight"], drawn[0]["b.weight"])


def test_right_factors_last_a_period_and_left_ones_a_probe() -> None:
    model = nn.Sequential(nn.Linear(5, 4, bias=False))
    direction = LowRank(model, rank=1, refresh_every=3, seed=0)
    rows = []
    for step in range(1, 7):
        direction.begin(step)
        z = direction.written_out(derive_seed(0, "probe", step, 0))["0.weight"]
        rows.append(z[0] / z[0].norm() * z[0, 0].sign())
    for index in range(1, 6):
        same_row_space = torch.allclose(rows[index], rows[index - 1], atol=1e-5)
        assert same_row_space == (index != 3)


def test_matrices_that_no_known_module_applies_are_exchanged() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.arange(24.0).view(2, 3, 4))
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,eoi->beo", x @ self.inner.weight + self.inner.bias, self.experts)

    model, x = Raw(), torch.ones(1, 4)
    direction = LowRank(model, rank=1, refresh_every=1, seed=0)
    direction.begin(1)
    direction.prepare(lambda: model(x))
    assert not direction.supports_batch
    z = direction.written_out(4)
    before = {name: each.data.clone() for name, each in model.named_parameters()}
    with torch.no_grad(), direction.at(4, 0.5):
        found = model(x)
    for name, each in model.named_parameters():
        assert torch.equal(each, before[name])
        each.data.add_(0.5 * z[name])
    torch.testing.assert_close(found, model(x))
    for name, each in model.named_parameters():
        each.data.copy_(before[name])
    direction.move(4, 0.5)
    direction.settle()
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.data, before[name] + 0.5 * z[name])


@pytest.mark.parametrize(("name", "groups"), [("llama", [3, 2, 3, 2]), ("gpt2", [])])
@torch.no_grad()
def test_projections_of_one_input_share_a_product(kit: Any, name: str, groups: list[int]) -> None:
    model = family(kit, name).double()
    direction = LowRank(model, rank=2, refresh_every=1, seed=0)
    loss, batch = exact_loss(model), kit.rows(4)
    direction.begin(1)
    with direction.at(1, 0.1):
        apart = float(loss(batch))
    direction.prepare(lambda: loss(batch))
    members = [matrix._group for matrix in direction.matrices if matrix._group is not None]
    assert [members.count(group) for group in dict.fromkeys(members)] == groups
    with direction.at(1, 0.1):
        assert float(loss(batch)) == pytest.approx(apart, rel=1e-12)
    direction.begin(2)
    z = direction.written_out(1)
    stored = {key: each.data.clone() for key, each in model.named_parameters()}
    with direction.at(1, 0.1):
        together = float(loss(batch))
    for key, each in model.named_parameters():
        each.data.copy_(stored[key] + 0.1 * z[key])
    assert float(loss(batch)) == pytest.approx(together, rel=1e-9)


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    direction = LowRank(model, rank=1, refresh_every=1, seed=0)
    assert set(direction.weights()) == {"1.weight", "1.bias"}


def test_one_bad_direction_of_two_is_left_out() -> None:
    calls: list[tuple[int, float]] = []

    class Recorder:
        def move(self, seed: int, amount: float) -> None:
            calls.append((seed, amount))

        def decay(self, factor: float) -> None:
            raise AssertionError("no decay was asked for")

    probe = Probe((1, 2), (math.nan, 3.0), ((math.inf, 1.0), (2.0, 1.0)), 4)
    assert SGD(0.5).apply(Recorder(), probe)  # type: ignore[arg-type]
    assert calls == [(2, -1.5)]
    assert probe.loss == pytest.approx(4 / 3)
    assert not SGD(0.5).apply(Recorder(), Probe((1,), (math.nan,), ((math.nan, 1.0),), 2))  # type: ignore[arg-type]
