"""The gradient from tensors of fixed shape is the model's own, and a captured step is made only where it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from optaware.models import EncodedExample, OptionScorer
from optaware.records import FOLoRA
from optaware.train._captures import Captures
from optaware.train.firstorder import add_adapter
from optaware.train.firstorder._gradient import Gradient
from optaware.train.firstorder._static import StaticGradient, obstacle
from optaware.train.objectives import TaskObjective

CPU = torch.device("cpu")


class Special:
    pad_token_id, eos_token_id = 0, 0


def rows(sizes: Sequence[int], options: int = 3) -> list[EncodedExample]:
    """Prompts of these lengths; options of one to three tokens, the last row with one option fewer."""
    tails = ((5, 7, 8), (6,), (9, 10))[:options]
    return [
        EncodedExample(
            f"{at}", tuple(range(11, 11 + size)), tails[: len(tails) - (at == len(sizes) - 1)], at % (options - 1)
        )
        for at, size in enumerate(sizes)
    ]


def parts(model: Any, objective: str, *, frozen: str = "") -> tuple[TaskObjective, dict[str, Any], dict[str, Any]]:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or frozen not in name)
    scorer = OptionScorer(model, Special())
    assert scorer.batching == "tree"
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    copies = {
        name: each if each.dtype == torch.float32 else each.data.float().requires_grad_()
        for name, each in trained.items()
    }
    return TaskObjective(scorer, objective), trained, copies


def on_cpu(gradient: Gradient) -> Gradient:
    """As on a GPU, but for the graphs: the same tensors of fixed shape, worked on at once."""
    assert isinstance(gradient.loss, TaskObjective)
    static = StaticGradient(gradient.loss, gradient.parameters, gradient.copies, Captures(CPU, graphs=False))
    gradient.static, gradient.engine = static, "captured"
    return gradient


def gradients(copies: dict[str, Any]) -> dict[str, Any]:
    return {name: None if each.grad is None else each.grad.clone() for name, each in copies.items()}


@pytest.mark.parametrize("objective", ["options", "language-model"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_the_gradient_is_that_of_the_model_as_it_is_called(
    kit: Any, objective: str, dtype: torch.dtype, near: float
) -> None:
    loss, trained, copies = parts(kit.llama(dtype), objective)
    gradient = Gradient(loss.scorer.model, loss, trained, copies, seed=0)
    static = StaticGradient(loss, trained, copies, Captures(CPU, graphs=False))
    for batch in ([rows([3, 9, 4])], [rows([3]), rows([12, 2, 5])], [rows([3, 9, 4])]):
        wanted_loss = gradient(1, batch)
        wanted = gradients(copies)
        assert static(batch) == pytest.approx(wanted_loss, rel=near)
        for name, found in gradients(copies).items():
            torch.testing.assert_close(found, wanted[name], rtol=near, atol=near * float(wanted[name].norm()))


def test_a_parameter_that_the_loss_does_not_feel_has_no_gradient(kit: Any) -> None:
    model = kit.llama()
    model.aside = torch.nn.Parameter(torch.ones(2))
    loss, trained, copies = parts(model, "options", frozen="embed")
    static = StaticGradient(loss, trained, copies, Captures(CPU, graphs=False))
    static([rows([3, 4])])
    assert {name for name, each in copies.items() if each.grad is None} == {"aside"}


def test_after_the_first_batch_only_one_way_is_taken(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, trained, copies = parts(kit.llama(), "options")
    gradient = on_cpu(Gradient(loss.scorer.model, loss, trained, copies, seed=0))
    batch = [rows([3, 9, 4])]
    first = gradient(1, batch)
    monkeypatch.setattr(gradient, "_called", None)
    assert gradient(2, batch) == first
    assert gradient.engine == "captured"


@pytest.mark.parametrize("what", ["loss", "gradient", "raises", "memory"])
def test_where_the_two_disagree_the_model_is_called(
    kit: Any, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loss, trained, copies = parts(kit.llama(), "options")
    batch = [rows([3, 9, 4])]
    called = Gradient(loss.scorer.model, loss, trained, copies, seed=0)
    wanted_loss, wanted = called(1, batch), gradients(copies)
    layout_loss = loss.scorer.layout_loss

    def wrong(layout: Any, labels: Any) -> Any:
        if what in ("raises", "memory"):
            raise RuntimeError("no kernel") if what == "raises" else torch.OutOfMemoryError("CUDA out of memory")
        right = layout_loss(layout, labels)
        return right + 10 if what == "loss" else 2 * right - right.detach()

    monkeypatch.setattr(loss.scorer, "layout_loss", wrong)
    gradient = on_cpu(Gradient(loss.scorer.model, loss, trained, copies, seed=0))
    with caplog.at_level(logging.WARNING):
        assert gradient(1, batch) == wanted_loss
    assert "steps are not captured" in caplog.text
    assert gradient.engine.startswith("not captured: ")
    assert ("no room in memory" in gradient.engine) == (what == "memory")
    for name, found in gradients(copies).items():
        assert torch.equal(found, wanted[name])
    assert gradient(2, batch) == wanted_loss


def test_a_batch_without_a_finite_gradient_shows_nothing_of_the_two(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, trained, copies = parts(kit.llama(), "options")
    gradient = on_cpu(Gradient(loss.scorer.model, loss, trained, copies, seed=0))
    batch = [rows([3, 9, 4])]
    with monkeypatch.context() as broken:
        broken.setattr(gradient, "loss", lambda part: loss(part) * torch.nan)
        assert gradient(1, batch) != gradient(1, batch)
    gradient(2, batch)
    monkeypatch.setattr(gradient, "_called", None)
    assert gradient(3, batch) > 0


@pytest.mark.parametrize(
    ("dtype", "engine"), [(torch.bfloat16, "captured"), (torch.float32, "not captured: its check")]
)
def test_how_far_the_two_may_be_apart_is_a_matter_of_what_the_model_computes_in(
    kit: Any, dtype: torch.dtype, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters are in fp32 whatever the model is in; here a gradient 5 % too large stands for rounding."""
    model = add_adapter(kit.llama(dtype), FOLoRA(rank=2), 0)
    scorer = OptionScorer(model, Special())
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert {each.dtype for each in trained.values()} == {torch.float32}
    layout_loss = scorer.layout_loss

    def larger(layout: Any, labels: Any) -> Any:
        right = layout_loss(layout, labels)
        return 1.05 * right - 0.05 * right.detach()

    monkeypatch.setattr(scorer, "layout_loss", larger)
    gradient = on_cpu(Gradient(model, TaskObjective(scorer, "options"), trained, trained, seed=0))
    gradient(1, [rows([3, 9, 4])])
    assert gradient.engine.startswith(engine)


