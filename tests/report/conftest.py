"""A made-up study on disk: 2 tasks × 3 variants × 2 methods × 3 seeds, zero-shot, one failed and one diverged run.

All numbers are drawn from fixed seeds; no model was trained. `render_fixture.py` renders it for people to look at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from optaware._io import dumps, text_sha256
from optaware.records import (
    AutomaticCheck,
    ChatModelRef,
    CorpusSpec,
    DataRef,
    DatasetCard,
    DataSource,
    Decision,
    Energy,
    FOLoRA,
    MethodArm,
    MeZO,
    ModelRef,
    Prediction,
    Protocol,
    RunResult,
    RunSpec,
    RunStatus,
    Schedule,
    Score,
    StudySpec,
    VariantSpec,
    ZeroShot,
    short_id,
)


def write_text(path, text):
    # Not optaware's own writers: their fsyncs are most of the time that these tests would take.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def write_json(path, value):
    write_text(path, dumps(value))


def write_jsonl(path, rows):
    write_text(path, "".join(dumps(row) + "\n" for row in rows))


SCRIPT = "<script>alert('x')</script> & \"quotes\" | pipes | `ticks` ${dollar} {{ 7*7 }}"
SOURCE = DataSource(kind="data-dir", location="sst2/train.jsonl", sha256={"train": "ab" * 32})
ENVIRONMENT = {
    "optaware": "0.1.0",
    "commit": "0123456789ab",
    "python": "3.11.9",
    "platform": "Linux 6.1 x86_64",
    "cpu": "Example CPU @ 2.0 GHz",
    "cores": 2,
    "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0", "numpy": "2.4.6"},
}
TEST_ROWS = {"sst2": 400, "copa": 100}
OPTIONS = {"sst2": 2, "copa": 2}
BASE = {"sst2": 0.35, "copa": 0.45}
GAIN = {"original": 0.55, "paraphrase": 0.60, "oat": 0.95}


def study_spec(*, seeds=(0, 1, 2), tasks=("sst2", "copa"), variants=("original", "paraphrase", "oat"), methods=2):
    arms = (
        MethodArm(label="MeZO low-rank", config=MeZO(direction="low-rank", lr=2e-5)),
        MethodArm(config=FOLoRA(), schedule=Schedule(steps=200, eval_every=50)),
    )
    return StudySpec(
        name="does-rewriting-help",
        description="Does rewriting the training data for the optimizer help, beyond what plain paraphrasing does?",
        models=(ModelRef(name="HuggingFaceTB/SmolLM2-135M-Instruct"),),
        tasks=tasks,
        protocol=Protocol(name="free", train=128, dev=144, test=400),
        variants=tuple(VariantSpec(name=name, template=None if name == "original" else name) for name in variants),
        methods=arms[:methods],
        schedule=Schedule(steps=1000, eval_every=100),
        seeds=seeds,
        rewriter=ChatModelRef(model="qwen2.5-coder-1.5b-instruct"),
    )


@dataclass
class OnDisk:
    root: Path
    study: StudySpec
    runs: list[tuple[Path, RunSpec]] = field(default_factory=list)
    corpora: list[Path] = field(default_factory=list)


def corpus_spec(study, task, variant):
    return CorpusSpec(
        task=task,
        protocol=study.protocol,
        variant=variant,
        rewriter=study.rewriter,
        judge=study.rewriter,
        rewriter_prompt_id=text_sha256(variant),
        judge_prompt_ids={"meaning": "cd" * 32, "role": "ef" * 32},
        rows_sha256="12" * 32,
    )


_STOCK = (
    *("the", "film", "is", "a", "slow", "but", "rather", "moving", "look", "at", "people", "who", "never", "quite"),
    *("say", "what", "they", "mean", "to", "and", "the", "film", "is", "never", "dull", "for", "all", "its", "length"),
)


def _sentence(rng, words):
    start = int(rng.integers(0, len(_STOCK) - words))
    return " ".join(_STOCK[start : start + words]) + "."


def write_corpus(disk, task, variant, *, rows=128, rejected=9, failed=2):
    spec = corpus_spec(disk.study, task, variant)
    folder = disk.root / "corpora" / f"{short_id(spec)}-{spec.slug}"
    rng = np.random.default_rng(len(disk.corpora))
    decisions = []
    for row in range(rows):
        original = _sentence(rng, int(rng.integers(5, 16)))
        rewritten = (
            original.replace("the film is", "this film is really")
            .replace("rather", "quite")
            .replace("never", "do not ever")
        )
        rewritten = rewritten if rewritten != original else f"Overall, {original}"
        outcome, reason, checks = "accepted", "accepted", ()
        if row < rejected:
            outcome, reason = "rejected", "judge:meaning"
            checks = (AutomaticCheck(name="negation", passed=False, blocking=False, detail="“never” is gone"),)
        elif row < rejected + failed:
            outcome, reason, rewritten = "failed", "reply:no-text", None
        if row == 0:
            original, rewritten, reason = (
                f"A {SCRIPT} sentence.",
                f"Another {SCRIPT} line!",
                f"prompt repeated {SCRIPT}",
            )
        decisions.append(
            Decision(
                example_id=f"{task}/train/{row}",
                outcome=outcome,
                reason=reason,
                original=original,
                rewritten=rewritten,
                checks=checks,
                attempts=2 if row == 3 else 1,
            )
        )
    accepted = rows - rejected - failed
    reasons = {"accepted": accepted, "judge:meaning": rejected, "reply:no-text": failed}
    card = DatasetCard(
        corpus_id=short_id(spec),
        task=task,
        variant=variant,
        rows=rows,
        accepted=accepted,
        rejected=rejected,
        failed=failed,
        identical=3,
        reasons={reason: count for reason, count in reasons.items() if count},
        rewriter=spec.rewriter.model,
        judge=spec.judge.model,
        rewriter_prompt_id=spec.rewriter_prompt_id,
        judge_prompt_ids=spec.judge_prompt_ids,
        words_before=10.4,
        words_after=11.9,
        calls=rows * 3,
        cached_calls=40,
        prompt_tokens=61_250,
        completion_tokens=4_312,
        cost_usd=None if variant == "paraphrase" else 0.37,
        wall_s=612.0,
        source=SOURCE,
        licence="CC0",
    )
    write_json(folder / "spec.json", spec.to_json())
    write_json(folder / "card.json", card.to_json())
    write_jsonl(folder / "decisions.jsonl", (decision.to_json() for decision in decisions))
    write_text(folder / "DONE", "")
    disk.corpora.append(folder)
    return spec


def _predictions(task, variant, method, seed):
    rows, options = TEST_ROWS[task], OPTIONS[task]
    hard = np.random.default_rng(99).normal(0, 1.1, rows)
    labels = np.random.default_rng(98).random(rows) < 0.46
    seed_shift = np.random.default_rng(seed + 7).normal(0, 0.06)
    rng = np.random.default_rng(int(text_sha256(f"{task}{variant}{method}{seed}")[:8], 16))
    gain = 0.0 if method == "zero-shot" else GAIN[variant] * (0.2 if task == "copa" else 1.0)
    right = BASE[task] + gain + hard + seed_shift + rng.normal(0, 0.35, rows) > 0
    found = []
    for row in range(rows):
        label = int(labels[row])
        predicted = label if right[row] else (label + 1) % options
        scores = [-2.0] * options
        scores[predicted] = -1.0
        found.append(
            Prediction(example_id=f"{task}/test/{row}", label=label, predicted=predicted, scores=tuple(scores))
        )
    return found


def _training_rows(spec, *, diverged):
    rng = np.random.default_rng(spec.seed * 31 + len(spec.data.variant))
    steps = spec.schedule.steps
    forwards = 2 if spec.method.name == "mezo" else 3
    level = {"original": 0.42, "paraphrase": 0.41, "oat": 0.36}[spec.data.variant]
    rows, evals = [], []
    last = steps if not diverged else steps // 3
    for step in range(1, last + 1):
        done = step / steps
        mean = level + (0.69 - level) * math.exp(-4 * done)
        loss = mean + float(rng.normal(0, 0.08))
        if diverged and step > last - steps // 20:
            loss = 0.7 + (step - last + steps // 20) * 0.02
        rows.append(
            {
                "step": step,
                "loss": round(loss, 5),
                "coefficients": [],
                "lr": 2e-5,
                "examples": 16,
                "forwards": forwards * step,
                "skipped": False,
                "step_s": 0.31,
            }
        )
        if step % spec.schedule.eval_every == 0:
            noise = float(rng.normal(0, 0.006))
            evals.append(
                {
                    "step": step,
                    "split": "dev",
                    "loss": round(mean + 0.03 + noise, 5),
                    "accuracy": round(0.52 + 0.25 * (1 - math.exp(-3 * done)) + noise, 4),
                    "n": 144,
                    "best": False,
                    "forwards": forwards * step,
                    "wall_s": 1.0,
                }
            )
    return rows, evals


def write_run(disk, spec, *, state="done"):
    folder = disk.root / "runs" / f"{short_id(spec)}-{spec.slug}"
    disk.runs.append((folder, spec))
    write_json(folder / "spec.json", spec.to_json())
    if state == "missing":
        return folder
    write_json(folder / "env.json", ENVIRONMENT)
    if state == "failed":
        trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nMemoryError: cannot allocate 3.2 GiB'
        write_json(folder / "status.json", RunStatus(state="failed", step=7, steps=1000, detail=trace).to_json())
        return folder
    trained = spec.method.name != "zero-shot"
    if trained:
        rows, evals = _training_rows(spec, diverged=state == "diverged")
        write_jsonl(folder / "steps.jsonl", rows)
        write_jsonl(folder / "eval.jsonl", evals)
    found = _predictions(spec.data.task, spec.data.variant, spec.method.name, spec.seed)
    write_jsonl(folder / "predictions.jsonl", (prediction.to_json() for prediction in found))
    accuracy = sum(prediction.correct for prediction in found) / len(found)
    first_order = spec.method.name.startswith("fo-")
    result = RunResult(
        run_id=short_id(spec),
        outcome="diverged" if state == "diverged" else "done",
        test=Score(accuracy=accuracy, loss=0.52, n=len(found)),
        dev=Score(accuracy=0.74, loss=0.51, n=144),
        best_step=spec.schedule.steps - 100 if trained else 0,
        steps=(spec.schedule.steps if state == "done" else spec.schedule.steps // 3) if trained else 0,
        forwards=(spec.schedule.steps * (3 if first_order else 2)) if trained else 0,
        skipped=0,
        train_s=(640.0 if first_order else 412.5) if trained else 0.0,
        eval_s=31.0,
        step_s_median=(0.62 if first_order else 0.31) if trained else None,
        peak_memory_bytes=(2_900 if first_order else 870) << 20,
        energy=Energy(joules=14_400.0, source="nvml")
        if first_order
        else Energy(why="other processes used the GPU too"),
        model_source="hub:HuggingFaceTB/SmolLM2-135M-Instruct",
        model_sha256="34" * 32,
        data_source=SOURCE,
        detail="25 steps without a finite loss" if state == "diverged" else "",
    )
    write_json(folder / "result.json", result.to_json())
    write_json(folder / "status.json", RunStatus(state="done", step=result.steps, steps=1000).to_json())
    write_text(folder / "DONE", "")
    return folder


def run_spec(study, task, arm, variant, seed, corpus_id=None):
    return RunSpec(
        model=study.models[0],
        data=DataRef(task=task, protocol=study.protocol, variant=variant, corpus_id=corpus_id),
        method=arm.config,
        schedule=arm.schedule or study.schedule,
        seed=seed,
    )


def write_study(root, *, broken=True, corpora=True, **options):
    """Write the study's runs and corpora under `root`; `broken`: with one failed, one diverged and one missing run."""
    disk = OnDisk(root, study_spec(**options))
    study = disk.study
    for task in study.tasks:
        ids = {"original": None}
        for variant in study.variants:
            if variant.template is None:
                continue
            if corpora:
                poor = {"rejected": 17} if (task, variant.name) == ("copa", "paraphrase") else {}
                ids[variant.name] = short_id(write_corpus(disk, task, variant.name, **poor))
            else:
                ids[variant.name] = short_id(corpus_spec(study, task, variant.name))
        write_run(disk, run_spec(study, task, MethodArm(config=ZeroShot(), schedule=Schedule(steps=0)), "original", 0))
        for arm in study.methods:
            for variant, corpus_id in ids.items():
                for seed in study.seeds:
                    state = "done"
                    if broken and arm.config.name == "mezo" and task == "copa":
                        state = {("oat", 2): "diverged", ("paraphrase", 1): "failed"}.get((variant, seed), "done")
                    write_run(disk, run_spec(study, task, arm, variant, seed, corpus_id), state=state)
    return disk


