"""What every direction promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optaware.errors import ModelError
from optaware.records import MeZO
from optaware.train.directions import Dense, InPlace, LowRank

DIRECTIONS: dict[str, Callable[..., Any]] = {
    "gaussian": lambda model, **rest: Dense(model, **rest),
    "rademacher": lambda model, **rest: Dense(model, distribution="rademacher", **rest),
    "magnitude": lambda model, **rest: Dense(model, mask="magnitude", density=0.5, **rest),
    "random-mask": lambda model, **rest: Dense(model, mask="random", density=0.25, **rest),
    "layers": lambda model, **rest: Dense(model, layers=1, **rest),
    "stored": lambda model, **rest: Dense(model, store=True, **rest),
    "stochastic": lambda model, **rest: Dense(model, precision="stochastic", **rest),
    "master": lambda model, **rest: Dense(model, precision="master", **rest),
    "low-rank": lambda model, **rest: LowRank(model, rank=2, refresh_every=2, **({"seed": 0} | rest)),
    "low-rank-layers": lambda model, **rest: LowRank(model, rank=2, refresh_every=2, layers=1, **({"seed": 0} | rest)),
    "low-rank-host": lambda model, **rest: LowRank(
        model, rank=2, refresh_every=2, host_residuals=True, **({"seed": 0} | rest)
    ),
}


def test_every_choice_of_a_config_is_held_to_the_contract() -> None:
    named = {"gaussian", "rademacher", "low-rank"}
    assert set(get_args(MeZO.model_fields["direction"].annotation)) == named <= DIRECTIONS.keys()
    assert set(get_args(MeZO.model_fields["mask"].annotation)) == {"none", "magnitude", "random"}
    assert set(get_args(MeZO.model_fields["noise"].annotation)) == {"regenerate", "store"}
    remedies = set(get_args(MeZO.model_fields["precision"].annotation))
    assert remedies == {"auto", "residual", "stochastic", "master", "none"}
    assert {
        "magnitude",
        "random-mask",
        "stored",
        "stochastic",
        "master",
        "layers",
        "low-rank-host",
    } <= DIRECTIONS.keys()


FAMILIES = {"llama": {}, "untied": {"tied": False}, "bias": {"attention_bias": True, "mlp_bias": True}, "gpt2": None}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

each_direction = pytest.mark.parametrize("kind", DIRECTIONS)
each_family = pytest.mark.parametrize("family", FAMILIES)


def model_of(kit: Any, family: str, dtype: torch.dtype = torch.float32) -> Any:
    options = FAMILIES[family]
    return kit.gpt2(dtype) if options is None else kit.llama(dtype, **options)


IDS = torch.randint(0, 60, (3, 6), generator=torch.Generator().manual_seed(0))


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).logits[:, -1]
    return found


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.data.clone().view(torch.uint8) for name, each in model.named_parameters()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@each_direction
@each_family
@torch.no_grad()
def test_a_probe_computes_with_the_written_out_perturbation(kit: Any, kind: str, family: str) -> None:
    model = model_of(kit, family).double()
    direction = DIRECTIONS[kind](model)
    direction.begin(1)
    direction.prepare(lambda: logits(model))
    z, bare, before = direction.written_out(5), logits(model), bits(model)
    assert z.keys() == dict(model.named_parameters()).keys()
    found = []
    for scale in (0.05, -0.05):
        with direction.at(5, scale):
            assert same(bits(model), before) or any(each.site.kind != "bias" for each in direction.vectors)
            found.append(logits(model))
    assert same(bits(model), before)
    direction.close()
    for scale, one in zip((0.05, -0.05), found, strict=True):
        other = copy.deepcopy(model)
        for name, each in other.named_parameters():
            each.data.add_(z[name].double() * scale)
        torch.testing.assert_close(one, logits(other), rtol=1e-8, atol=1e-8)
        assert (one - bare).abs().max() > 1e-3


@each_direction
@each_family
@torch.no_grad()
def test_batched_probes_are_the_sequential_ones(kit: Any, kind: str, family: str) -> None:
    model = model_of(kit, family).double()
    direction = DIRECTIONS[kind](model)
    direction.begin(1)
    assert direction.supports_batch
    probes = [(5, 0.1), (5, -0.1), (9, 0.1), (3, 0.0)]
    apart = []
    for probe in probes:
        with direction.at(*probe):
            apart.append(logits(model))
    with direction.batched(probes):
        together = logits(model, IDS.repeat(4, 1))
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(apart[3], logits(model), rtol=1e-9, atol=1e-9)
    assert (apart[0] - apart[1]).abs().max() > 1e-3


@each_direction
@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_thousand_probes_leave_every_bit(kit: Any, kind: str, dtype: torch.dtype) -> None:
    model = model_of(kit, "llama", dtype)
    direction = DIRECTIONS[kind](model)
    direction.begin(1)
    before = bits(model)
    for probe in range(1000):
        with direction.at(probe, 1e-3 if probe % 2 else -1e-3):
            if probe % 250 == 0:
                logits(model, IDS[:1, :2])
    assert same(bits(model), before)
    direction.settle()
    assert same(bits(model), before)
    direction.close()


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_the_paper_s_way_leaves_rounding_behind(kit: Any, dtype: torch.dtype) -> None:
    model = model_of(kit, "llama", dtype)
    direction = InPlace(model)
    direction.begin(1)
    before, bare = bits(model), logits(model)
    for probe in range(30):
        with direction.at(probe, 1e-3):
            if probe == 0:
                assert not torch.equal(logits(model), bare)
    assert not same(bits(model), before)


@each_direction
@torch.no_grad()
def test_noise_depends_on_seed_and_name_alone(kit: Any, kind: str) -> None:
    one, two = (DIRECTIONS[kind](model_of(kit, "untied")) for _ in range(2))
    for direction in (one, two):
        direction.begin(1)
    first = one.written_out(5)
    two.written_out(77)
    assert same(first, two.written_out(5))
    assert not same(first, one.written_out(6))
    names = [name for name, each in first.items() if each.ndim == 2 and each.count_nonzero()]
    assert not torch.equal(first[names[0]].flatten()[:64], first[names[1]].flatten()[:64])


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "stored", "low-rank"])
@torch.no_grad()
def test_mean_zero_and_identity_covariance(kind: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    direction = DIRECTIONS[kind](model)
    drawn = []
    for step in range(1, 4001, 2):  # a new V each time
        direction.begin(step)
        z = direction.written_out(step)
        drawn.append(torch.cat([z["0.weight"].flatten(), z["0.bias"]]))
    sample = torch.stack(drawn)
    assert sample.mean(0).abs().max() < 5 / len(sample) ** 0.5
    assert ((sample.T @ sample) / len(sample) - torch.eye(8)).abs().max() < 0.2


@each_direction
@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_resumed_direction_goes_on_to_the_same_bits(kit: Any, kind: str, dtype: torch.dtype) -> None:
    def steps(direction: Any, first: int, last: int) -> None:
        for step in range(first, last + 1):
            direction.begin(step)
            with direction.at(step, 1e-3):
                pass
            direction.decay(0.999)
            direction.move(step, 2e-4)
            direction.move(step + 100, -1e-4)

    whole = model_of(kit, "llama", dtype)
    straight = DIRECTIONS[kind](whole)
    steps(straight, 1, 3)
    saved = [{name: each.clone() for name, each in part.items()} for part in (straight.weights(), straight.state())]
    saved[0] = {name: each.clone() for name, each in straight.weights().items()}
    steps(straight, 4, 7)
    straight.settle()
    other = model_of(kit, "llama", dtype)
    resumed = DIRECTIONS[kind](other)
    resumed.load(*saved)
    steps(resumed, 4, 7)
    resumed.settle()
    assert same(bits(whole), bits(other))
    assert not same(bits(whole), bits(model_of(kit, "llama", dtype)))


@torch.no_grad()
def test_stored_noise_is_the_regenerated_noise_to_the_bit(kit: Any) -> None:
    ends = []
    for store in (False, True):
        model = model_of(kit, "llama", torch.bfloat16)
        direction = Dense(model, store=store, mask="magnitude", density=0.7)
        found = []
        for step in range(1, 4):
            direction.begin(step)
            with direction.at(step, 1e-2):
                found.append(logits(model))
            direction.move(step, 1e-3)
        direction.settle()
        ends.append((bits(model), found))
    assert same(ends[0][0], ends[1][0])
    assert all(torch.equal(one, two) for one, two in zip(ends[0][1], ends[1][1], strict=True))


@torch.no_grad()
def test_masks_keep_their_share(kit: Any) -> None:
    model = model_of(kit, "llama")
    small = Dense(model, mask="magnitude", density=0.25)
    small.begin(1)
    for name, z in small.written_out(1).items():
        weight = dict(model.named_parameters())[name].data
        if z.ndim == 2:
            assert (z != 0).float().mean() == pytest.approx(0.25, abs=0.01)
            assert weight[z != 0].abs().max() <= weight[z == 0].abs().min()
    some = Dense(model, mask="random", density=0.25)
    kept = []
    for step in (1, 2):
        some.begin(step)
        kept.append(some.written_out(1)["model.embed_tokens.weight"] != 0)
    assert kept[0].float().mean() == pytest.approx(0.25, abs=0.06)
    assert not torch.equal(*kept)


@pytest.mark.parametrize("kind", ["layers", "low-rank-layers"])
@torch.no_grad()
def test_one_random_block_a_step(kit: Any, kind: str) -> None:
    direction = DIRECTIONS[kind](model_of(kit, "llama"))
    seen = set()
    for step in range(1, 9):
        direction.begin(step)
        touched = {name.split(".")[2] for name, z in direction.written_out(step).items() if z.count_nonzero()}
        assert len(touched) == 1
        seen |= touched
    assert seen == {"0", "1"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("precision", "least"), [("residual", 0.99), ("master", 0.99), ("stochastic", 0.1)])
@torch.no_grad()
def test_small_moves_are_not_lost(dtype: torch.dtype, precision: Any, least: float) -> None:
    model = nn.Sequential(nn.Linear(48, 64, bias=False, dtype=dtype))
    source = torch.Generator().manual_seed(0)
    model[0].weight.data = (0.02 * torch.randn(64, 48, generator=source)).to(dtype)
    start, intended = model[0].weight.data.double(), torch.zeros(64, 48, dtype=torch.float64)
    direction = Dense(model, precision=precision)
    for step in range(1, 301):
        direction.begin(step)
        direction.move(step, 1e-5)
        intended += 1e-5 * direction.written_out(step)["0.weight"].double()
    direction.settle()
    moved = (model[0].weight.data.double() - start).flatten()
    beside = direction.weights_of["0.weight"].beside
    if precision == "residual":
        moved += beside.double().flatten() / 1024
    elif precision == "master":
        moved = (beside.double() - start).flatten()
    assert nn.functional.cosine_similarity(moved, intended.flatten(), dim=0) > least


def test_parameters_of_unknown_modules_are_exchanged() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.ones(2, 3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,eij->bej", x, self.experts)

    model = Experts()
    direction = Dense(model)
    direction.begin(1)
    z, x = direction.written_out(1)["experts"], torch.ones(1, 3)
    with torch.no_grad(), direction.at(1, 0.5):
        found = model(x)
    torch.testing.assert_close(found, torch.einsum("bi,eij->bej", x, 1 + 0.5 * z))
    assert (model.experts == 1).all()
    assert not direction.supports_batch


@pytest.mark.parametrize("make", [Dense, lambda model: LowRank(model, rank=1, refresh_every=1, seed=0)])
def test_what_cannot_be_perturbed_is_refused(make: Any) -> None:
    with pytest.raises(ModelError, match="requires_grad"):
        make(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ModelError, match="meta"):
        make(nn.Linear(2, 2, device="meta"))
    packed = nn.Linear(2, 2)
    packed.extra = nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="quantised"):
        make(packed)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**64 - 1),
    scale=st.floats(-2, 2),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 70)),
    kind=st.sampled_from(["gaussian", "rademacher", "magnitude", "random-mask", "stored"]),
    dtype=st.sampled_from(DTYPES),
)
@torch.no_grad()
def test_restore_and_replay(seed: int, scale: float, shape: tuple[int, int], kind: str, dtype: torch.dtype) -> None:
    made = []
    for probing in (True, False):
        model = nn.Sequential(nn.Linear(shape[1], shape[0], dtype=dtype))
        model[0].weight.data = torch.linspace(-1, 1, shape[0] * shape[1]).view(shape).to(dtype)
        model[0].bias.data.zero_()
        direction = DIRECTIONS[kind](model)
        before = bits(model)
        for step in (1, 2):
            direction.begin(step)
            if probing:
                with direction.at(seed, scale):
                    model(torch.ones(1, shape[1], dtype=dtype))
                assert step > 1 or same(bits(model), before)
            direction.move(seed, 1e-2 * scale)
        direction.settle()
        made.append(bits(model))
    assert same(*made)
