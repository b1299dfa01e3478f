"""Forward-only training under the trainers that people use."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optaware.errors import InputError, Problem, ProblemList
from optaware.records import ZerothOrderConfig
from optaware.train._methods import MOST_COPIES
from optaware.train._types import Probe
from optaware.train.optim._closure import still
from optaware.train.optim._copies import Passes
from optaware.train.optim._heads import full_head
from optaware.train.optim._pieces import config_of
from optaware.train.optim._zeroth_order import ZerothOrder

if TYPE_CHECKING:
    _Base: Any = object
else:
    _Base = object

__all__ = ["ZerothOrderMixin"]


class ZerothOrderMixin(_Base):  # type: ignore[misc]
    """Makes a trainer of the `transformers.Trainer` family train with forward passes only.

        class ZOTrainer(ZerothOrderMixin, Trainer): ...
        class ZOSFTTrainer(ZerothOrderMixin, SFTTrainer): ...

        trainer = ZOTrainer(model=model, args=args, train_dataset=rows, method="fast")

    The trainer itself is not changed: data, collation, accumulation, schedules, callbacks, evaluation, logging and
    checkpoints are its own, and so is `compute_loss`, with whatever overrides it. Only the optimizer and what happens
    to one batch are replaced: `training_step` probes `compute_loss` by `ZerothOrder.estimate`.

    Learning rate and weight decay: those of `TrainingArguments` when they are not at their defaults there, else the
    method's. `max_grad_norm`, `optim` and `gradient_checkpointing` have no effect. Instead of `grad_norm` (there is no
    gradient, it would be logged as 0) the logs have `projected_gradient`, the mean size of the coefficients g since the
    last log, `forward_passes`, and `skipped_steps` once there are any.

    A checkpoint resumes to the bits of a run that was not interrupted and saved and evaluated at the same steps.

    `journal.bin` in the output folder keeps four bytes a probe, from which `replay` (or `optaware runs replay`)
    rebuilds the weights. A checkpoint holds it too: resuming cuts it back to there. Where no checkpoint is left,
    `train(resume_from_checkpoint=True)` makes the steps of the journal again, without evaluating a loss, and goes on;
    in the logs these have no `loss`, but are counted as `repeated_steps`.

    Points are looked at one by one, which gives the bits of a plain loop. With `batching: pairs` (or `on`) both signs
    of a direction (or up to 32 points) go through the model in one pass, where the loss follows from the logits and
    the labels: tried at the first batch, with a warning where it does not. Under `SFTTrainer` a pass then holds the
    logits of all its copies, which TRL's fused head would not.

    Under torchrun or `accelerate launch`, each process evaluates its own rows and only losses are exchanged; the model
    is not wrapped in `DistributedDataParallel`, which would hold gradients. Without a launcher one GPU is used.

    Args:
        method: A method config or the name of one (see `ZerothOrder`).
        journal: Whether to keep one (none is kept of perturbations in place). One that is there already and is not
            gone on with is set aside under another name.
        **kwargs: What the trainer takes.

    Raises:
        InputError: The trainer was told to use what goes with gradients only (DeepSpeed, FSDP), or the learning rate is
            set in two places to different values.
    """

    optimizer: Any

    def __init__(
        self, *args: Any, method: ZerothOrderConfig | str = "fast", journal: bool = True, **kwargs: Any
    ) -> None:
        self.zeroth_order_config = config_of(method, {})
        self._keeps_journal = journal and self.zeroth_order_config.apply != "in-place"
        self._from_journal = False
        self._repeated = 0
        self._sizes: list[float] = []
        self._batched: bool | None = None
        """Whether several points go through the model in one pass; None: not known yet."""
        super().__init__(*args, **kwargs)
        self._check_arguments()

    def _check_arguments(self) -> None:
        problems = ProblemList("TrainingArguments")
        for name in ("is_deepspeed_enabled", "is_fsdp_enabled"):
            if getattr(self, name, False):
                given = name.removeprefix("is_").removesuffix("_enabled")
                problems.add(
                    "trainer-sharded", given, "probes need the whole model on each device", f"Leave {given} out."
                )
        problems.raise_if_any()
        if self.args.n_gpu > 1:
            warnings.warn(
                "forward-only training without a launcher uses one GPU; start it with torchrun for more", stacklevel=3
            )
            self.args._n_gpu = 1

    # ---- optimizer

    def create_optimizer(self, model: Any = None) -> Any:
        """The `ZerothOrder` of this trainer (made anew after training has ended)."""
        if self.optimizer is None or getattr(self, "_ended", False):
            self._ended, self._repeated = False, 0
            self._zeroth_order = ZerothOrder(
                self._bare_model(),
                self.zeroth_order_config,
                lr=self._step_size("lr", "learning_rate"),
                weight_decay=self._step_size("weight_decay", "weight_decay"),
                seed=self.args.seed,
                steps=self.state.max_steps if self.state.max_steps > 0 else None,
                journal=self._journal_path() if self._keeps_journal else None,
                resume=self._from_journal,
            )
            self._zeroth_order.register_step_post_hook(lambda optimizer, *_: self._note(optimizer.probe))
            self.optimizer = self._zeroth_order
            # Losses of forward passes need no scaling against underflow, and a scaler would wait for gradients.
            self.accelerator.scaler = None
            _without_gradient_buckets(self.accelerator)
        return self.optimizer

    def _note(self, probe: Probe) -> None:
        sizes = [abs(value) for _, value in probe.usable]
        if sizes:
            self._sizes.append(math.fsum(sizes) / len(sizes))

    def _journal_path(self) -> Path:
        return Path(self.args.output_dir) / "journal.bin"

    def _bare_model(self) -> nn.Module:
        model: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return model

    def _step_size(self, name: str, argument: str) -> float:
        """Of the arguments where it is set there, else the method's."""
        given, own = getattr(self.args, argument), getattr(self.zeroth_order_config, name)
        default = next(field.default for field in dataclasses.fields(self.args) if field.name == argument)
        if given in (default, own):
            return float(own)
        if name in self.zeroth_order_config.model_fields_set:
            raise InputError(
                Problem(
                    "step-size-twice",
                    f"{argument}={given} in the arguments, {name}={own} in the method",
                    "only one of them can be meant",
                    "Set it at one place.",
                )
            )
        return float(given)

    # ---- one batch

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Probe the loss of one batch; returns its mean over the probed points, as a share of the accumulated batch."""
        bare = self._bare_model()
        bare.training = True
        inputs = self._prepare_inputs(inputs)
        tokens = getattr(self, "_total_train_tokens", None)

        def run(model: Any) -> Any:
            if tokens is not None:
                self._total_train_tokens = tokens  # a batch is counted once, however often it is looked at
            with self.compute_loss_context_manager(), full_head(bare):
                return self.compute_loss(model, dict(inputs), num_items_in_batch=num_items_in_batch)

        closure = self._closure(bare, inputs, run)
        parts = getattr(self, "current_gradient_accumulation_steps", self.args.gradient_accumulation_steps)
        if self._loss_covers_batch(num_items_in_batch):
            loss = self._zeroth_order.estimate(closure, weight=1.0)
        else:
            loss = self._zeroth_order.estimate(closure) / parts
        if self._zeroth_order.repeats:
            loss = torch.zeros(())  # it was not evaluated; the trainer adds up what it is given
        device: torch.device = self.args.device
        return loss.to(device)

    def _closure(self, bare: nn.Module, inputs: dict[str, Any], run: Callable[[Any], Any]) -> Callable[[], Any]:
        """One that looks at several points in a pass where the method asks for it and the loss is one of the logits."""
        if self.zeroth_order_config.batching not in ("pairs", "on") or self._batched is False:
            return lambda: run(bare)
        passes = Passes(bare, inputs, run, MOST_COPIES[self.zeroth_order_config.batching])
        if self._batched is None:
            with still(bare):
                self._batched = passes.agree()
            if not self._batched:
                warnings.warn(
                    "probes run one by one: the loss of this trainer does not follow from the model's logits and the "
                    "labels alone, so copies of a batch cannot be told apart",
                    stacklevel=4,
                )
                return lambda: run(bare)
        return passes

    def _loss_covers_batch(self, num_items_in_batch: Any) -> bool:
        """Whether the losses of the parts are to be added (each is divided by the items of all parts), not averaged."""
        told = getattr(self, "loss_is_scaled_for_ga", None)
        if told is not None:
            return bool(told)
        return (self.model_accepts_loss_kwargs and num_items_in_batch is not None) or self.compute_loss_func is not None

    def _clip_grad_norm(self, model: nn.Module) -> None:
        return None

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> None:
        return None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as the trainer does, with what a forward-only step has to tell."""
        optimizer = getattr(self, "_zeroth_order", None)
        if optimizer is not None and "loss" in logs:
            logs.pop("grad_norm", None)
            if self._sizes:
                logs["projected_gradient"] = math.fsum(self._sizes) / len(self._sizes)
                self._sizes.clear()
            logs["forward_passes"] = optimizer.forwards
            if optimizer.repeated > self._repeated:
                logs.pop("loss")
                logs["repeated_steps"], self._repeated = optimizer.repeated, optimizer.repeated
            if optimizer.skipped:
                logs["skipped_steps"] = optimizer.skipped
        super().log(logs, *args, **kwargs)

    # ---- the end

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self._end()
        return super()._finalize_training(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as the trainer does; however it ends, the model then holds all that was learnt, without hooks.

        With `resume_from_checkpoint=True` and no checkpoint in the output folder, the journal is resumed from.
        """
        self._from_journal = resume_from_checkpoint is True and self._only_journal_left()
        try:
            return super().train(None if self._from_journal else resume_from_checkpoint, *args, **kwargs)
        finally:
            self._end()

    def _only_journal_left(self) -> bool:
        from transformers.trainer_utils import get_last_checkpoint

        path = self._journal_path()
        return self._keeps_journal and path.exists() and get_last_checkpoint(self.args.output_dir) is None

    def _end(self) -> None:
        if hasattr(self, "_zeroth_order") and not getattr(self, "_ended", False):
            self._zeroth_order.close()
            self._ended = True


def _without_gradient_buckets(accelerator: Any) -> None:
    """Let the accelerator prepare models for losses only: no DistributedDataParallel, which holds gradients."""
    prepare: Callable[..., Any] = accelerator.prepare_model
    if getattr(prepare, "forward_only", False):
        return

    def prepare_model(model: Any, device_placement: bool | None = None, evaluation_mode: bool = False) -> Any:
        return prepare(model, device_placement=device_placement, evaluation_mode=True)

    prepare_model.forward_only = True  # type: ignore[attr-defined]
    accelerator.prepare_model = prepare_model
