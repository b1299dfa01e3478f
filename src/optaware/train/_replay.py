"""A run's weights from the base model and its journal, without data and without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optaware.errors import InputError
from optaware.train._digest import parameters_digest, weights_digest
from optaware.train._fused import fused_learner
from optaware.train._journal import JournalHeader, foreign, read_records
from optaware.train._journal_header import OPTIMIZER, unreadable
from optaware.train._journal_records import Mark, Record, Step
from optaware.train._methods import make_estimator, make_learner, prepare_model
from optaware.train._platform import FUSED, platform_of, threads_of
from optaware.train.zeroth import probe_seeds

__all__ = ["JournalProbe", "ReplayOutcome", "journal_probes", "replay", "replay_bound"]


@dataclass(frozen=True)
class JournalProbe:
    """One probe of a run: where it went and what followed."""

    step: int
    seed: int
    coefficient: float
    """Projected gradient g; NaN when it was skipped."""
    lr: float
    """Learning rate; of an optimizer, that of its first parameter group."""
    eps: float


@dataclass(frozen=True)
class ReplayOutcome:
    """What a replay did.

    Attributes:
        model: The model with the run's weights (a PEFT model where the run trained an adapter).
        step: Updates made again.
        exact: Whether the weights are the run's to the bit: the whole journal was written on this processor and torch
            version.
        bound: How far any weight may be from the run's, as a share of the largest weight of its tensor; 0 when
            exact.
        identical: Whether the trained weights have the digest that the optimizer left when it was closed; None: it left
            none for this step.
    """

    model: Any
    step: int
    exact: bool
    bound: float
    identical: bool | None = None


def journal_probes(path: Path) -> Iterator[JournalProbe]:
    """(seed, coefficient, lr, eps) of every probe of a journal, in order.

    Raises:
        IntegrityError: The file is not a journal of a known version.
    """
    header, records = read_records(path)
    estimator = make_estimator(header.config)
    steps = (record for record in records if isinstance(record, Step))
    for step, made in enumerate(steps, start=1):
        now = header.settings(step)
        seeds = probe_seeds(header.seed, step, now.queries)
        probe = estimator.recall(seeds, made.kept, now.eps)
        lr = made.rates[0][0] if made.rates else now.lr
        for seed, coefficient in zip(seeds, probe.coefficients, strict=True):
            yield JournalProbe(step, seed, coefficient, lr, now.eps)


def _no_loss(batch: object) -> Any:
    raise AssertionError("a replay evaluates no loss")


@torch.no_grad()
def replay(path: Path, model: Any, *, base: str | None = None, upto: int | None = None) -> ReplayOutcome:
    """Make the updates of a journal again, on a freshly loaded base model.

    Every operation on the weights is made again in the same order: draws of V, updates, and the rounding into the
    stored weights wherever the training did that (at each evaluation of a run; whenever a loop looked at the model
    between steps of `ZerothOrder`), with as many threads. On the same kind of device, with the same library versions,
    the weights are therefore those of the training to the bit, in every mode and dtype. On another processor of the
    same kind, products and sums may be rounded otherwise: then a weight differs by at most `bound` times the largest of
    its tensor, `bound = 2·steps·queries·u`, u the unit roundoff of what updates are added up in (2⁻²⁴ in fp32, 2⁻¹⁶ for
    bf16 with its residual, the dtype's own without one).

    Args:
        path: The journal: of a run, or of `ZerothOrder` or a trainer with its mixin.
        model: The base model, as `load_model` gives it; it is changed. For an optimizer's journal the model as it was
            before its first step, adapter included; what it trains is then what requires gradients.
        base: SHA-256 of a run's base weights; None: not known, not checked. An optimizer's journal holds a digest,
            which is always compared with the model itself.
        upto: Updates to make; None: all that the journal holds.

    Raises:
        IntegrityError: The journal belongs to other weights, or was drawn on another kind of device.
        InputError: It is of version 1, or has fewer steps than asked for.
    """
    header, records = read_records(path)
    _check(header, path, model, base)
    held = sum(isinstance(record, Step) for record in records)
    upto = held if upto is None else upto
    if not 0 <= upto <= held:
        raise InputError.of(
            "journal-short", f"step {upto}", f"the journal holds {held} steps", "Ask for one of these.", str(path)
        )
    with threads_of(header.platform):
        return _replayed(header, path, model, _first(records, upto), upto)


def _replayed(header: JournalHeader, path: Path, model: Any, records: list[Record], upto: int) -> ReplayOutcome:
    learners: list[Any]
    if header.version == OPTIMIZER:
        learners = _groups(header, path, model)
    else:
        config: Any = header.config
        model = prepare_model(model, config, header.seed)
        learners = [_of_run(header, model)]
    try:
        _make_again(records, learners)
        weights = {name: each for learner in learners for name, each in learner.weights().items()}
        last = records[-1] if records else None
        ended = last.digest if isinstance(last, Mark) else ""
        identical = weights_digest(weights) == ended if ended else None
    finally:
        for learner in learners:
            learner.close()
    weight = next(model.parameters())
    exact = header.platform == platform_of(weight.device, learners[0]) and Mark("moved") not in records
    bound = 0.0 if exact else replay_bound(header, upto, weight.dtype)
    return ReplayOutcome(model, upto, exact, bound, identical)


def _first(records: list[Record], steps: int) -> list[Record]:
    """The records up to the last one before step `steps + 1`."""
    made = 0
    for at, record in enumerate(records):
        made += isinstance(record, Step)
        if made > steps:
            return records[:at]
    return records


def _of_run(header: JournalHeader, model: Any) -> Any:
    config: Any = header.config
    learner: Any = None
    if header.platform.endswith(FUSED):  # made again by the same kernels where they can run
        learner, _ = fused_learner(model, None, config.model_copy(update={"fused": "auto"}), header.seed, header.steps)
    return learner or make_learner(model, _no_loss, config, header.seed, header.steps)


def _groups(header: JournalHeader, path: Path, model: Any) -> list[Any]:
    """The learners of an optimizer's parameter groups."""
    from optaware.train.optim._pieces import pieces

    named = dict(model.named_parameters())
    if sum(count for _, count in header.groups) != len(named):
        raise unreadable(path, f"its parameter groups are not those of a model with {len(named)} parameters")
    numbers = [group for group, count in header.groups for _ in range(count)]
    groups: list[list[Any]] = [[] for _ in range(header.group_count)]
    for name, number in zip(sorted(named), numbers, strict=True):
        named[name].requires_grad_(number >= 0)
        if number >= 0:
            groups[number].append(named[name])
    return list(pieces(model, header.config, groups, header.seed, header.steps))


def _make_again(records: list[Record], learners: list[Any]) -> None:
    step, settled = 0, True
    for record in records:
        if isinstance(record, Step):
            step, settled = step + 1, False
            for number, learner in enumerate(learners):
                learner.repeat(step, record.kept, *record.rates[number : number + 1])
        elif record.kind == "settled":
            settled = True
            for learner in learners:
                learner.settle()
    if not settled:  # settling twice would round once more
        for learner in learners:
            learner.settle()


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
    weight = next(model.parameters())
    if weight.device.type != header.device:
        raise foreign(path, f"its noise was drawn on {header.device}, the model is on {weight.device.type}")
    if header.version == OPTIMIZER:
        base = parameters_digest(model)
    if base is not None and header.base != base:
        what = (
            "" if header.version != OPTIMIZER else f" ({header.dtype or 'another dtype'}, by a digest of all of them)"
        )
        raise foreign(path, f"it starts from weights {header.base[:12]}…{what}, the model given has {base[:12]}…")