def build(disk, out, **options):
    from optaware.report import build_report, load_report_corpus, load_report_run

    return build_report(
        disk.study,
        [load_report_run(folder, spec) for folder, spec in disk.runs],
        [load_report_corpus(folder) for folder in disk.corpora],
        out,
        **options,
    )


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


def grid_choices(disk):
    """A grid of four points, two of them stopped early, as a study writes it down."""
    stopped = "stopped after evaluation {} (step {}): successive halving, place {} of {} by dev accuracy, {} went on"
    points = [
        ("lr 1e-05, batch_size 16", "done", 0.744, 0.511, "", 40_000),
        ("lr 5e-06, batch_size 16", "pruned", 0.701, 0.566, stopped.format(6, 6000, 2, 2, 1), 12_000),
        ("lr 1e-06, batch_size 16", "pruned", 0.556, 0.688, stopped.format(2, 2000, 3, 4, 2), 4_000),
        ("lr 1e-06, batch_size 8", "diverged", None, None, "", 4_100),
    ]
    return [
        {
            "model": disk.study.models[0].to_json(),
            "task": disk.study.tasks[0],
            "method": disk.study.methods[0].display,
            "variant": variant,
            "seed": None,
            "chosen": points[0][0],
            "points": [
                {
                    "point": point,
                    "state": state,
                    "dev_accuracy": accuracy,
                    "dev_loss": loss,
                    "reason": reason,
                    "forwards": made,
                    "forwards_asked": 40_000,
                    "runs": [f"{index:012x}"],
                }
                for index, (point, state, accuracy, loss, reason, made) in enumerate(points)
            ],
        }
        for variant in ("original", "oat")
    ]


@pytest.fixture(scope="session")
def report(disk):
    return build(disk, disk.root / "report", choices=grid_choices(disk))


@pytest.fixture
def make():
    """`make.study(root, …)` writes a study, `make.run(disk, spec, state=…)` a run, `make.report(disk, out)` builds.

    `make.choices(disk)` is a grid as a study writes it down.
    """

    class Make:
        study = staticmethod(write_study)
        run = staticmethod(write_run)
        report = staticmethod(build)
        spec = staticmethod(run_spec)
        choices = staticmethod(grid_choices)

    return Make
