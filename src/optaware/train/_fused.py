"""Whether the steps of a run can be fused on its GPU, and the check at the start that they are the same steps."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optaware.errors import InputError, Problem
from optaware.records import ZerothOrderConfig
from optaware.train._digest import weights_digest
from optaware.train._seeds import derive_seed
from optaware.train.distributed import Ranks
from optaware.train.noise import Distribution, noise_key, reference_noise, table
from optaware.train.objectives import TaskObjective
from optaware.train.schedules import settings_at
from optaware.train.zeroth import probe_seeds

if TYPE_CHECKING:
    from optaware.models import EncodedExample
    from optaware.train.gpu import FusedLearner

__all__ = ["fused_learner", "obstacle"]

_log = logging.getLogger("optaware")

_CHECKED_ROWS, _SCALE = 8, 4.0
"""The check's rows, and its perturbation scale in those of the run: more than rounding, less than havoc."""

_BLOCK = 1 << 19
"""Numbers that are perturbed at a time."""

_BOUNDS = {torch.float64: 1e-5, torch.float32: 2e-3, torch.float16: 0.02, torch.bfloat16: 0.08}
"""How far a loss L of the fused step may be from that of the other one, over 1 + abs(L)."""


def obstacle(method: ZerothOrderConfig, objective: object, device: torch.device) -> str | None:
    """Why the step of a method cannot be fused; None: nothing in the method or on this machine is in the way.

    Args:
        method: The method's config.
        objective: The loss; None: it does not matter (no loss is going to be evaluated).
        device: Where the model is.
    """
    values: dict[str, tuple[Any, ...]] = {
        "estimator": ("two-point",),
        "update": ("sgd",),
        "mask": ("none",),
        "layers": (None,),
        "include": ((),),
        "noise": ("regenerate",),
        "apply": ("forward",),
        "normalise": (False,),
        "parameters": ("all",),
        "batching": ("auto", "on", "pairs"),
        "precision": ("auto", "residual", "stochastic", "none"),
    }
    for field, known in values.items():
        if getattr(method, field) not in known:
            return f"it has no {field}: {getattr(method, field)}"
    if objective is not None and not isinstance(objective, TaskObjective):
        return "it evaluates losses of answer options only"
    if Ranks().size > 1:
        return "several processes share the queries of a step"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"the model is on {device.type}, not on a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def fused_learner(
    model: Any,
    loss: object,
    method: object,
    seed: int,
    steps: int,
    rows: Sequence[EncodedExample] = (),
) -> tuple[FusedLearner | None, str]:
    """The fused learner of a method, or None and why not.

    With rows it is checked on some of them: the losses of a probe must be those of the model itself, with the
    perturbation of the definition written to its weights, within what the dtype rounds; they must be the same bits when
    they are evaluated again; and every bit of the weights must stay. Meanwhile the host holds a copy of the weights,
    from which they are put back; the device holds nothing more.

    Args:
        model: The model to train, as `prepare_model` returned it.
        loss: The run's loss; None where none is going to be evaluated.
        method: The method's config; the other kinds have no fused step.
        seed: The run's seed.
        steps: Updates that the run asks for.
        rows: The training rows.

    Raises:
        InputError: `fused: on`, and something is in the way.
    """
    if not isinstance(method, ZerothOrderConfig):
        return None, "its method is not forward-only"
    if method.fused == "off":
        return None, "it is switched off (fused: off)"
    device = next(model.parameters()).device
    why = obstacle(method, loss, device)
    learner = None
    if why is None:
        learner, why = _made(model, loss, method, seed, steps, rows)
    if learner is None and method.fused == "on":
        advice = "Choose fused: auto, which runs the step without fused kernels where they cannot be used."
        raise InputError(Problem("fused-unsupported", "fused: on", f"the step cannot be fused here: {why}", advice))
    return learner, why or ""


