from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optaware._io import lock, read_jsonl, remove_half_files, storage_errors, sync_folder, write_json
from optaware.data import load_corpus
from optaware.errors import InputError, ModelError, OptawareError, StoppedBySignal
from optaware.models import memory_errors
from optaware.records import Example, Prediction, RunResult, RunSpec, RunStatus, ZeroShot
from optaware.store import RunFolder, Store, environment
from optaware.study._run_metrics import run_metrics
from optaware.tasks import Splits, Task, get_task, load_splits

__all__ = ["run_in", "train_one", "written_result"]

_log = logging.getLogger("optaware")


def train_one(
    spec: RunSpec,
    store: Store,
    *,
    data_dir: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: Callable[[Any], None] | None = None,
    until: int | None = None,
) -> RunResult:
    """Do one run whole: load, train, score the test rows once, record. Calling it again resumes, or reads what is done.

    Args:
        spec: The run.
        store: Where its folder lies.
        data_dir: Folder of task data (see `optaware.tasks`).
        should_stop: Asked at every step; a stop leaves a checkpoint.
        on_event: Receives training events.
        until: Stop (code `paused`) once this step is made and more are left; methods with a loop of their own go on.

    Raises:
        OptawareError: Whatever was wrong; the status file then says `failed` or `stopped`, with the reason.
    """
    folder = store.run_folder(spec)
    with lock(folder.lock):
        if folder.is_done:
            return folder.read_result()
        remove_half_files(folder.path)
        if (written := written_result(folder)) is not None:  # it was killed between its result and its marker
            return _finished(folder, spec, written)
        _forget_end(folder)
        folder.write_spec(spec)
        folder.write_status(RunStatus(state="running", steps=spec.schedule.steps))
        try:
            with memory_errors(spec.slug):
                result = run_in(folder, spec, store, data_dir, should_stop, on_event, until)
        except StoppedBySignal as error:
            folder.write_status(RunStatus(state="stopped", detail=str(error)))
            raise
        except Exception as error:
            detail = str(error) if isinstance(error, OptawareError) else traceback.format_exc()
            folder.write_status(RunStatus(state="failed", detail=detail))
            raise
        result = result.model_copy(update={"files": folder.sizes()})
        write_json(folder.result, result.to_json())
        return _finished(folder, spec, result)


def written_result(folder: RunFolder) -> RunResult | None:
    """The result of a run that was killed before it was marked done; None: there is none, or not all of its files."""
    try:
        return folder.read_result() if folder.result.exists() and not folder.lost() else None
    except InputError:
        return None


def _forget_end(folder: RunFolder) -> None:
    """Take back what says that the run has ended: a file of it has lost bytes, so it is made again."""
    if not folder.result.exists() and not folder.done.exists():
        return
    lost = folder.lost() or folder.result.name
    _log.warning("%s: %s is not what it was when the run ended; the run is made again", folder.path.name, lost)
    with storage_errors(folder.path):
        folder.done.unlink(missing_ok=True)
        folder.result.unlink(missing_ok=True)
        sync_folder(folder.path)


def _finished(folder: RunFolder, spec: RunSpec, result: RunResult) -> RunResult:
    """Do what follows a result; the marker comes last, since nobody looks at a marked run again."""
    from optaware.train import discard_checkpoints

    discard_checkpoints(folder.path)
    folder.write_status(RunStatus(state="done", step=result.steps, steps=spec.schedule.steps, detail=result.detail))
    folder.mark_done()
    return result


def training_rows(spec: RunSpec, store: Store, task: Task, splits: Splits) -> list[Example]:
    """The run's training rows: the original ones, or those of its corpus.

    Raises:
        InputError: The corpus is not there or not finished.
    """
    if spec.rows.corpus_id is None:
        return list(splits.train)
    folder = store.find_corpus(spec.rows.corpus_id)
    if not (folder / "DONE").exists():
        raise InputError.of(
            "corpus-unfinished", str(folder), "its DONE marker is missing", "Run the command that makes it again."
        )
    return load_corpus(folder, task, splits.train)


def run_in(
    folder: RunFolder,
    spec: RunSpec,
    store: Store,
    data_dir: Path | None,
    should_stop: Callable[[], bool],
    on_event: Callable[[Any], None] | None,
    until: int | None = None,
) -> RunResult:
    """The run itself, in `folder`, without status and markers."""
    import torch

    from optaware.models import EnergyMeter, deterministic_kernels
    from optaware.train.methods import method_run

    torch.set_num_threads(spec.threads)
    write_json(folder.env, environment())
    own = method_run(spec.method.name)
    meter = EnergyMeter(folder.energy, spec.device, began=folder.steps.exists())

    def told(event: Any) -> None:
        meter.tick()
        if on_event is not None:
            on_event(event)

    meter.start()
    try:
        with deterministic_kernels(spec.deterministic):
            if own is not None:
                result = own(spec, folder, data_dir=data_dir, on_event=told, should_stop=should_stop)
            else:
                result = _run_on_rows(spec, folder, store, data_dir, should_stop, told, until)
    finally:
        energy = meter.stop()
    return result.model_copy(update={"energy": energy})


