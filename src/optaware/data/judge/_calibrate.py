"""Calibrating a judge: refine it on some labelled pairs, then measure it, once, on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from optaware._io import write_json, write_jsonl, write_text
from optaware.data.judge._attack import attack
from optaware.data.judge._bench import Bench, Counting
from optaware.data.judge._measure import LabelledPair, measure, overall, pairs_needed, settled
from optaware.data.judge._refine import Refining, refine
from optaware.data.judge._render import render_calibration
from optaware.data.judge._split import split_pairs
from optaware.data.review import agreed_labels, read_labels, read_pairs
from optaware.errors import InputError
from optaware.llm import ChatModel
from optaware.records import (
    ChatModelRef,
    Example,
    JudgeCalibration,
    JudgeTemplate,
    PairLabel,
    PresentationOrder,
    ReviewPair,
    VoteRule,
    fingerprint,
)
from optaware.tasks import Task

__all__ = ["calibrate", "labelled_pairs", "packaged_labels", "write_calibration"]

_LABELS = Path(__file__).parents[1] / "labels"

_BOTH: tuple[PresentationOrder, ...] = ("original-first", "rewrite-first")


def packaged_labels(task: str) -> Path:
    """The project's own labels for a built-in task (`data/labels`, see its README): row ids and rewrites, no originals.

    Raises:
        InputError: There are none for this task.
    """
    path = _LABELS / f"{task}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in _LABELS.glob("*.jsonl")))
        raise InputError.of(
            "labels-missing",
            f"task {task}",
            "the package has labelled pairs for built-in tasks only",
            f"Give a labels file, or choose one of: {known}.",
        )
    return path


def labelled_pairs(
    paths: Sequence[Path],
    task: Task,
    find: Callable[[str, str], Example],
    *,
    labeller: str | None = None,
) -> tuple[list[LabelledPair], list[str], list[str]]:
    """The pairs of labels files, with their rows.

    Args:
        paths: Labels files, as `optaware data review` writes them.
        task: The task; pairs of other tasks are left out.
        find: Finds a row by id (`optaware.data.review.RowFinder`).
        labeller: Only this labeller counts; None: all.

    Returns:
        Pairs; ids of the pairs left out because labellers differ; labellers.

    Raises:
        InputError: Malformed files, rows that are not there, originals that have changed, or no pair of the task.
    """
    labels: list[PairLabel] = [label for path in paths for label in read_labels(path)]
    labels = [label for label in labels if label.task in (None, task.name)]
    agreed, differ = agreed_labels(labels, labeller)
    pairs: dict[str, ReviewPair] = {}
    for path in paths:
        rows = [label for label in read_labels(path) if label.task in (None, task.name)]
        if rows:
            pairs |= {pair.id: pair for pair in read_pairs(path, task, find=find, of_task=True)}
    found = [
        LabelledPair(pairs[label.pair_id], find(str(label.example_id), "labels"), label)
        for label in agreed
        if label.pair_id in pairs and label.example_id is not None
    ]
    if not found:
        raise InputError.of(
            "pairs-missing",
            ", ".join(map(str, paths)),
            f"they hold no labelled pair of a row of task {task.name}",
            "Label some with `optaware data review`.",
        )
    return found, differ, sorted({label.labeller for label in agreed})


def calibrate(
    task: Task,
    pairs: Sequence[LabelledPair],
    models: Sequence[ChatModel],
    refs: Sequence[ChatModelRef],
    *,
    how: Refining | None = None,
    both_orders: bool = False,
    rule: VoteRule = "all",
    tuning_share: float = 1 / 3,
    seed: int = 0,
    attacks: bool = False,
    left_out: Sequence[str] = (),
    labellers: Sequence[str] = (),
    on_progress: Callable[[int, int, str], None] | None = None,
) -> JudgeCalibration:
    """Refine a task's judge on some of the labelled pairs and measure it on the others.

    The packaged judge (`start`) and the refined one (`final`) are each measured once, on pairs that refining never saw;
    so the interval of the final accuracy means what it says. Ballots in both orders and of all models are taken on the
    measured pairs in any case, and `options` shows what each way of counting them would have given; the way that the
    judge itself counts is the one asked for here.

    Differs from the paper: there the pairs that say when to stop are the pairs that are reported, so its 90 % is what
    was selected for; here they are different pairs. The judge's two questions are asked apart.

    Args:
        task: The task.
        pairs: Labelled pairs (OAT-Rephrase: 40).
        models: Judges; more than one vote.
        refs: Their settings.
        how: Limits of the refining.
        both_orders: The judge reads each pair in both orders, and both ballots count.
        rule: How ballots are counted.
        tuning_share: Share of the rows that it is refined on; 0: it is measured as it is.
        seed: Splits the pairs.
        attacks: Also measure it on rewrites with orders to the judge in them.
        left_out: Ids of pairs that were left out, for the record.
        labellers: Who labelled, for the record.
        on_progress: Called as `(done, total, what)`.

    Raises:
        InputError: Too few pairs.
        EndpointError, BudgetExhausted: Calls failed; when replies are kept, the same call again asks for the rest.
    """
    began, how = time.monotonic(), how or Refining()
    tuning, measured = split_pairs(pairs, tuning_share, seed)
    bench = Bench(task, models, refs, on_progress)
    orders: tuple[PresentationOrder, ...] = _BOTH if both_orders else _BOTH[:1]
    counting: Counting = (tuple(range(len(models))), orders, rule)
    votes = {"orders": orders, "members": tuple(refs[1:]), "rule": rule}
    packaged = JudgeTemplate.model_validate({"task": task.name, "base": "plain", **votes})
    guarded = packaged.model_copy(update={"base": "guarded"})
    refined = refine(bench, _better(bench, (packaged, guarded), tuning, counting), tuning, counting, how)
    final = refined.judge
    bench.ballots(packaged, measured, "measuring the packaged judge")
    start = measure("packaged judge", measured, bench.verdicts(packaged, counting), _calls(counting))
    every = final.model_copy(update={"orders": _BOTH})
    bench.ballots(every, measured, "measuring the judge")
    done = measure("judge", measured, bench.verdicts(final, counting), _calls(counting))
    options = tuple(
        measure(name, measured, bench.verdicts(final, option), _calls(option))
        for name, option in _options(len(models)).items()
    )
    found = attack(bench, final, measured, counting) if attacks else ()
    return JudgeCalibration(
        task=task.name,
        judges=tuple(f"{ref.provider}:{ref.model}" for ref in refs),
        pairs=len(pairs),
        tuning=len(tuning),
        measured=len(measured),
        left_out=tuple(left_out),
        labellers=tuple(labellers),
        tuning_share=tuning_share,
        seed=seed,
        target=how.target,
        start_id=fingerprint(packaged),
        template_id=fingerprint(final),
        template=final,
        rounds=refined.rounds,
        ended=refined.ended,
        start=start,
        final=done,
        options=options,
        attacks=found,
        reached=done.accuracy.estimate >= how.target,
        shown=settled(done.accuracy, how.target),
        pairs_needed=pairs_needed(done.accuracy.estimate, how.target),
        calls=bench.calls,
        cached_calls=bench.cached,
        prompt_tokens=bench.usage.prompt_tokens,
        completion_tokens=bench.usage.completion_tokens,
        cost_usd=bench.usage.cost_usd,
        wall_s=round(time.monotonic() - began, 1),
    )


def _better(
    bench: Bench, versions: Sequence[JudgeTemplate], pairs: Sequence[LabelledPair], counting: Counting
) -> JudgeTemplate:
    """Of versions the one that is right most often on the tuning pairs; the first of equals."""
    right = []
    for version in versions if pairs else ():
        bench.ballots(version, pairs, "tuning, where to begin")
        said = bench.verdicts(version, counting)
        right.append(sum((overall(said(pair)) or "not the same") == pair.answer for pair in pairs))
    return versions[right.index(max(right))] if right else versions[0]


def _calls(counting: Counting) -> float:
    return 2.0 * len(counting[0]) * len(counting[1])


def _options(members: int) -> Mapping[str, Counting]:
    """All ways of counting that the ballots allow, by name."""
    found: dict[str, Counting] = {}
    for member in range(members):
        who = f"judge {member + 1}, " if members > 1 else ""
        found[f"{who}original first"] = ((member,), _BOTH[:1], "all")
        found[f"{who}rewrite first"] = ((member,), _BOTH[1:], "all")
        found[f"{who}both orders must agree"] = ((member,), _BOTH, "all")
    if members > 1:
        everybody = tuple(range(members))
        found["all judges must agree, original first"] = (everybody, _BOTH[:1], "all")
        found["majority of judges, original first"] = (everybody, _BOTH[:1], "majority")
        found["all ballots must agree"] = (everybody, _BOTH, "all")
        found["majority of all ballots"] = (everybody, _BOTH, "majority")
    return found


def write_calibration(folder: Path, calibration: JudgeCalibration, pairs: Sequence[LabelledPair]) -> None:
    """Write a calibration's folder: `judge.json`, `calibration.json`, `pairs.jsonl`, `report.md`, and DONE last."""
    tuning = {pair.pair.id for pair in split_pairs(pairs, calibration.tuning_share, calibration.seed)[0]}
    write_json(folder / "judge.json", calibration.template.to_json())
    write_json(folder / "calibration.json", calibration.to_json())
    rows: list[dict[str, object]] = [
        {
            "pair_id": pair.pair.id,
            "example_id": pair.example.id,
            "answer": pair.answer,
            "part": "tuning" if pair.pair.id in tuning else "measured",
        }
        for pair in pairs
    ]
    write_jsonl(folder / "pairs.jsonl", rows)
    write_text(folder / "report.md", render_calibration(calibration))
    write_json(folder / "DONE", {"template": calibration.template_id})
