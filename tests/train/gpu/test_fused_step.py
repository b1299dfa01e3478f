from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton must know when it is first imported, which other tests may have done: test_interpreted.py runs this file.
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from optaware.models import EncodedExample
from optaware.train.gpu import FusedLearner, NotSupported
from optaware.train.noise import noise_key, reference_noise
from optaware.train.schedules import Settings
from optaware.train.zeroth import probe_seeds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {"head_dim": 32} if DEVICE == "cuda" else {}  # what the attention kernel takes there
EPS, LR = 1e-2, 1e-2
ONE = ((5,), (6,))
SEVERAL = ((5, 7, 8), (6,), (9, 10))


def examples(options: Any, lengths: tuple[int, ...] = (7, 3, 5)) -> list[EncodedExample]:
    source = torch.Generator().manual_seed(1)
    return [
        EncodedExample(f"e/{at}", tuple(torch.randint(11, 60, (size,), generator=source).tolist()), options, at % 2)
        for at, size in enumerate(lengths)
    ]


def plain_loss(model: nn.Module, rows: list[EncodedExample], objective: str) -> Tensor:
    """One row per option, no padding, in the model's own forward."""
    total = []
    for row in rows:
        scores = []
        for option in row.option_ids:
            ids = torch.tensor([[*row.prompt_ids, *option]], device=DEVICE)
            logprobs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            at = len(row.prompt_ids) - 1
            scores.append(torch.stack([logprobs[at + i, token] for i, token in enumerate(option)]).mean())
        loss = -scores[row.label] if objective == "language-model" else -torch.stack(scores).log_softmax(0)[row.label]
        total.append(loss)
    return torch.stack(total).mean()


def learner(model: nn.Module, direction: str, objective: str = "options", **changes: Any) -> FusedLearner:
    options = {"queries": 1, "rank": 3, "refresh_every": 2, "seed": 3, **changes}
    now = Settings(LR, EPS, options["queries"])
    return FusedLearner(model, objective, direction=direction, settings=lambda step: now, **options)


def noise(model: nn.Module, fused: FusedLearner, step: int, direction: str, query: int = 0) -> dict[str, Tensor]:
    """z of each parameter, written out by the definition."""
    seed = probe_seeds(3, step, query + 1)[query]
    made = {}
    for name, parameter in model.named_parameters():
        key = noise_key(seed, name)
        if direction == "gaussian" or parameter.ndim < 2:
            made[name] = reference_noise(key, parameter.shape, "gaussian").to(DEVICE)
        else:
            u = reference_noise(key, (3, parameter.shape[0]), "gaussian").to(DEVICE)
            made[name] = u.t() @ fused.weights_of.right[name].float().t()
    return made


def shifted(model: nn.Module, z: dict[str, Tensor], scale: float) -> Any:
    import copy

    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.add_(z[name], alpha=scale)
    return other


@pytest.mark.parametrize("direction", ["gaussian", "low-rank"])
@pytest.mark.parametrize(
    ("options", "objective"), [(ONE, "options"), (SEVERAL, "options"), (SEVERAL, "language-model")]
)
def test_losses_of_both_signs_are_those_of_the_perturbed_model(
    kit: Any, direction: str, options: Any, objective: str
) -> None:
    model = kit.llama(**HEADS).to(DEVICE)
    fused = learner(model, direction, objective)
    rows = examples(options)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    found = fused.probe_losses(1, [rows])
    z = noise(model, fused, 1, direction)
    with torch.no_grad():
        wanted = [float(plain_loss(shifted(model, z, sign * EPS), rows, objective)) for sign in (1, -1)]
    assert found == pytest.approx(wanted, abs=3e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-4)
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize("direction", ["gaussian", "low-rank"])
def test_a_step_moves_along_the_noise_by_its_coefficients(kit: Any, direction: str) -> None:
    model = kit.llama(tied=False, **HEADS).to(DEVICE)
    fused = learner(model, direction, queries=2, weight_decay=0.5)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    rows = examples(ONE)
    result = fused.step(1, [rows[:2], rows[2:]])
    zs = [noise(model, fused, 1, direction, query) for query in (0, 1)]
    fused.settle()
    for name, parameter in model.named_parameters():
        wanted = before[name] * (1 - LR * 0.5 if parameter.ndim > 1 else 1)
        for g, z in zip(result.coefficients, zs, strict=True):
            wanted = wanted - LR * g / 2 * z[name]
        assert torch.allclose(parameter, wanted, atol=2e-6), name
    assert not result.skipped
    assert result.loss == pytest.approx(sum(fused.frame.losses.flatten().tolist()) / 4)


