"""Forward-only training as a torch optimizer."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from optaware.errors import DivergedError, InputError, Problem
from optaware.records import ZerothOrderConfig
from optaware.train._asked import Point, answered, asked
from optaware.train._digest import weights_digest
from optaware.train._journal_header import JournalHeader
from optaware.train._journal_records import Rates
from optaware.train._methods import MOST_COPIES
from optaware.train._types import Probe
from optaware.train.distributed import Ranks, shared_losses
from optaware.train.estimators._points import losses_at
from optaware.train.optim._closure import Closure, check_repeats, still
from optaware.train.optim._pieces import Directions, check_model, config_of, identity_now, identity_of, pieces
from optaware.train.optim._record import RecordOfSteps, check_journal, header_of
from optaware.train.schedules import Settings, settings_at
from optaware.train.zeroth import probe_seeds

__all__ = ["ZerothOrder"]

_KEY = "zeroth_order"
VERSION = 1


class ZerothOrder(torch.optim.Optimizer):
    """Trains `model` from losses alone: `estimate(closure)` probes the loss, `step()` moves the weights.

        optimizer = ZerothOrder(model, "fast", lr=2e-5, seed=0)
        for batch in batches:
            loss = optimizer.estimate(lambda: model(**batch).loss)
            optimizer.step()

    `estimate` calls the closure once per point that the method's estimator asks for (twice for one two-point query),
    under `no_grad`, with everything inside the model in evaluation mode. Called several times before `step`, it takes
    the calls as parts of one batch: all parts are probed at the same points, and the coefficients come from the mean
    losses, `L(θ') = Σ_i w_i·L_i(θ')` with `w_i = 1/n`, or the given `weight`s. That is the mathematics of the whole
    batch.

    What was learnt may wait outside of the stored weights for a while (low-rank directions merge every few steps). The
    next forward pass of `model` outside of `estimate`, and its `state_dict()`, bring it in first, so evaluating and
    saving need no thought; `settle()` does so at once. Merging rounds, so runs are equal to the bit when they
    settle at the same steps.

    Learning rate and weight decay live in `param_groups`, where schedulers find them. Weight decay acts on matrices
    only, as in the code of MeZO. No gradient is ever made: `zero_grad` does nothing.

    A step whose losses are not finite moves nothing and is counted in `skipped`.

    Args:
        model: What the closures compute with. Its parameters with `requires_grad` are trained.
        method: A method config (`Fast(...)`, `MeZO(...)`) or its name ("fast", "mezo", "lozo", "fzoo", ...).
        params: Parameters or parameter groups as any torch optimizer takes them, with `lr` and `weight_decay` by group;
            None: all that is trainable, as one group.
        seed: What all draws follow from; with it and the losses, every step can be made again.
        steps: Steps that the training is going to take; needed by methods whose `eps` or queries follow a schedule.
        share: What several processes share: `"data"` (each has a batch of its own; losses are averaged over all) or
            `"queries"` (all have the same batch; each evaluates a share of the points). Without a process group of
            `torch.distributed` there is one process and it makes no difference.
        max_skipped: Steps without a finite loss in a row after which `step` raises.
        journal: A file that keeps four bytes a probe, from which `replay` rebuilds the weights; None: none is kept. A
            file of this name that is not gone on with is set aside under another name.
        resume: Make the steps that the journal holds again, as the loop comes to them, instead of estimating them: the
            same loop, started again with the base model, goes on where the journal ends, to the same bits. `estimate`
            then calls no closure and returns NaN. Where the loop does something else than it did (another rate, the
            model looked at between other steps), the rest of the journal is forgotten and steps are estimated.
        **changes: Fields of the method, as in `lr=1e-5, queries=4`.

    Raises:
        InputError: A method or setting that cannot be used; processes that started with different things; at the first
            step, a journal to resume from that was written on another platform.
        IntegrityError: At the first step: a journal to resume from that belongs to something else.
        ModelError: Nothing to train, parameters without data, quantised parameters, modules that a direction cannot
            perturb.
    """

    def __init__(
        self,
        model: nn.Module,
        method: ZerothOrderConfig | str = "fast",
        params: Iterable[Any] | None = None,
        *,
        seed: int = 0,
        steps: int | None = None,
        share: Literal["data", "queries"] = "data",
        max_skipped: int = 50,
        journal: Path | str | None = None,
        resume: bool = False,
        **changes: Any,
    ) -> None:
        self.config = config_of(method, changes)
        self._needs_steps(steps)
        check_journal(self.config, journal, resume=resume)
        if params is None:
            params = [parameter for parameter in model.parameters() if parameter.requires_grad]
            check_model(model, params)
        super().__init__(params, {"lr": self.config.lr, "weight_decay": self.config.weight_decay})
        self.model, self.seed, self.steps, self.share, self.max_skipped = model, seed, steps, share, max_skipped
        self._bare: nn.Module = getattr(
            model, "_orig_mod", model
        )  # what torch.compile wraps, with the names as they were
        self.ranks = Ranks()
        self.steps_done = 0
        self.forwards = 0
        """Forward passes of a whole batch so far."""
        self.skipped = 0
        """Steps without a finite loss so far."""
        self.repeated = 0
        """Steps that were made again from the journal, without evaluating a loss."""
        self.probe: Probe | None = None
        """What the last step went by: seeds, coefficients (projected gradients) and losses."""
        self._skipped_in_a_row = 0
        self._parts: list[tuple[float | None, list[float]]] = []
        self._points: list[Point] = []
        self._prepared = self._busy = self._loose = False
        self._build()
        names = {id(parameter): name for name, parameter in self._bare.named_parameters()}
        self._names = [[names[id(each)] for each in group["params"]] for group in self.param_groups]
        self._kept: tuple[float, ...] | None = None
        self._record = None
        if journal is not None:
            self._record = RecordOfSteps(
                Path(journal), self._bare, self._header, resume=resume, writes=self.ranks.rank == 0
            )
        module: Any = model
        self._hooks = [
            module.register_forward_pre_hook(lambda *_: self._settle_before()),
            module.register_state_dict_pre_hook(lambda *_: self._settle_before()),
            module.register_load_state_dict_post_hook(lambda *_: self._weights_loaded()),
        ]

    def _needs_steps(self, steps: int | None) -> None:
        scheduled = [name for name in ("eps_schedule", "query_schedule") if getattr(self.config, name) != "constant"]
        if scheduled and steps is None:
            raise InputError(
                Problem(
                    "steps-unknown",
                    ", ".join(f"{name}: {getattr(self.config, name)!r}" for name in scheduled),
                    "a schedule runs from the first step to the last, and the last is not known",
                    "Give `steps`, the number of steps that the training takes.",
                )
            )

    def _header(self) -> JournalHeader:
        return header_of(self._bare, self.config, self._names, self.seed, self.steps)

    def _build(self) -> None:
        for group in self.param_groups:
            check_model(self.model, group["params"])
        learners = pieces(self._bare, self.config, [group["params"] for group in self.param_groups], self.seed)
        self._directions = [learner.direction for learner in learners]
        self._updates = [learner.update for learner in learners]
        self._estimator = learners[0].estimator
        self._direction: Any = self._directions[0] if len(learners) == 1 else Directions(self._directions)
        self._prepared = False

    # ---- a step

    def estimate(self, closure: Callable[[], Any], *, weight: float | None = None) -> Tensor:
        """Probe the loss of a batch, or of the next part of a batch.

        Args:
            closure: Returns the mean loss of the (part of the) batch, for the model as it then computes. It must give
                the same value when called again: draw the batch outside of it. A `BatchClosure` lets several points
                go through the model in one pass, as many as the method's `batching` allows.
            weight: Weight of the part in the loss of the batch; None: all parts weigh the same. Give it for all
                parts of a step or for none.

        Returns:
            The mean of the losses at the probed points, fp32, without gradient.

        Raises:
            ModelError: At the first call: the closure gives two values for the same weights.
            InputError: The closure calls `backward`, or returns something else than one number.
        """
        loss = Closure(closure, MOST_COPIES[self.config.batching])
        if self._parts and (self._parts[0][0] is None) != (weight is None):
            raise InputError(
                Problem(
                    "weight-mixed",
                    f"weight={weight}",
                    "other parts of this step were given otherwise",
                    "Weigh all parts or none.",
                )
            )
        if not self._parts and self._record is not None:
            self._kept = self._record.next_step(self._rates())
        if self._kept is not None:
            self._parts.append((weight, []))
            return torch.tensor(math.nan)
        self._busy = True
        try:
            with still(self.model), _uncompiled():
                if not self._prepared:
                    self._prepare(loss)
                if not self._parts:
                    self._begin()
                losses = self._evaluate(loss)
        finally:
            self._busy = False
        self._parts.append((weight, losses))
        finite = [value for value in losses if math.isfinite(value)]
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        return torch.tensor(mean, dtype=torch.float32, device=loss.device)

    def _prepare(self, loss: Closure) -> None:
        """Look at a forward pass, check that the closure repeats itself and that all processes hold the same."""
        found: list[float] = []
        for direction in self._directions:
            direction.prepare(lambda: found.append(loss()))
        while len(found) < 2:
            found.append(loss())
        check_repeats(found[-2], found[-1])
        identity = {"method": identity_of(self.config, self._names), "seed": str(self.seed), "share": self.share}
        if self.ranks.size > 1:
            self.ranks.check_same(
                {**identity, "step": str(self.steps_done), "weights": weights_digest(self._trained())}
            )
        self._prepared = True

    @property
    def repeats(self) -> bool:
        """Whether the step that is being estimated is made again from the journal."""
        return self._kept is not None

    def _rates(self) -> Rates:
        return tuple((float(group["lr"]), float(group["weight_decay"])) for group in self.param_groups)

    def _now(self) -> Settings:
        return settings_at(self.config, self.steps_done + 1, self.steps or 1)

    def _begin(self) -> None:
        step, now = self.steps_done + 1, self._now()
        for direction in self._directions:
            direction.begin(step)
        self._seeds = probe_seeds(self.seed, step, now.queries)
        self._eps = now.eps
        self._points = asked(self._estimator, self._seeds, self._eps)

    def _evaluate(self, loss: Closure) -> list[float]:
        if self.share == "data" or self.ranks.size == 1:
            return losses_at(self._direction, loss, self._points)
        return shared_losses(self.ranks, self._direction, loss, self._points)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the weights by what was estimated since the last step.

        Args:
            closure: Estimated first, when given, as torch optimizers do.

        Returns:
            The closure's loss, when one was given.

        Raises:
            InputError: Nothing was estimated.
            DivergedError: Too many steps in a row without a finite loss.
        """
        loss = None if closure is None else self.estimate(closure)
        if not self._parts:
            raise InputError(
                Problem(
                    "nothing-estimated",
                    f"step {self.steps_done + 1}",
                    "no loss was evaluated since the last step",
                    "Call optimizer.estimate(closure) before optimizer.step().",
                )
            )
        kept, self.probe = self._answer()
        self.repeated += self._kept is not None
        self._parts, self._kept = [], None
        rates = self._rates()
        if self._record is not None:
            self._record.step(kept, rates)
        moved = False
        for (lr, decay), direction, update in zip(rates, self._directions, self._updates, strict=True):
            update.weight_decay = decay
            moved = update.apply(direction, self.probe, lr)
        self._loose = self._loose or moved
        self.steps_done += 1
        self.forwards += self.probe.n_forward
        self.skipped += not moved
        self._skipped_in_a_row = 0 if moved else self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= self.max_skipped:
            raise DivergedError(
                Problem(
                    "diverged",
                    f"step {self.steps_done}",
                    f"no finite loss in {self._skipped_in_a_row} steps in a row",
                    "Lower the learning rate or eps, and look at the batches' own losses.",
                )
            )
        return loss

    def _answer(self) -> tuple[tuple[float, ...], Probe]:
        """What is kept of the step, and the probe: from the losses, or from what was kept of them before."""
        if self._kept is None:
            probe = answered(self._estimator, self._seeds, self._means(), self._eps)
            return self._estimator.kept(probe), probe
        self._begin()
        probe = self._estimator.recall(self._seeds, self._kept, self._eps)
        return self._kept, replace(probe, n_forward=self._estimator.forwards(len(self._seeds)))

    def _means(self) -> list[float]:
        """The whole batch's loss at each point, over all parts and, where data is shared, all processes."""
        weights = [weight for weight, _ in self._parts]
        parts = [losses for _, losses in self._parts]
        scaled = [
            [value if weight is None else weight * value for value in losses]
            for weight, losses in zip(weights, parts, strict=True)
        ]
        count = len(self._points)
        if self.share == "data":
            rows = self.ranks.gather([value for losses in scaled for value in losses])
            scaled = [row[at : at + count] for row in rows for at in range(0, len(row), count)]
        over = len(scaled) if weights[0] is None else (self.ranks.size if self.share == "data" else 1)
        return [_sum(values) / over for values in zip(*scaled, strict=True)]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: there are no gradients. (What was estimated is used up by `step`.)"""

    # ---- the weights

    def _trained(self) -> dict[str, Tensor]:
        return {name: each for direction in self._directions for name, each in direction.weights().items()}

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all that was learnt into the stored weights."""
        for direction in self._directions:
            direction.settle()
        self._loose = False
        if self._record is not None:
            self._record.settled()

    def _settle_before(self) -> None:
        if self._loose and not self._busy:
            self.settle()

    def _weights_loaded(self) -> None:
        """Somebody loaded other weights into the model: start from these."""
        if self._record is not None:
            self._record.weights_replaced()
        for direction in self._directions:
            direction.close()
        self._loose = False
        self._build()

    def close(self) -> None:
        """Settle, and leave a bare model without hooks; the optimizer is of no use afterwards. May be called twice."""
        if self._hooks:
            if self._record is not None:
                self._record.leave()
            self._settle_before()
            if self._record is not None:
                self._record.close(lambda: weights_digest(self._trained()))
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for direction in self._directions:
            direction.close()

    # ---- its state

    def state_dict(self) -> dict[str, Any]:
        """Parameter groups and all that the next step depends on, beside the model's weights: tensors, numbers, text.

        With the model's own `state_dict`, taken at the same time, training goes on to the same bits.
        """
        self._settle_before()
        state = super().state_dict()
        state[_KEY] = {
            "version": VERSION,
            "identity": identity_of(self.config, self._names),
            "seed": self.seed,
            "step": self.steps_done,
            "forwards": self.forwards,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "processes": self.ranks.size,
            "directions": [dict(direction.state()) for direction in self._directions],
            "updates": [dict(update.state()) for update in self._updates],
            "estimator": dict(self._estimator.state()),
        }
        if self._record is not None and (journal := self._record.data) is not None:
            state[_KEY]["journal"] = journal
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; load the model's weights first.

        The number of processes may differ from the one that saved: with `share="queries"` training goes on to the same
        bits; with `share="data"` it goes on with other batches, as the loader deals them out.

        Raises:
            InputError: The state is of another optimizer, method, seed or set of parameters.
        """
        own = state_dict.get(_KEY)
        if not isinstance(own, dict) or own.get("version") != VERSION:
            raise _foreign("it holds no state of this optimizer, or one of another version")
        if identity_now(own["identity"], self.config) != identity_of(self.config, self._names):
            raise _foreign(f"its method or parameters are others: {own['identity'][:500]}")
        if own["seed"] != self.seed:
            raise _foreign(f"its seed is another: {own['seed']}")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != _KEY})
        for direction, state in zip(self._directions, own["directions"], strict=True):
            direction.load(direction.weights(), state)
        for update, state in zip(self._updates, own["updates"], strict=True):
            update.load(state)
        self._estimator.load(own["estimator"])
        self.steps_done, self.forwards = int(own["step"]), int(own["forwards"])
        self.skipped, self._skipped_in_a_row = int(own["skipped"]), int(own["skipped_in_a_row"])
        self._parts, self._kept = [], None
        self._loose = False
        if self._record is not None:
            self._record.load(own.get("journal"), self.steps_done)


def _uncompiled() -> AbstractContextManager[Any]:
    """Inside, compiled models run as they are written: perturbations are made by code that does not trace."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _sum(values: Iterable[float]) -> float:
    """Their sum, rounded once whatever the order; NaN when one is not finite."""
    listed = list(values)
    return math.fsum(listed) if all(map(math.isfinite, listed)) else math.nan


def _foreign(why: str) -> InputError:
    return InputError(
        Problem(
            "optimizer-state-foreign",
            "the optimizer state",
            why,
            "Load it into a ZerothOrder with the method, seed and parameters that it was saved with.",
        )
    )
