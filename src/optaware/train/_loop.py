"""The one training loop: batches, updates, evaluations, checkpoints, the same for every method."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from optaware._io import (
    JsonlAppender,
    finite_or_none,
    read_json,
    read_jsonl,
    storage_errors,
    write_json,
    write_jsonl,
)
from optaware.errors import InputError, IntegrityError, Problem, StoppedBySignal
from optaware.models import peak_memory_bytes
from optaware.records import EvalRecord, RunSpec, Score, StepRecord, ZerothOrderConfig, fingerprint
from optaware.store import RunFolder
from optaware.train._batches import BatchOrder, split
from optaware.train._checkpoint import BEST, LAST, Checkpoint, discard_checkpoints
from optaware.train._fused import fused_learner
from optaware.train._journal import Journal, JournalHeader, foreign, read_journal
from optaware.train._left import FOREIGN, Left, read_left, readable_rows
from optaware.train._methods import make_learner, make_loss, prepare_model
from optaware.train._platform import platform_of
from optaware.train._progress import Progress
from optaware.train._types import EvalEvent, Learner, StepEvent, StepResult, TrainEvent, TrainOutcome
from optaware.train._weights import save_weights
from optaware.train.distributed import share_queries
from optaware.train.firstorder import AdamWLearner

if TYPE_CHECKING:
    from optaware.models import EncodedExample, LoadedModel, OptionScorer

__all__ = ["DIVERGED_AFTER", "train"]

Objective = Literal["options", "language-model"]

_log = logging.getLogger("optaware")

DIVERGED_AFTER = 50
"""Updates in a row without a finite loss after which a run counts as diverged."""


def train(
    spec: RunSpec,
    folder: RunFolder,
    *,
    loaded: LoadedModel,
    scorer: OptionScorer,
    train_rows: Sequence[EncodedExample],
    dev_rows: Sequence[EncodedExample],
    objective: Objective,
    on_event: Callable[[TrainEvent], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    until: int | None = None,
) -> TrainOutcome:
    """Train `loaded.model` as `spec` says; afterwards it holds the weights with the lowest dev loss.

    Which rows a step sees depends on the seed and the step only, never on the method. The dev rows are scored every
    `eval_every` steps and after the last one. Without dev rows the last weights are chosen.

    Calling it again on the same folder with a freshly loaded model resumes from the last checkpoint (written at each
    evaluation and at a stop), to the same bits as a run that was never interrupted; a run that had ended only loads its
    chosen weights. A checkpoint that has lost bytes, or whose logs have, is told of in the log and left out. Without a
    checkpoint, a forward-only run resumes from its journal: the steps in it are made again without evaluating a
    loss, on the processor that wrote it to the same bits. With `spec.keep_weights` the chosen weights are also written
    to `weights/` in the folder. Call `discard_checkpoints` once the run's result is written.

    Args:
        spec: The run.
        folder: Where `steps.jsonl`, `eval.jsonl`, `journal.bin` and checkpoints go.
        loaded: The model as it comes. For LoRA, `loaded.model` becomes the PEFT model.
        scorer: A scorer around `loaded.model`.
        train_rows: Rows to train on, at least one.
        dev_rows: Rows that choose the checkpoint.
        objective: The task's loss.
        on_event: Told of each update and evaluation.
        should_stop: Asked before each update; when it says yes, a checkpoint is written and the run stops.
        until: Stop likewise (code `paused`) once this step is made and more are left; None: train to the end.

    Raises:
        InputError: No training rows; a method that does not go with the model's dtype.
        ModelError: A method that does not go with the model's modules.
        IntegrityError: A checkpoint or journal belongs to something else.
        StoppedBySignal: `should_stop` said so, or `until` is reached.
        StorageError: A file cannot be written.
    """
    if not train_rows:
        raise InputError(
            Problem("no-training-rows", "0 training rows", "there is nothing to train on", "Check the data splits.")
        )
    with _threads(spec.threads), ExitStack() as stack:
        run = _Run(spec, folder, loaded, scorer, train_rows, dev_rows, objective, stack)
        run.on_event = on_event or (lambda event: None)
        run.should_stop = should_stop or (lambda: False)
        run.until = until
        run.resume()
        run.go_on()
        return run.finish()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """One call of `train`."""

    on_event: Callable[[TrainEvent], None]
    should_stop: Callable[[], bool]
    until: int | None = None

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        loaded: LoadedModel,
        scorer: OptionScorer,
        train_rows: Sequence[EncodedExample],
        dev_rows: Sequence[EncodedExample],
        objective: Objective,
        stack: ExitStack,
    ) -> None:
        self.spec, self.folder, self.loaded, self.scorer = spec, folder, loaded, scorer
        self.train_rows, self.dev_rows, self.objective = train_rows, dev_rows, objective
        self.stack = stack
        self.schedule = spec.schedule
        self.order = BatchOrder(len(train_rows), spec.schedule.batch_size, spec.seed)
        self.last = Checkpoint(folder.path / LAST)
        self.best = Checkpoint(folder.path / BEST)
        self.progress = Progress()
        self.identity = {"spec": fingerprint(spec), "base": loaded.sha256}
        loaded.model = prepare_model(loaded.model, spec.method, spec.seed)
        scorer.model = loaded.model
        self.learner = self._make_learner()
        self.recorded: list[tuple[float, ...]] = []
        self.logged: list[dict[str, Any]] = []
        stack.callback(self.learner.close)

    def _make_learner(self) -> Learner:
        spec, model = self.spec, self.loaded.model
        loss = make_loss(self.scorer, self.objective, spec.method)
        fused, why = fused_learner(model, loss, spec.method, spec.seed, spec.schedule.steps, self.train_rows)
        if isinstance(spec.method, ZerothOrderConfig):
            self._note("fused" if fused else f"not fused: {why}")
            if fused is None and (next(model.parameters()).is_cuda or "check failed" in why):
                _log.warning("the step is not fused on the GPU: %s", why)
        return fused or make_learner(model, loss, spec.method, spec.seed, spec.schedule.steps)

    def _note(self, step: str) -> None:
        """Say beside what else was resolved for this run how its steps are made."""
        if self.folder.resolved.exists() and (found := read_json(self.folder.resolved)).get("step") != step:
            write_json(self.folder.resolved, {**found, "step": step})

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one, and cut the logs to where it was written."""
        left = self._left()
        if left is not None:
            self.progress = left.progress
            self.learner.load(left.weights, left.state)
            if self.progress.best_step == self.progress.step:  # a kill may have come between the two
                self.best.take(self.last, "weights", {})
        else:
            self._take_up_journal()
        _cut(self.folder.steps, max(self.progress.step, len(self.recorded)))
        _cut(self.folder.evals, self.progress.step)
        self.steps_log = self.stack.enter_context(JsonlAppender(self.folder.steps, sync=False))
        self.evals_log = self.stack.enter_context(JsonlAppender(self.folder.evals))
        self.journal = self._open_journal()
        if (room := getattr(self.learner, "room", None)) is not None:
            room.most_rows = self.progress.most_rows
        share_queries(self.learner, {"spec": self.identity["spec"] or "", "step": str(self.progress.step)})

    def _left(self) -> Left | None:
        """What the last checkpoint holds; one that is damaged is discarded, and the run begins anew without it."""
        if not self.last.exists():
            return None
        method = self.spec.method
        header = self._header(method) if isinstance(method, ZerothOrderConfig) else None
        try:
            return read_left(
                self.folder, self.last, self.best, self.identity, header, self.schedule, scored=bool(self.dev_rows)
            )
        except IntegrityError as error:
            if any(problem.code in FOREIGN for problem in error.problems):
                raise
            _log.warning("%s: %s; the run goes on without it", self.folder.path.name, error.problems[0].why)
            discard_checkpoints(self.folder.path)
            return None

    def _header(self, method: ZerothOrderConfig) -> JournalHeader:
        device = next(self.loaded.model.parameters()).device
        return JournalHeader(
            spec=self.identity["spec"] or "",
            base=self.loaded.sha256 or "0" * 64,
            seed=self.spec.seed,
            method=method.to_json(),
            steps=self.schedule.steps,
            settle_every=self.schedule.eval_every,
            device=device.type,
            platform=platform_of(device, self.learner),
        )

    def _take_up_journal(self) -> None:
        """Without a checkpoint, make the steps that the journal holds again instead of evaluating their losses.

        Only where that gives the run's own bits: on the processor that wrote the journal. Elsewhere it begins anew.
        """
        method, path = self.spec.method, self.folder.journal
        if not isinstance(method, ZerothOrderConfig) or not path.exists() or not path.stat().st_size:
            return
        try:
            found, steps = read_journal(path)
        except IntegrityError as error:
            _log.warning("%s: %s; the run begins anew", self.folder.path.name, error.problems[0].why)
            return
        header = self._header(method)
        if why := header.difference(found):
            raise foreign(path, why)
        if header.platform != found.platform:
            return
        # The journal does not hold losses: a step whose row is not in the log is made whole, so that the log is too.
        rows = enumerate(readable_rows(self.folder.steps), start=1)
        self.logged = [row for _, row in takewhile(lambda pair: pair[1]["step"] == pair[0], rows)]
        self.recorded = steps[: len(self.logged)]

    def _open_journal(self) -> Journal | None:
        method = self.spec.method
        if not isinstance(method, ZerothOrderConfig):
            return None
        steps = max(self.progress.step, len(self.recorded))
        journal = Journal(self.folder.journal, self._header(method), steps)
        self.stack.callback(journal.close)
        return journal

    def go_on(self) -> None:
        """Train up to the end, from evaluation to evaluation."""
        while not self.progress.ended:
            done, every = self.progress.step, self.schedule.eval_every
            target = min((done // every + 1) * every, self.schedule.steps)
            with self.learner.training():
                while self.progress.step < target and self.progress.skipped_in_a_row < DIVERGED_AFTER:
                    self._obey()
                    self._step()
            if self.progress.skipped_in_a_row >= DIVERGED_AFTER:
                detail = f"no finite loss in {DIVERGED_AFTER} updates in a row, up to step {self.progress.step}"
                self.learner.settle()
                self.progress = self.progress.with_(ended="diverged", detail=detail)
                self._save()
            else:
                self._evaluate()

    def _obey(self) -> None:
        told = self.should_stop()
        if not told and (self.until is None or self.progress.step < self.until):
            return
        self._save()
        name, step, resume = self.folder.path.name, self.progress.step, "Run the same command again to resume."
        if told:
            raise StoppedBySignal(
                Problem("stopped", name, f"it was told to stop after step {step} of {self.schedule.steps}", resume)
            )
        raise StoppedBySignal(
            Problem("paused", name, f"it was to go as far as step {self.until} of {self.schedule.steps}", resume)
        )

    def _step(self) -> None:
        started = time.perf_counter()
        step = self.progress.step + 1
        if step <= len(self.recorded):
            self._repeat(step)
            return
        rows = [self.train_rows[index] for index in self.order.batch(step)]
        result = self.learner.step(step, split(rows, self.schedule.accumulation))
        seconds = time.perf_counter() - started
        self.progress = self.progress.after_step(result, seconds)
        self._note_room(step)
        if self.journal is not None:
            self.journal.append(result.kept or result.coefficients)
        record = self._step_record(result, len(rows), seconds)
        self.steps_log.append(record.to_json())
        self.on_event(StepEvent(record, self.schedule.steps))

    def _note_room(self, step: int) -> None:
        """Record that memory did not suffice for all rows of a part at once."""
        most = getattr(getattr(self.learner, "room", None), "most_rows", None)
        if most != self.progress.most_rows:
            self.progress = self.progress.with_(most_rows=most)
            if self.folder.resolved.exists():
                found = read_json(self.folder.resolved)
                told = [*found.get("out_of_memory", []), {"step": step, "most_rows": most}]
                write_json(self.folder.resolved, {**found, "out_of_memory": told})

    def _repeat(self, step: int) -> None:
        """Make a step of the journal again; its row in the log stays as it was."""
        result = self.learner.repeat(step, self.recorded[step - 1])  # type: ignore[attr-defined]
        self.progress = self.progress.after_step(result, self.logged[step - 1]["step_s"])

    def _step_record(self, result: StepResult, examples: int, seconds: float) -> StepRecord:
        return StepRecord(
            step=self.progress.step,
            loss=finite_or_none(result.loss),
            coefficients=tuple(finite_or_none(value) for value in result.coefficients),
            grad_norm=finite_or_none(result.grad_norm),
            lr=getattr(self.spec.method, "lr", 0.0) if result.lr is None else result.lr,
            examples=examples,
            forwards=self.progress.forwards,
            skipped=result.skipped,
            step_s=seconds,
            metrics={} if self.progress.most_rows is None else {"rows at once": float(self.progress.most_rows)},
        )

    def _evaluate(self) -> None:
        started = time.perf_counter()
        self.learner.settle()
        score = Score(accuracy=0.0, loss=None, n=0)
        better = False
        if self.dev_rows:
            _, score = self.scorer.predict(self.dev_rows, self.objective)
            score = score.model_copy(update={"loss": finite_or_none(score.loss)})
            better = self.progress.is_better(score)
            self.progress = self.progress.after_evaluation(score, time.perf_counter() - started)
        patience = self.schedule.patience
        if self.progress.step >= self.schedule.steps:
            self.progress = self.progress.with_(ended="done")
        elif patience is not None and self.progress.evaluations_since_best >= patience:
            detail = f"stopped early: no lower dev loss in {patience} evaluations"
            self.progress = self.progress.with_(ended="done", detail=detail)
        if self.dev_rows:
            record = EvalRecord(
                step=self.progress.step,
                split="dev",
                loss=score.loss,
                accuracy=score.accuracy,
                n=score.n,
                best=better,
                forwards=self.progress.forwards,
                wall_s=time.perf_counter() - started,
            )
            self.evals_log.append(record.to_json())
            self.on_event(EvalEvent(record, self.schedule.steps))
        self._save()

    def _save(self) -> None:
        """Write the last checkpoint, and the best one when this is it; the logs before them."""
        if isinstance(self.learner, AdamWLearner):
            self._note(self.learner.gradient.engine)
        if self.journal is not None:
            _sync(self.folder.journal)
        _sync(self.folder.steps)
        tensors = {"weights": self.learner.weights(), "state": self.learner.state()}
        self.last.save(self.progress.step, tensors, {**self.identity, "progress": self.progress.to_json()})
        if self.progress.best_step == self.progress.step:
            self.best.take(self.last, "weights", {})

    def finish(self) -> TrainOutcome:
        """Put the chosen weights into the model and say how it went."""
        progress = self._judged()
        peak = peak_memory_bytes(self.loaded.model)  # before the chosen weights are read: that is no part of training
        chosen = self.last if progress.best_step is None else self.best
        weights = chosen.load("weights")
        with torch.no_grad():
            for name, stored in self.learner.weights().items():
                stored.copy_(weights[name])
        self.learner.close()
        self.loaded.model.eval()
        if self.spec.keep_weights:
            save_weights(self.loaded.model, self.loaded.tokenizer, self.folder.path / "weights")
        times = [row["step_s"] for row in read_jsonl(self.folder.steps, torn_tail=True)]
        return TrainOutcome(
            best_step=progress.step if progress.best_step is None else progress.best_step,
            steps=progress.step,
            forwards=progress.forwards,
            skipped=progress.skipped,
            train_s=progress.train_s,
            eval_s=progress.eval_s,
            step_s_median=statistics.median(times) if times else None,
            peak_memory_bytes=peak,
            dev=progress.best,
            outcome="diverged" if progress.ended == "diverged" else "done",
            detail=progress.detail,
        )

    def _judged(self) -> Progress:
        """What the run counts as: without one finite dev loss it has diverged, however its training losses looked."""
        progress = self.progress
        if self.dev_rows and progress.best is None and progress.ended == "done":
            progress = progress.with_(ended="diverged", detail="no evaluation on the dev rows had a finite loss")
        if progress.most_rows is not None:
            told = f"out of memory: at most {progress.most_rows} rows at once"
            progress = progress.with_(detail=f"{progress.detail}; {told}" if progress.detail else told)
        return progress


def _cut(path: Path, step: int) -> None:
    """Leave out the rows of a log after `step`, and a torn last line."""
    if not path.exists():
        return
    rows = readable_rows(path)
    kept = [row for row in rows if row["step"] <= step] if step else []
    # Without a step the file may hold anything: it begins anew.
    if len(kept) != len(rows) or not step:
        write_jsonl(path, kept)


def _sync(path: Path) -> None:
    with storage_errors(path), path.open("rb") as file:
        os.fsync(file.fileno())