def _run_on_rows(
    spec: RunSpec,
    folder: RunFolder,
    store: Store,
    data_dir: Path | None,
    should_stop: Callable[[], bool],
    on_event: Callable[[Any], None] | None,
    until: int | None,
) -> RunResult:
    import torch

    from optaware.evaluate import evaluate
    from optaware.models import OptionScorer, encode, held_memory_bytes, load_model, peak_memory_bytes
    from optaware.train import TrainOutcome, train

    task = get_task(spec.rows.task)
    if spec.rows.task_sha256 not in (None, task.sha256):
        raise InputError.of(
            "task-changed", spec.rows.task, "the task file is not the one that the spec was made from", "Plan again."
        )
    splits = load_splits(task, spec.rows.protocol, data_dir=data_dir)
    train_examples = training_rows(spec, store, task, splits)
    loaded = load_model(spec.model, device=spec.device)
    write_json(
        folder.resolved,
        {
            "model_source": loaded.source,
            "model_sha256": loaded.sha256,
            "device": str(loaded.device),
            "device_name": torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None,
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "data_source": splits.source.to_json(),
            "rows": {"train": len(train_examples), "dev": len(splits.dev), "test": len(splits.test)},
            "drawn_from": splits.drawn_from,
            "overlap": splits.overlap,
            "notes": list(splits.notes),
        },
    )
    scorer = OptionScorer(loaded.model, loaded.tokenizer)

    def encoded(examples: list[Example] | tuple[Example, ...]) -> Any:
        rendered = [task.render(example, style=spec.rows.prompt) for example in examples]
        return encode(rendered, loaded.tokenizer, spec.schedule.max_length)

    train_rows = encoded(train_examples)
    held = held_memory_bytes(loaded.model)
    if isinstance(spec.method, ZeroShot):
        started = time.perf_counter()
        _, dev = evaluate(scorer, encoded(splits.dev), task.loss, None)
        outcome = TrainOutcome(
            best_step=0,
            steps=0,
            forwards=0,
            skipped=0,
            train_s=0.0,
            eval_s=time.perf_counter() - started,
            step_s_median=None,
            peak_memory_bytes=0,
            dev=dev,
            outcome="done",
        )
    else:
        outcome = train(
            spec,
            folder,
            loaded=loaded,
            scorer=scorer,
            train_rows=train_rows,
            dev_rows=encoded(splits.dev),
            objective=task.loss,
            on_event=on_event,
            should_stop=should_stop,
            until=until,
        )
    started = time.perf_counter()
    predictions: list[Prediction] = []
    test = None
    if spec.score_test:
        try:
            predictions, test = evaluate(scorer, encoded(splits.test), task.loss, folder.predictions)
        except ModelError as error:
            if outcome.outcome != "diverged" or error.code != "score-not-finite":
                raise
            # A run that has diverged has no weights worth a score; that is its result, and no failure.
            outcome = outcome.model_copy(update={"detail": f"{outcome.detail}; no test score: it is not finite"})
    memory = max(outcome.peak_memory_bytes, peak_memory_bytes(loaded.model))
    if test is not None:
        _log.info("test accuracy %.4f on %d rows", test.accuracy, test.n)
    return RunResult(
        run_id=folder.run_id,
        outcome=outcome.outcome,
        test=test,
        dev=outcome.dev,
        best_step=outcome.best_step,
        steps=outcome.steps,
        forwards=outcome.forwards,
        skipped=outcome.skipped,
        train_s=outcome.train_s,
        eval_s=outcome.eval_s + time.perf_counter() - started,
        step_s_median=outcome.step_s_median,
        peak_memory_bytes=memory,
        model_source=loaded.source,
        model_sha256=loaded.sha256,
        data_source=splits.source,
        metrics=run_metrics(
            spec,
            predictions,
            test,
            outcome=outcome,
            evaluations=read_jsonl(folder.evals, torn_tail=True) if folder.evals.exists() else [],
            held_bytes=held,
            tokens_per_row=sum(len(row.prompt_ids) + len(row.option_ids[row.label]) for row in train_rows)
            / max(1, len(train_rows)),
            trained_parameters=sum(each.numel() for each in loaded.model.parameters() if each.requires_grad),
        ),
        detail=outcome.detail,
    )
