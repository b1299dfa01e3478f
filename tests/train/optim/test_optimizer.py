"""The contract of `ZerothOrder` as a torch optimizer."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from optaware.errors import DivergedError, InputError, ModelError
from optaware.records import Fast
from optaware.train import SGD, BatchClosure, LowRank, TwoPoint, ZerothOrder, ZerothOrderLearner
from optaware.train._methods import make_learner

torch.set_num_threads(1)


@pytest.fixture
def model(tiny_model_dir: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir)


def batches(count: int, rows: int = 4) -> list[Tensor]:
    source = torch.Generator().manual_seed(5)
    return [torch.randint(0, 250, (rows, 9), generator=source) for _ in range(count)]


def closure(model: Any, ids: Tensor) -> Callable[[], Tensor]:
    return lambda: model(input_ids=ids, labels=ids).loss


def run(model: Any, data: list[Tensor], optimizer: ZerothOrder | None = None, **settings: Any) -> ZerothOrder:
    optimizer = optimizer or ZerothOrder(model, "fast", lr=1e-3, **settings)
    for ids in data:
        optimizer.estimate(closure(model, ids))
        optimizer.step()
    return optimizer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_takes_the_steps_of_the_run_loop_to_the_bit(model: Any, tiny_model_dir: Path) -> None:
    data = batches(12)
    run(model, data, seed=3).settle()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    config = Fast()
    direction = LowRank(plain, rank=config.rank, refresh_every=config.refresh_every, seed=3)
    learner = ZerothOrderLearner(
        plain, lambda ids: closure(plain, ids[0])(), direction, TwoPoint(config.eps), SGD(1e-3), seed=3
    )
    for step, ids in enumerate(data, start=1):
        learner.step(step, [[ids]])
    learner.settle()
    assert same(weights(model), weights(plain))


@pytest.mark.parametrize("name", ["mezo", "mezo-adam", "lozo", "fzoo", "fast"])
def test_every_method_takes_the_steps_of_the_run_loop(model: Any, tiny_model_dir: Path, name: str) -> None:
    data = batches(4)
    optimizer = ZerothOrder(model, name, lr=1e-4, seed=3)
    run(model, data, optimizer).settle()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    config: Any = optimizer.config
    learner = make_learner(plain, lambda ids: closure(plain, ids[0])(), config, 3, 4)
    for step, ids in enumerate(data, start=1):
        learner.step(step, [[ids]])
    learner.settle()
    assert same(weights(model), weights(plain))
    assert not same(weights(model), weights(AutoModelForCausalLM.from_pretrained(tiny_model_dir)))


@pytest.mark.parametrize("settings", [{"update": "adam"}, {"estimator": "one-point-residual"}, {"update": "momentum"}])
def test_what_methods_remember_is_saved(model: Any, tiny_model_dir: Path, settings: dict[str, Any]) -> None:
    data = batches(6)
    optimizer = ZerothOrder(model, "fast", lr=1e-4, **settings)
    run(model, data[:3], optimizer)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    run(model, data[3:], optimizer)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    again = ZerothOrder(other, "fast", lr=1e-4, **settings)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    run(other, data[3:], again)
    assert same(weights(model), weights(other))


@pytest.mark.parametrize(("batching", "passes"), [("off", 9), ("pairs", 5), ("on", 2), ("auto", 2)])
def test_a_batch_closure_looks_at_several_points_in_one_pass(
    model: Any, tiny_model_dir: Path, batching: Any, passes: int
) -> None:
    """9 points of FZOO, 5 in the first pass that the closure lets 5 copies go through at once."""
    other, ids = AutoModelForCausalLM.from_pretrained(tiny_model_dir), batches(1)[0]
    settings: dict[str, Any] = {"lr": 1e-3, "direction": "low-rank", "batching": batching}
    one, two = (ZerothOrder(each, "fzoo", **settings) for each in (model, other))
    calls: list[int] = []
    other.register_forward_pre_hook(
        lambda module, args, inputs: calls.append(len(inputs["input_ids"])), with_kwargs=True
    )
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for _ in range(2):
        calls.clear()
        one.estimate(lambda: model(input_ids=ids, labels=ids, attention_mask=mask).loss)
        batch = {"input_ids": ids, "labels": ids, "attention_mask": mask}
        two.estimate(BatchClosure(other, batch, most_copies=5))
        one.step()
        two.step()
    assert len(calls) == passes
    assert sum(calls) == 9 * len(ids)
    assert two.probe is not None
    assert one.probe is not None
    assert two.probe.losses[0] == pytest.approx(one.probe.losses[0], rel=1e-5)
    assert two.probe.coefficients == pytest.approx(
        one.probe.coefficients, abs=0.02 * max(map(abs, one.probe.coefficients))
    )


def test_parts_of_a_batch_are_the_batch(model: Any, tiny_model_dir: Path) -> None:
    whole = batches(6, rows=8)
    run(model, whole)
    parted = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    optimizer = ZerothOrder(parted, "fast", lr=1e-3)
    for ids in whole:
        optimizer.estimate(closure(parted, ids[:2]), weight=0.25)
        optimizer.estimate(closure(parted, ids[2:]), weight=0.75)
        optimizer.step()
    assert optimizer.forwards == 12
    one, other = weights(model), weights(parted)
    start = weights(AutoModelForCausalLM.from_pretrained(tiny_model_dir))
    moved = sum(float((one[name] - start[name]).norm()) for name in one)
    apart = sum(float((one[name] - other[name]).norm()) for name in one)
    assert apart < 0.05 * moved


def test_parts_without_weights_count_the_same(model: Any) -> None:
    optimizer = ZerothOrder(model, "fast", lr=1e-3)
    first, second = batches(2)
    optimizer.estimate(closure(model, first))
    optimizer.estimate(closure(model, second))
    optimizer.step()
    probe = optimizer.probe
    assert probe is not None
    ((above, below),) = probe.losses
    assert probe.coefficients[0] == pytest.approx((above - below) / 2e-3, rel=1e-6)
    optimizer.estimate(closure(model, first))
    with pytest.raises(InputError, match="weight-mixed"):
        optimizer.estimate(closure(model, first), weight=0.5)


def test_a_saved_state_goes_on_to_the_same_bits(model: Any, tiny_model_dir: Path) -> None:
    data = batches(14)
    optimizer = run(model, data[:7])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    scheduler.last_epoch = 3
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    run(model, data[7:], optimizer)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    again = ZerothOrder(other, "fast", lr=7.0)
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    assert again.param_groups[0]["lr"] == 5e-4
    assert again.steps_done == 7
    run(other, data[7:], again)
    assert same(weights(model), weights(other))
    assert again.forwards == optimizer.forwards == 28


def test_a_state_of_other_processes_goes_on_and_says_how_many_they_were(model: Any, tiny_model_dir: Path) -> None:
    """Each had a batch of its own; what they had learnt is the same everywhere, so any number may take it up."""
    optimizer = run(model, batches(2), ZerothOrder(model, "fast", lr=1e-3))
    state = optimizer.state_dict()
    assert state["zeroth_order"]["processes"] == 1
    state["zeroth_order"]["processes"] = 4
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    other.load_state_dict(model.state_dict())
    again = ZerothOrder(other, "fast", lr=1e-3)
    again.load_state_dict(state)
    for one, its in ((model, optimizer), (other, again)):
        run(one, batches(2), its)
    assert same(weights(model), weights(other))


def test_a_state_of_something_else_is_refused(model: Any) -> None:
    state = ZerothOrder(model, "fast").state_dict()
    with pytest.raises(InputError, match="optimizer-state-foreign"):
        ZerothOrder(model, "fast", seed=1).load_state_dict(state)
    with pytest.raises(InputError, match="optimizer-state-foreign"):
        ZerothOrder(model, "fast", eps=1e-2).load_state_dict(state)
    with pytest.raises(InputError, match="optimizer-state-foreign"):
        ZerothOrder(model, "fast").load_state_dict(torch.optim.SGD(model.parameters()).state_dict())


def test_a_state_of_an_earlier_release_is_taken_up(model: Any) -> None:
    """Its identity names every field that there was, and none that came later."""
    state = run(model, batches(1)).state_dict()
    held = json.loads(state["zeroth_order"]["identity"])
    fields = Fast().model_dump(mode="json", exclude={"lr", "weight_decay", "fused", "host_residuals"})
    state["zeroth_order"]["identity"] = json.dumps({**held, "method": fields})
    optimizer = ZerothOrder(model, "fast")
    optimizer.load_state_dict(state)
    assert optimizer.steps_done == 1
    state["zeroth_order"]["identity"] = json.dumps({**held, "method": {**fields, "rank": 3}})
    with pytest.raises(InputError, match="method or parameters"):
        optimizer.load_state_dict(state)


def test_evaluating_and_saving_see_all_that_was_learnt(model: Any) -> None:
    data = batches(3)
    before = weights(model)
    with torch.no_grad():
        start = float(closure(model, data[0])())
    optimizer = run(model, data)
    with torch.no_grad():
        after = float(closure(model, data[0])())
    assert after != start  # without merging, the bare model would still compute with the old weights
    run(model, data[:1], optimizer)
    assert not same(before, {name: each.clone() for name, each in model.state_dict().items()})


def test_weights_loaded_later_are_the_ones_trained(model: Any, tiny_model_dir: Path) -> None:
    data = batches(4)
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for each in other.parameters():
            each.add_(0.01)
    optimizer = ZerothOrder(model, "fast", lr=1e-3)
    model.load_state_dict(other.state_dict())
    run(model, data, optimizer)
    run(other, data)
    assert same(weights(model), weights(other))


def test_a_scheduler_sets_the_step_size(model: Any) -> None:
    optimizer = ZerothOrder(model, "fast", lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=1)
    (ids,) = batches(1)
    optimizer.estimate(closure(model, ids))
    optimizer.step()
    scheduler.step()
    optimizer.settle()
    before = weights(model)
    optimizer.estimate(closure(model, ids))
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0
    assert same(before, weights(model))


def test_groups_have_their_own_step_size_and_decay(model: Any, tiny_model_dir: Path) -> None:
    head = [each for name, each in model.named_parameters() if ".mlp." in name]
    rest = [each for name, each in model.named_parameters() if ".mlp." not in name]
    data = batches(5)
    before = weights(model)
    groups = [{"params": head, "lr": 1e-3}, {"params": rest, "lr": 0.0}]
    run(model, data, ZerothOrder(model, "fast", groups)).settle()
    after = weights(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if ".mlp." in name
    }
    # Groups that agree in everything are one: z is a function of a parameter's name.
    one, two = (AutoModelForCausalLM.from_pretrained(tiny_model_dir) for _ in range(2))
    run(one, data)
    parts = [
        {"params": [each for name, each in two.named_parameters() if (".mlp." in name) == flag]}
        for flag in (True, False)
    ]
    run(two, data, ZerothOrder(two, "fast", parts, lr=1e-3))
    first, second = weights(one), weights(two)
    assert all(torch.allclose(first[name], second[name], atol=2e-6) for name in first)
    decayed = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    parts = [
        {
            "params": [each for name, each in decayed.named_parameters() if (".mlp." in name) == flag],
            "weight_decay": 50.0 * flag,
        }
        for flag in (True, False)
    ]
    run(decayed, data, ZerothOrder(decayed, "fast", parts, lr=1e-3))
    third = weights(decayed)
    shrunk = {name for name in first if third[name].norm() < 0.9 * first[name].norm()}
    assert shrunk == {name for name in first if ".mlp." in name}


@pytest.mark.parametrize("method", ["fast", "mezo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("most", [1, 2])
def test_a_norm_may_lie_in_two_groups(method: str, dtype: torch.dtype, most: int) -> None:
    """Its scale and its bias then belong to two directions, which both act on the one module."""
    x, ends = torch.linspace(-1, 1, 24, dtype=dtype).view(6, 4), []
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    for groups in ([names], [names[:3], names[3:]]):
        net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        for index, each in enumerate(net.parameters()):
            each.data = torch.cos(torch.arange(each.numel(), dtype=torch.float32) + index).view(each.shape)
        net, own = net.to(dtype), dict(net.named_parameters())

        class Batch:
            most_copies = most

            def __call__(self, net: Any = net) -> Tensor:
                return net(x).float().square().mean()

            def copies(self, count: int, net: Any = net) -> list[Tensor]:
                return [each.float().square().mean() for each in net(x.repeat(count, 1)).chunk(count)]

        optimizer = ZerothOrder(net, method, [{"params": [own[name] for name in group]} for group in groups], lr=1e-2)
        for _ in range(3):
            optimizer.estimate(Batch())
            optimizer.step()
        optimizer.close()
        assert not any("forward" in module.__dict__ for module in net.modules())
        ends.append({name: each.data for name, each in net.named_parameters()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in names)


def test_the_closure_runs_without_gradients_and_without_dropout(model: Any) -> None:
    seen = []
    model.train()

    def watch() -> Tensor:
        seen.append((torch.is_grad_enabled(), model.training, any(each.training for each in model.model.modules())))
        return closure(model, batches(1)[0])()

    optimizer = ZerothOrder(model, "fast")
    optimizer.estimate(watch)
    assert set(seen) == {(False, True, False)}
    assert len(seen) == 4  # two to see that it repeats itself, two probes
    optimizer.estimate(watch)
    assert len(seen) == 6
    assert all(each.training for each in model.modules())
    optimizer.zero_grad()
    optimizer.step()
    assert all(each.grad is None for each in model.parameters())


def test_step_takes_a_closure_as_other_optimizers_do(model: Any, tiny_model_dir: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    data = batches(3)
    run(model, data)
    optimizer = ZerothOrder(other, "fast", lr=1e-3)
    for ids in data:
        assert math.isfinite(float(optimizer.step(closure(other, ids))))
    assert same(weights(model), weights(other))


@pytest.mark.parametrize("method", ["fast", "mezo"])
def test_autocast_around_everything_does_not_keep_old_weights(model: Any, tiny_model_dir: Path, method: str) -> None:
    (ids,) = batches(1)

    def inside() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return closure(model, ids)()

    found = []
    for around, run in ((False, inside), (True, closure(model, ids))):
        optimizer = ZerothOrder(model, method, lr=1e-3, eps=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            optimizer.estimate(run)
        optimizer.step()
        assert optimizer.probe is not None
        found.append(optimizer.probe.losses)
        optimizer.close()
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("value", "error", "code"),
    [
        (lambda model: lambda: torch.zeros(2), InputError, "closure-loss"),
        (lambda model: lambda: "0.5", InputError, "closure-loss"),
        (lambda model: lambda: closure(model, batches(1)[0])() + torch.rand(()), ModelError, "loss-not-deterministic"),
        (lambda model: lambda: closure(model, batches(1)[0])().backward(), InputError, "closure-backward"),
    ],
)
def test_closures_that_cannot_work_are_explained(model: Any, value: Any, error: Any, code: str) -> None:
    with pytest.raises(error, match=code):
        ZerothOrder(model, "fast").estimate(value(model))


def test_a_loss_in_half_precision_is_warned_of(model: Any) -> None:
    with pytest.warns(UserWarning, match="bfloat16"):
        ZerothOrder(model, "fast").estimate(lambda: closure(model, batches(1)[0])().bfloat16())


def test_losses_that_are_not_finite_move_nothing_and_end_the_training(model: Any) -> None:
    (ids,) = batches(1)
    before = weights(model)
    optimizer = ZerothOrder(model, "fast", lr=1.0, max_skipped=3)
    for _ in range(2):
        assert math.isnan(float(optimizer.estimate(lambda: closure(model, ids)() * math.nan)))
        optimizer.step()
    assert optimizer.skipped == 2
    optimizer.estimate(lambda: closure(model, ids)() * math.inf)
    with pytest.raises(DivergedError, match="3 steps in a row"):
        optimizer.step()
    assert same(before, weights(model))


def test_settings_that_make_no_sense_are_refused(model: Any) -> None:
    for settings, words in (
        ({"eps": 0.0}, "eps"),
        ({"eps": -1e-3}, "eps"),
        ({"epsilon": 1e-3}, "epsilon"),
        ({"lr_schedule": "cosine"}, "lr_scheduler"),
        ({"parameters": "lora"}, "PEFT"),
        ({"eps_schedule": "linear"}, "steps-unknown"),
    ):
        with pytest.raises(InputError, match=words):
            ZerothOrder(model, "fast", **settings)
    with pytest.raises(InputError, match="method-unknown"):
        ZerothOrder(model, "fo-full")
    with pytest.raises(InputError, match="nothing-estimated"):
        ZerothOrder(model, "fast").step()


def test_models_that_cannot_be_trained_are_refused(model: Any) -> None:
    with torch.device("meta"):
        empty = nn.Linear(3, 3)
    with pytest.raises(ModelError, match="parameter-unusable"):
        ZerothOrder(empty, "fast")
    quantised = nn.Linear(3, 3)
    quantised.weight = nn.Parameter(torch.zeros(3, 3).to(torch.float8_e4m3fn))
    with pytest.raises(ModelError, match="quantised"):
        ZerothOrder(quantised, "fast")
    with pytest.raises(ModelError, match="name in the model"):
        ZerothOrder(model, "fast", [nn.Parameter(torch.zeros(2, 2))])
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="nothing-to-train"):
        ZerothOrder(model, "fast")


class Packed(nn.Linear):
    """A linear layer whose weight is kept in 8 bits, frozen, as quantisers leave it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False)
        self.scale = float(layer.weight.detach().abs().max()) / 127
        self.weight = nn.Parameter((layer.weight.data / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


@pytest.mark.parametrize("method", ["fast", "mezo"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT
def test_an_adapter_is_trained_on_a_quantised_base(model: Any, method: str) -> None:
    peft = pytest.importorskip("peft")
    for layer in model.model.layers:
        layer.mlp.up_proj = Packed(layer.mlp.up_proj)
    with pytest.raises(ModelError, match="quantised"):
        ZerothOrder(model, method)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["up_proj", "q_proj"], r=2))
    before = weights(adapted)
    optimizer = run(adapted, batches(2), ZerothOrder(adapted, method, lr=1e-2))
    optimizer.close()
    moved = {name for name, each in weights(adapted).items() if not torch.equal(each, before[name])}
    assert moved == {name for name in before if "lora_" in name}


@pytest.mark.parametrize("method", ["fast", "mezo"])
def test_a_compiled_model_takes_the_steps_of_the_model(model: Any, tiny_model_dir: Path, method: str) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    one = run(model, batches(2), ZerothOrder(model, method, lr=1e-3))
    compiled: Any = torch.compile(other, backend="eager")
    two = ZerothOrder(compiled, method, lr=1e-3)
    for ids in batches(2):
        two.estimate(lambda ids=ids: compiled(input_ids=ids, labels=ids, use_cache=False).loss)
        two.step()
    assert one.probe is not None
    assert two.probe is not None
    assert two.probe.coefficients == pytest.approx(one.probe.coefficients, rel=1e-2)
    assert two.state_dict()["zeroth_order"]["identity"] == one.state_dict()["zeroth_order"]["identity"]


def test_closing_leaves_a_bare_model(model: Any) -> None:
    hooks = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
    optimizer = run(model, batches(2))
    optimizer.close()
    optimizer.close()
    assert sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()) == hooks
    assert not model._state_dict_pre_hooks