def test_dropout_is_not_captured(kit: Any) -> None:
    model = kit.llama(attention_dropout=0.5)
    loss, trained, copies = parts(model, "options")
    gradient = on_cpu(Gradient(model, loss, trained, copies, seed=0))
    model.train()
    gradient(1, [rows([3, 4])])
    assert gradient.engine == "not captured: it draws random numbers (dropout)"


def test_after_forgetting_everything_is_made_anew(kit: Any) -> None:
    loss, trained, copies = parts(kit.llama(), "options")
    gradient = on_cpu(Gradient(loss.scorer.model, loss, trained, copies, seed=0))
    batch = [rows([3, 9, 4])]
    before = [(gradient(step, batch), gradients(copies)) for step in (1, 2)][-1]
    gradient.forget()
    assert all(each.grad is None for each in copies.values())
    after = gradient(3, batch), gradients(copies)
    assert after[0] == before[0]
    assert all(torch.equal(after[1][name], before[1][name]) for name in copies)


def test_rows_beyond_the_window_are_left_to_the_model(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, trained, copies = parts(kit.llama(), "options")
    gradient = on_cpu(Gradient(loss.scorer.model, loss, trained, copies, seed=0))
    monkeypatch.setattr(loss.scorer, "_window", 8)
    monkeypatch.setattr(gradient, "_both", None)
    assert gradient(1, [rows([9, 3])]) > 0


def test_what_is_in_the_way_is_said(kit: Any) -> None:
    model = kit.llama()
    scorer = OptionScorer(model, Special())
    assert obstacle(model, TaskObjective(scorer, "options")) == "the model is on cpu, not on a CUDA device"
    gradient = Gradient(model, TaskObjective(scorer, "options"), {}, {}, seed=0, call_because="of a test")
    assert gradient.engine == "not captured: of a test"