def _made(
    model: Any, loss: Any, method: ZerothOrderConfig, seed: int, steps: int, rows: Sequence[EncodedExample]
) -> tuple[FusedLearner | None, str | None]:
    from optaware.train.gpu import FusedLearner, NotSupported

    rounding = "residual" if method.precision == "auto" else method.precision
    dtype = next(model.parameters()).dtype
    if rounding == "stochastic" and dtype == torch.float16:
        return None, "stochastic rounding is made for bf16"
    try:
        learner = FusedLearner(
            model,
            "options" if loss is None else loss.objective,
            direction=method.direction,
            settings=_settings(method, steps),
            queries=method.queries,
            rank=method.rank,
            refresh_every=method.refresh_every,
            weight_decay=method.weight_decay,
            clip=method.clip,
            rounding=rounding,
            seed=seed,
            host_residuals=method.host_residuals,
        )
    except NotSupported as error:
        return None, str(error)
    longest = max((len(row.prompt_ids) + sum(map(len, row.option_ids)) for row in rows), default=0)
    if learner.window is not None and longest > learner.window:
        learner.close()
        return None, f"rows of {longest} tokens are longer than the model's attention window of {learner.window}"
    if not rows:
        return learner, None
    try:
        fault = _fault(learner, model, loss, method, seed, rows[:_CHECKED_ROWS])
    except Exception as error:  # a compiler or driver says in its own way that it cannot; the other engine can
        fault = f"its check failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    if fault is not None:
        learner.close()
        return None, fault
    return learner, None


def _settings(method: ZerothOrderConfig, steps: int) -> Callable[[int], Any]:
    return lambda step: settings_at(method, step, steps)


@torch.no_grad()
def _fault(
    learner: FusedLearner, model: Any, loss: Any, method: ZerothOrderConfig, seed: int, rows: Sequence[EncodedExample]
) -> str | None:
    """In which way the fused step is not the step it should be."""
    before = weights_digest(learner.weights())
    model.eval()
    eps = _SCALE * method.eps
    found, again = (learner.probe_losses(1, [rows], eps)[:2] for _ in range(2))
    learner.forget()
    if weights_digest(learner.weights()) != before:
        return "its check failed: a probe changed the weights"
    if found != again:
        return f"its check failed: the same probe gave the losses {found}, then {again}"
    probe = probe_seeds(seed, 1, 1)[0]
    wanted = _written(model, lambda: float(loss(rows)), method, seed, probe, eps)
    learner.repeat(1, (math.nan,) * learner.queries)  # moves nothing, but must compile and run
    learner.settle()
    _log.debug("check of the fused step: losses %s, of the model itself %s", found, wanted)
    bound = _BOUNDS[next(model.parameters()).dtype]
    if any(not abs(a - b) <= bound * (1 + abs(b)) for a, b in zip(found, wanted, strict=True)):
        return f"its check failed: its losses are {found}, those of the model itself {wanted}"
    return None


def _written(
    model: Any, loss: Callable[[], float], method: ZerothOrderConfig, seed: int, probe: int, eps: float
) -> list[float]:
    """Losses at both signs of a perturbation that is written to the weights, which are put back from a copy."""
    weights = {name: each.data for name, each in model.named_parameters()}
    copies = {name: each.to("cpu", copy=True) for name, each in weights.items()}
    found = []
    for sign in (1.0, -1.0):
        try:
            for name, weight in weights.items():
                _perturb(name, weight, method, seed, probe, sign * eps)
            found.append(loss())
        finally:
            for name, weight in weights.items():
                weight.copy_(copies[name])
    return found


def _perturb(name: str, weight: Tensor, method: ZerothOrderConfig, seed: int, probe: int, scale: float) -> None:
    """`W ← W + scale·z` by the definition of z, some rows at a time; for low-rank, z of the first period of V."""
    rows, columns = table(weight.shape)
    flat, key = weight.view(rows, columns), noise_key(probe, name)
    each = max(1, _BLOCK // columns)
    numbers = torch.arange(rows, device=weight.device)
    blocks = [numbers[first : first + each] for first in range(0, rows, each)]
    low = method.direction == "low-rank"
    if low and weight.ndim > 1:
        rank, own = method.rank, noise_key(derive_seed(seed, "right factors", 0), name)
        left = reference_noise(key, (rank, rows), "gaussian", device=weight.device)
        right = reference_noise(own, (rank, columns), "gaussian", device=weight.device) * rank**-0.5
        right = right.to(weight.dtype).float()
    for some in blocks:
        if low and weight.ndim > 1:
            z = left[:, some].t() @ right
        else:
            kind: Distribution = "rademacher" if method.direction == "rademacher" else "gaussian"
            z = reference_noise(key, weight.shape, kind, rows=some)
        flat[some] = (flat[some].to(z.dtype) + scale * z).to(weight.dtype)
