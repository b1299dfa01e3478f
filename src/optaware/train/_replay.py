"""A run's weights from the base model and its journal, without data and without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optaware.errors import InputError
from optaware.train._fused import FUSED, fused_learner
from optaware.train._journal import JournalHeader, foreign, read_journal
from optaware.train._methods import make_estimator, make_learner, prepare_model
from optaware.train._types import Learner
from optaware.train.zeroth import probe_seeds

__all__ = ["JournalProbe", "ReplayOutcome", "journal_probes", "platform_of", "replay", "replay_bound"]


@dataclass(frozen=True)
class JournalProbe:
    """One probe of a run: where it went and what followed."""

    step: int
    seed: int
    coefficient: float
    """Projected gradient g; NaN when it was skipped."""
    lr: float
    eps: float


@dataclass(frozen=True)
class ReplayOutcome:
    """What a replay did.

    Attributes:
        model: The model with the run's weights (a PEFT model where the run trained an adapter).
        step: Updates made again.
        exact: Whether the weights are the run's to the bit: the journal was written on this processor, torch version
            and number of threads.
        bound: How far any weight may be from the run's, as a share of the largest weight of its tensor; 0 when
            exact.
    """

    model: Any
    step: int
    exact: bool
    bound: float


def journal_probes(path: Path) -> Iterator[JournalProbe]:
    """(seed, coefficient, lr, eps) of every probe of a journal, in order.

    Raises:
        IntegrityError: The file is not a journal of a known version.
    """
    header, steps = read_journal(path)
    estimator = make_estimator(header.config)
    for step, kept in enumerate(steps, start=1):
        now = header.settings(step)
        seeds = probe_seeds(header.seed, step, now.queries)
        probe = estimator.recall(seeds, kept, now.eps)
        for seed, coefficient in zip(seeds, probe.coefficients, strict=True):
            yield JournalProbe(step, seed, coefficient, now.lr, now.eps)


def platform_of(device: torch.device, learner: Learner | None = None) -> str:
    """What the rounding of a sum or product can depend on: processor, versions, and whether the step is fused."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    fused = FUSED if getattr(learner, "fused", False) else ""
    return f"{device.type} {name}, torch {torch.__version__}{threads}{fused}"


def _no_loss(batch: object) -> Any:
    raise AssertionError("a replay evaluates no loss")


@torch.no_grad()
def replay(path: Path, model: Any, *, base: str | None, upto: int | None = None) -> ReplayOutcome:
    """Make the updates of a journal again, on a freshly loaded base model.

    Every operation on the weights is made again in the same order: draws of V, updates, and the rounding into the
    stored weights at each evaluation. On the same kind of device, with the same library versions and threads, the
    weights are therefore the run's to the bit, in every mode and dtype. On another processor of the same kind, products
    and sums may be rounded otherwise: then a weight differs by at most `bound` times the largest of its tensor,
    `bound = 2·steps·queries·u`, u the unit roundoff of what updates are added up in (2⁻²⁴ in fp32, 2⁻¹⁶ for bf16 with
    its residual, the dtype's own without one).

    Args:
        path: The journal.
        model: The base model, as `load_model` gives it; it is changed.
        base: SHA-256 of its weights; None: not known, not checked.
        upto: Updates to make; None: all that the journal holds.

    Raises:
        IntegrityError: The journal belongs to other weights, or was drawn on another kind of device.
        InputError: It is of version 1, or has fewer steps than asked for.
    """
    header, steps = read_journal(path)
    _check(header, path, model, base)
    upto = len(steps) if upto is None else upto
    if not 0 <= upto <= len(steps):
        raise InputError.of(
            "journal-short", f"step {upto}", f"the journal holds {len(steps)} steps", "Ask for one of these.", str(path)
        )
    config: Any = header.config
    model = prepare_model(model, config, header.seed)
    learner: Any = None
    if header.platform.endswith(FUSED):  # made again by the same kernels where they can run
        learner, _ = fused_learner(model, None, config.model_copy(update={"fused": "auto"}), header.seed, header.steps)
    learner = learner or make_learner(model, _no_loss, config, header.seed, header.steps)
    try:
        for step, kept in enumerate(steps[:upto], start=1):
            learner.repeat(step, kept)
            if step % header.settle_every == 0:
                learner.settle()
        if upto % header.settle_every:  # settling twice would round once more
            learner.settle()
    finally:
        learner.close()
    weight = next(model.parameters())
    exact = header.platform == platform_of(weight.device, learner)
    return ReplayOutcome(model, upto, exact, 0.0 if exact else replay_bound(header, upto, weight.dtype))


def replay_bound(header: JournalHeader, steps: int, dtype: torch.dtype) -> float:
    """Largest difference to the run's weights on another processor of the same kind; see `replay`."""
    config = header.config
    rounding = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-21, torch.bfloat16: 2.0**-16}
    bare = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    unit = bare.get(dtype, rounding[dtype]) if config.precision == "none" else rounding[dtype]
    return 2.0 * steps * config.queries * unit


def _check(header: JournalHeader, path: Path, model: Any, base: str | None) -> None:
    if header.version == 1:
        raise InputError.of(
            "journal-old",
            f"{path.name} of version 1",
            "it does not say along which directions the run went",
            "Run the spec again with this release; its journal can be replayed.",
            str(path),
        )
    if base is not None and header.base != base:
        raise foreign(path, f"it starts from weights {header.base[:12]}…, the model given has {base[:12]}…")
    device = next(model.parameters()).device.type
    if device != header.device:
        raise foreign(path, f"its noise was drawn on {header.device}, the model is on {device}")