@pytest.mark.parametrize("direction", ["gaussian", "low-rank"])
def test_steps_can_be_repeated_from_coefficients_and_resumed(kit: Any, direction: str) -> None:
    rows = examples(ONE)
    model, other, third = (kit.llama(**HEADS).to(DEVICE) for _ in range(3))
    first, again, resumed = (learner(each, direction) for each in (model, other, third))
    kept = []
    for step in (1, 2, 3):
        if step == 3:
            weights = {name: each.clone() for name, each in first.weights().items()}
            state = {name: each.clone() for name, each in first.state().items()}
        kept.append(first.step(step, [rows]).kept)
    for step, values in enumerate(kept, start=1):
        again.repeat(step, values)
    resumed.load(weights, state)
    resumed.step(3, [rows])
    for each in (first, again, resumed):
        each.settle()
    for name, weight in first.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name
        assert torch.allclose(weight, again.weights()[name], atol=1e-7), name


def test_a_loss_that_is_not_finite_moves_nothing(kit: Any) -> None:
    model = kit.llama(**HEADS).to(DEVICE)
    fused = learner(model, "gaussian", weight_decay=0.5)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    fused.weights_of.vectors.learnt[fused.weights_of.vectors.spans["model.norm.weight"]] = float("nan")
    before = {name: each.clone() for name, each in model.state_dict().items() if "norm" not in name}
    result = fused.step(1, [examples(ONE)])
    assert result.skipped
    assert result.loss is None
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())


@pytest.mark.parametrize(("rounding", "least"), [("stochastic", 0.2), ("residual", 0.98)])
def test_small_updates_reach_bf16_weights(kit: Any, rounding: str, least: float) -> None:
    model = kit.llama(torch.bfloat16, **HEADS).to(DEVICE)
    fused = learner(model, "gaussian", rounding=rounding)
    name = "model.layers.0.mlp.up_proj.weight"
    before = dict(model.named_parameters())[name].detach().float().clone()
    wanted = torch.zeros_like(before)
    for step in range(1, 41):
        fused.repeat(step, (1e-2,))
        wanted -= LR * 1e-2 * noise(model, fused, step, "gaussian")[name]
    moved = fused.weights()[name].float() - before
    if rounding == "residual":
        moved += fused.weights_of.residuals[name].float() / 1024
    cosine = torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0)
    assert cosine > least


def test_probes_leave_every_bit_of_half_precision_weights(kit: Any) -> None:
    # Triton's interpreter cannot multiply bf16 matrices.
    model = kit.llama(torch.bfloat16 if DEVICE == "cuda" else torch.float16, **HEADS).to(DEVICE)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    for direction in ("gaussian", "low-rank"):
        fused = learner(model, direction)
        for step in (1, 2, 1):
            fused.probe_losses(step, [examples(ONE)])
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())


def test_other_models_are_refused_with_the_reason(kit: Any) -> None:
    with pytest.raises(NotSupported, match="gpt2"):
        learner(kit.gpt2(), "gaussian")
    frozen = kit.llama(**HEADS)
    frozen.lm_head.weight.requires_grad_(False)
    with pytest.raises(NotSupported, match="frozen"):
        learner(frozen, "gaussian")
