"""One model in memory on which all adapters of a run are trained and scored, one after another."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optaware._io import JsonlAppender, read_jsonl, write_json, write_jsonl
from optaware.errors import DivergedError, InputError, Problem, StoppedBySignal
from optaware.models import EncodedExample, LoadedModel, OptionScorer, load_model
from optaware.records import FOLoRA, Prediction, Score, StepRecord
from optaware.train._batches import BatchOrder
from optaware.train._checkpoint import Checkpoint
from optaware.train._seeds import derive_seed, generator
from optaware.train.firstorder import AdamWLearner, add_adapter
from optaware.train.merging import Adapter, Layer, applied, write_adapter, zeroed
from optaware.train.methods.seeded_lora._rows import MixtureRows, shuffle_labels
from optaware.train.methods.seeded_lora._spec import ExpertSpec

__all__ = ["Bench"]

_FACTOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.default\.weight$")


class Bench:
    """The base model with one LoRA adapter on all linear layers, and the rows of a mixture.

    Args:
        loaded: The base model; the adapter's layers are put into it.
        rows: Makes the rows, given the tokenizer.
        rank: LoRA rank.
        alpha: LoRA alpha.

    Raises:
        InputError: The weights are fp16 (see `firstorder.lora`), or the rows cannot be used.
    """

    def __init__(self, loaded: LoadedModel, rows: MixtureRows, rank: int, alpha: float) -> None:
        if loaded.dtype == torch.float16:
            raise InputError.of(
                "method-dtype", "seeded-lora with dtype fp16", "gradients in fp16 underflow to zero", 'Use "bf16".'
            )
        self.loaded, self.rows = loaded, rows
        self.scorer = OptionScorer(loaded.model, loaded.tokenizer)
        if loaded.device.type == "cuda":
            self.scorer.tokens_per_batch = 16384  # small kernels: what counts there is how many batches there are
        self.model = add_adapter(loaded.model, FOLoRA(rank=rank, alpha=alpha), 0)
        self.scale = alpha / rank

    @classmethod
    def open(cls, spec: Any, data: Any, rank: int, alpha: float, data_dir: Path | None) -> Bench:
        """Load the model and the rows of a run spec."""
        loaded = load_model(spec.model, device=spec.device)
        return cls(loaded, MixtureRows(data, loaded.tokenizer, spec.schedule.max_length, data_dir), rank, alpha)

    def factors(self) -> dict[str, dict[str, Tensor]]:
        """The adapter's parameters by layer, then by side (`A`, `B`)."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            if match := _FACTOR.match(name):
                found.setdefault(match["module"], {})[match["side"]] = parameter.data
        return found

    def start_at(self, adapter: Adapter) -> None:
        """Put an adapter's factors into the model's, strictly.

        Raises:
            InputError: Layers are missing or too many, or ranks, shapes or the scale differ.
        """
        factors = self.factors()
        problems = []
        for what, names in (
            ("has nothing for", set(factors) - set(adapter.layers)),
            ("has more than the model's", set(adapter.layers) - set(factors)),
        ):
            if names:
                said = f"it {what} layers {', '.join(sorted(names)[:3])} ({len(names)} in all)"
                problems.append(Problem("seed-mismatch", adapter.name, said, "Start from an adapter of this method."))
        for name in sorted(set(factors) & set(adapter.layers)):
            layer, own = adapter.layers[name], factors[name]
            if layer.a.shape != own["A"].shape or layer.b.shape != own["B"].shape:
                given = f"{name}: A {list(layer.a.shape)}, B {list(layer.b.shape)}"
                why = f"the expert's are A {list(own['A'].shape)}, B {list(own['B'].shape)}"
                problems.append(Problem("seed-mismatch", given, why, "Use one rank and one base model for both."))
            elif not math.isclose(layer.scale, self.scale, rel_tol=1e-9):
                given, why = f"{name}: scale {layer.scale:g}", f"the expert's is {self.scale:g}"
                problems.append(Problem("seed-mismatch", given, why, "Use one alpha and one rank for both."))
        if problems:
            raise InputError(*problems[:20])
        for name, layer in adapter.layers.items():
            factors[name]["A"].copy_(layer.a)
            factors[name]["B"].copy_(layer.b)

    def drawn(self, seed: int, label: str) -> Adapter:
        """A fresh adapter: `A ~ U(±1/√in)` (PEFT's choice) drawn for the label, B = 0."""
        layers = {}
        for name, sides in self.factors().items():
            source = generator(derive_seed(seed, "adapter", label, name))
            bound = 1 / math.sqrt(sides["A"].shape[1])
            a = (torch.rand(sides["A"].shape, generator=source) * 2 - 1) * bound
            layers[name] = Layer(a, torch.zeros(sides["B"].shape), self.scale)
        return Adapter(f"init:{label}", layers)

    def train(
        self,
        spec: ExpertSpec,
        start: Adapter,
        folder: Path,
        *,
        should_stop: Callable[[], bool],
        on_step: Callable[[StepRecord], None],
        save_every: int = 500,
    ) -> None:
        """Train an adapter and save it as `folder/adapter`; with a checkpoint in the folder, go on from there.

        Raises:
            StoppedBySignal: `should_stop` said so; a checkpoint is left.
            DivergedError: No update had a finite loss.
        """
        rows = self.rows.pool(spec.tasks, spec.fraction, spec.seed)
        if spec.shuffled:
            rows = shuffle_labels(rows, spec.seed)
        self.start_at(start)
        learner = AdamWLearner(
            self.model,
            self.loss,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            seed=spec.seed,
        )
        order = BatchOrder(len(rows), spec.batch_size, spec.seed)
        checkpoint = Checkpoint(folder / "checkpoint-last")
        step = skipped = 0
        if checkpoint.exists():
            state = checkpoint.state()
            learner.load(checkpoint.load("weights"), checkpoint.load("state"))
            step, skipped = state["step"], state["skipped"]
        log = folder / "steps.jsonl"
        if log.exists():
            write_jsonl(log, [row for row in read_jsonl(log, torn_tail=True) if row["step"] <= step])
        with JsonlAppender(log, sync=False) as steps, learner.training():
            while step < spec.steps:
                if should_stop():
                    self._save(checkpoint, learner, step, skipped)
                    why = f"it was told to stop after step {step} of {spec.steps}"
                    raise StoppedBySignal(Problem("stopped", folder.name, why, "Run the same command again to resume."))
                step += 1
                record = self._step(learner, step, [rows[index] for index in order.batch(step)], spec.lr)
                skipped += record.skipped
                steps.append(record.to_json())
                on_step(record)
                if step % save_every == 0 and step < spec.steps:
                    self._save(checkpoint, learner, step, skipped)
        learner.close()
        if spec.steps and skipped == spec.steps:
            raise DivergedError.of(
                "diverged", spec.slug, f"none of {spec.steps} updates had a finite loss", "Lower the learning rate."
            )
        write_adapter(self.held(spec), folder / "adapter")
        seconds = [row["step_s"] for row in read_jsonl(log)] if log.exists() else []
        write_json(
            folder / "result.json",
            {"rows": len(rows), "steps": step, "skipped": skipped, "forwards": 3 * step, "train_s": math.fsum(seconds)},
        )

    def held(self, spec: ExpertSpec) -> Adapter:
        """A copy of the adapter that is in the model now."""
        layers = {
            name: Layer(sides["A"].clone(), sides["B"].clone(), self.scale) for name, sides in self.factors().items()
        }
        notes = {"trained_by": spec.to_json()}
        return Adapter(spec.slug, layers, spec.model.name, self.loaded.sha256, self._transposed(), notes)

    def loss(self, batch: Sequence[EncodedExample]) -> Tensor:
        """Mean loss over examples, each by its own task's objective."""
        groups: dict[Any, list[EncodedExample]] = {}
        for row in batch:
            groups.setdefault(self.rows.objective(row.id), []).append(row)
        losses = [self.scorer.loss(rows, name) * (len(rows) / len(batch)) for name, rows in groups.items()]
        return torch.stack(losses).sum()

    def predict(self, task: str, split: Any, adapter: Adapter | None) -> tuple[list[Prediction], Score]:
        """Score a task's rows with an adapter (None: the base model)."""
        rows = self.rows.of(task, split)
        with ExitStack() as stack:
            stack.enter_context(zeroed(self.model))
            if adapter is not None:
                stack.enter_context(applied(self.model, adapter))
            return self.scorer.predict(rows, self.rows.tasks[task].loss)

    def _step(self, learner: AdamWLearner, step: int, batch: list[EncodedExample], lr: float) -> StepRecord:
        started = time.perf_counter()
        result = learner.step(step, [batch])
        return StepRecord(
            step=step,
            loss=result.loss,
            grad_norm=result.grad_norm,
            lr=lr,
            examples=len(batch),
            forwards=3 * step,
            skipped=result.skipped,
            step_s=time.perf_counter() - started,
        )

    def _save(self, checkpoint: Checkpoint, learner: AdamWLearner, step: int, skipped: int) -> None:
        checkpoint.save(step, {"weights": learner.weights(), "state": learner.state()}, {"skipped": skipped})

    def _transposed(self) -> bool:
        """Whether the layers keep their weight as `[in, out]`."""
        return any(getattr(module, "fan_in_fan_out", False) is True for module in self.model.modules())
