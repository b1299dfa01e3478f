"""A whole run: rows, model, arm, one look at the test rows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from optaware._io import read_jsonl, write_json, write_jsonl
from optaware.errors import InputError
from optaware.models import load_model, peak_memory_bytes
from optaware.records import ComplementaryPromptTuning, FewShot, RunResult, RunSpec
from optaware.store import RunFolder
from optaware.train._types import TrainEvent
from optaware.train.methods.prompt_tuning._arm import Arm
from optaware.train.methods.prompt_tuning._peft import save_prompt
from optaware.train.methods.prompt_tuning._rows import draw
from optaware.train.methods.prompt_tuning._soft import SoftPrompt
from optaware.train.methods.prompt_tuning.proposers import make_proposer

__all__ = ["run"]


def run(
    spec: RunSpec,
    folder: RunFolder,
    *,
    data_dir: Path | None,
    on_event: Callable[[TrainEvent], None],
    should_stop: Callable[[], bool],
) -> RunResult:
    """Tune a soft prompt within the budget, then score the test rows once with it.

    Raises:
        StoppedBySignal: It was told to stop; the same command goes on.
        InputError: Data, model, recording or budget cannot be used.
        BudgetExhausted, EndpointError: The chat model cannot answer any more; the same command goes on.
    """
    method, data = spec.method, spec.data
    if not isinstance(method, ComplementaryPromptTuning) or not isinstance(data, FewShot):
        raise InputError.of(
            "data-kind",
            f"{spec.method.name} on data of kind {spec.data.kind}",
            "complementary-prompt-tuning learns from few-shot rows",
            "Use data of kind few-shot.",
        )
    loaded = load_model(spec.model, device=spec.device)
    rows = draw(data, spec.seed, loaded.tokenizer, spec.schedule.max_length, data_dir)
    write_json(
        folder.resolved,
        {
            "model_source": loaded.source,
            "model_sha256": loaded.sha256,
            "device": str(loaded.device),
            "data_source": rows.source.to_json(),
            "rows": {"train": len(rows.train), "fitness": len(rows.fitness), "test": len(rows.test)},
            "train_ids": [row.id for row in rows.train],
            "fitness_ids": [row.id for row in rows.fitness],
        },
    )
    soft = SoftPrompt(loaded, method.virtual_tokens, [*rows.train, *rows.fitness, *rows.test])
    # Replies are cached by content beside the runs, so a repeated or resumed run asks nothing twice.
    proposer = make_proposer(method, soft, folder.path.parent.parent / "chat-cache")
    arm = Arm(spec, method, folder, soft, rows, proposer, on_event, should_stop)
    prompt = arm.run()
    started = time.perf_counter()
    dev = arm.fitness(prompt)
    projected = arm.fitness(soft.embed(soft.project(prompt)))
    predictions, test = soft.predict(prompt, rows.test, rows.task.loss)
    write_jsonl(folder.predictions, [each.to_json() for each in predictions])
    seconds = time.perf_counter() - started
    if spec.keep_weights:
        save_prompt(prompt, loaded.model, spec.model.name, folder.path / "weights")
    gap = None if dev.loss is None or projected.loss is None else projected.loss - dev.loss
    times = [row["step_s"] for row in read_jsonl(folder.steps)] if folder.steps.exists() else []
    judged = [row["wall_s"] for row in read_jsonl(folder.evals)] if folder.evals.exists() else []
    state = arm.state
    return RunResult(
        run_id=folder.run_id,
        outcome="done" if test.loss is not None and dev.loss is not None else "diverged",
        test=test,
        dev=dev,
        best_step=state.step,
        steps=state.step,
        forwards=state.spent // arm.batch,
        skipped=state.skipped,
        train_s=math.fsum(times) + math.fsum(judged),
        eval_s=seconds,
        step_s_median=statistics.median(times) if times else None,
        peak_memory_bytes=peak_memory_bytes(loaded.model),
        model_source=loaded.source,
        model_sha256=loaded.sha256,
        data_source=rows.source,
        metrics={"accuracy": test.accuracy, "loss": test.loss, "soft-to-text gap": gap, **_diagnostics(arm)},
        detail="dev is the fitness split; forwards are of a batch",
    )


def _diagnostics(arm: Arm) -> dict[str, float | None]:
    rounds = arm.state.rounds

    def mean(key: str) -> float | None:
        values = [float(each[key]) for each in rounds if each[key] is not None]
        return sum(values) / len(values) if values else None

    return {
        "forward examples": float(arm.state.spent),
        "budget": float(arm.ledger.budget),
        "rounds": float(len(rounds)),
        "unique projected texts": mean("unique"),
        "soft-to-text gap at restarts": mean("gap"),
        "proposal diversity": mean("diversity"),
        "unusable proposals": float(sum(each["unusable"] for each in rounds)),
        "restarts": float(sum(each["restarted"] for each in rounds)),
        "rounds without a proposal": float(sum(not each["proposed"] for each in rounds)),
    }
