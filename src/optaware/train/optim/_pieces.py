"""Direction, estimator and updates for a model and its parameter groups."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, get_args

from torch import Tensor, nn

from optaware._io import canonical_json
from optaware.errors import InputError, ModelError, Problem, ProblemList
from optaware.records import Method, ZerothOrderConfig, parse_record
from optaware.train._journal_header import FREE
from optaware.train._methods import make_learner
from optaware.train.directions import Direction
from optaware.train.zeroth import ZerothOrderLearner

__all__ = ["Directions", "check_model", "config_of", "identity_now", "identity_of", "pieces"]

_ELSEWHERE = {
    "lr_schedule": ("constant", "torch.optim.lr_scheduler (or the Trainer's lr_scheduler_type)"),
    "warmup": (0, "torch.optim.lr_scheduler (or the Trainer's warmup_steps)"),
    "objective": ("task", "the closure (or compute_loss): what it returns is minimised"),
    "parameters": ("all", "the model: wrap it with PEFT before; what has requires_grad is trained"),
}


def _known() -> dict[str, type[ZerothOrderConfig]]:
    configs = [each for each in get_args(get_args(Method)[0]) if issubclass(each, ZerothOrderConfig)]
    return {each.model_fields["name"].default: each for each in configs}


def config_of(method: ZerothOrderConfig | str, changes: dict[str, Any]) -> ZerothOrderConfig:
    """A method config from a config or a method's name, with some fields changed.

    Raises:
        InputError: No such method, fields that it has not, values that make no sense, or settings that belong to the
            loop around the optimizer.
    """
    if isinstance(method, ZerothOrderConfig):
        config = parse_record(type(method), method.model_dump() | changes, "method") if changes else method
    elif method in (known := _known()):
        config = parse_record(known[method], changes, f"method {method}")
    else:
        raise InputError(
            Problem(
                "method-unknown",
                repr(method),
                "no forward-only method has this name",
                f"Choose one of: {', '.join(known)}.",
            )
        )
    problems = ProblemList("method")
    for name, (plain, where) in _ELSEWHERE.items():
        if (value := getattr(config, name)) != plain:
            problems.add(
                "method-elsewhere", f"{name}: {value!r}", "an optimizer has no say in this", f"Set it at {where}."
            )
    problems.raise_if_any()
    return config


def check_model(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    """Refuse parameters that cannot be moved.

    Raises:
        ModelError: Nothing is trainable, or something trainable has no data or is quantised.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if not parameters:
        raise ModelError(
            Problem(
                "nothing-to-train",
                f"{type(model).__name__} with {len(names)} parameters, none of which has requires_grad",
                "there is nothing to move",
                "Call requires_grad_(True) on what is to be trained; for a quantised model, add a LoRA adapter.",
            )
        )
    problems = []
    for parameter in parameters:
        name = names.get(id(parameter), "a parameter that is not in the model")
        if parameter.device.type == "meta":
            why, advice = (
                "it is on the meta device and has no data",
                "Load the weights (to_empty, load_state_dict) first.",
            )
        elif not parameter.is_floating_point() or parameter.element_size() < 2:
            why, advice = f"it is quantised ({parameter.dtype})", "Freeze it and train a LoRA adapter on top."
        elif id(parameter) not in names:
            why, advice = "a perturbation is drawn by a parameter's name in the model", "Give parameters of this model."
        else:
            continue
        problems.append(Problem("parameter-unusable", name, why, advice))
    if problems:
        raise ModelError(*problems[:20])


@contextmanager
def _only(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let only `parameters` have requires_grad, which is how a direction is told what to move."""
    chosen = {id(parameter) for parameter in parameters}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in chosen]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def pieces(
    model: nn.Module, config: Any, groups: Sequence[Sequence[nn.Parameter]], seed: int, steps: int | None = None
) -> list[ZerothOrderLearner]:
    """One composition for each group of parameters. z of a parameter is the same, whatever group it is in."""
    made = []
    for parameters in groups:
        with _only(model, parameters):
            learner = make_learner(model, _no_loss, config, seed, steps or 1)
        if not isinstance(learner, ZerothOrderLearner):
            raise InputError(
                Problem(
                    "method-not-composed",
                    f"{config.direction} perturbations applied {config.apply}",
                    "this form of the method is one closed loop",
                    'Use direction: "low-rank", or apply: "forward" where the direction has it.',
                )
            )
        made.append(learner)
    return made


def _no_loss(batch: Sequence[Any]) -> Tensor:
    raise AssertionError("the optimizer's losses come from closures")


class Directions:
    """The directions of several groups as one, as far as probing goes."""

    def __init__(self, parts: Sequence[Direction]) -> None:
        self.parts = parts
        self.supports_batch = all(getattr(part, "supports_batch", False) for part in parts)

    @contextmanager
    def at(self, seed: int, scale: float) -> Iterator[None]:
        """Inside, the model computes with `θ + scale·z(seed)`."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.at(seed, scale))
            yield

    @contextmanager
    def batched(self, points: Sequence[tuple[int, float]]) -> Iterator[None]:
        """Inside, the model computes each copy of a batch at a point of its own."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.batched(points))
            yield


def identity_of(config: ZerothOrderConfig, names: Sequence[Sequence[str]]) -> str:
    """What must be the same for a saved state to be taken up: the method but for what is free, and the parameters."""
    return _identity(config, config.model_dump(mode="json"), names)


def identity_now(saved: str, config: ZerothOrderConfig) -> str:
    """A saved identity as this release would write it: earlier ones named all fields, later ones may have more."""
    held = json.loads(saved)
    return _identity(config, held["method"], held["parameters"])


def _identity(config: ZerothOrderConfig, fields: dict[str, Any], names: Any) -> str:
    plain = type(config)().model_dump(mode="json")
    told = {key: value for key, value in fields.items() if key not in FREE and plain.get(key) != value}
    return canonical_json({"method": {**told, "name": fields.get("name")}, "parameters": names})
