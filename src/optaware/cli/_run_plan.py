"""What a study would take, as `run --dry-run` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from optaware.cli._options import print_json, print_table

if TYPE_CHECKING:
    from optaware.records import CorpusSpec, RunSpec
    from optaware.store import Store
    from optaware.study import StudyCost, StudyGraph

__all__ = ["show_plan"]

_LISTED = 40


def show_plan(
    graph: StudyGraph, store: Store, cost: StudyCost, tflops: float, to_fetch: Sequence[str], json: bool
) -> None:
    """Print corpora, runs, cost and the models that are to be fetched; the single runs too where they are few."""
    jobs = list(_jobs(graph, store))
    if json:
        print_json({"jobs": jobs, "cost": cost.to_json(), "models_to_fetch": list(to_fetch)})
        return
    if len(jobs) <= _LISTED:
        print_table(
            ["kind", "id", "what", "done"],
            [[job["kind"], job["id"], _what(job), job["done"]] for job in jobs],
        )
        print()
    rows = [
        [
            *(row.model, row.task, row.method, row.runs, row.left, f"{row.forwards:,}", f"{row.tokens / 1e6:,.1f}"),
            *(_hours(row.hours), _gb(row.memory_bytes), row.how),
        ]
        for row in cost.rows
    ]
    columns = ["model", "task", "method", "runs", "left", "forwards", "tokens, M", "hours", "GB a run", "hours are"]
    print_table(columns, rows)
    print(_totals(graph, cost))
    if any(row.how == "assumed" for row in cost.rows):
        print(
            f"Assumed hours: operations at {tflops:g} TFLOP/s (--tflops), and the seconds that processes take to start."
        )
    if to_fetch:
        print(f"Not on this machine, to be fetched from the hub: {', '.join(dict.fromkeys(to_fetch))}.")


def _jobs(graph: StudyGraph, store: Store) -> Iterable[dict[str, Any]]:
    for corpus in graph.corpora:
        yield _job("corpus", corpus, (store.corpus_folder(corpus) / "DONE").exists())
    for run in graph.runs:
        yield _job("run", run, store.run_folder(run).is_done)
    for choice in graph.choices:
        for option in choice.options:
            for run in option.tries:
                yield {**_job("choosing", run, store.run_folder(run).is_done), "point": option.words}


def _job(kind: str, spec: RunSpec | CorpusSpec, done: bool) -> dict[str, Any]:
    from optaware.records import short_id

    return {"kind": kind, "id": short_id(spec), "what": spec.slug, "done": done}


def _what(job: dict[str, Any]) -> str:
    return f"{job['what']} ({job['point']})" if job.get("point") else str(job["what"])


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:,.2f}"


def _gb(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e9:.1f}"


def _totals(graph: StudyGraph, cost: StudyCost) -> str:
    total = cost.to_json()
    lines = [
        f"{total['runs']} runs, {total['left']} left; {cost.corpora} corpora, {cost.corpora_left} left; "
        f"{total['forwards']:,} forward passes of a batch and {total['tokens'] / 1e6:,.1f} million tokens left."
    ]
    if graph.choices:
        points = sum(len(choice.options) for choice in graph.choices)
        grids = f"{len(graph.choices)} grid{'' if len(graph.choices) == 1 else 's'}"
        lines.append(f"{grids} with {points} points; the runs that choose never see a test row.")
        if (prune := graph.study.selection.prune) is not None:
            counted = "only what is then left is counted" if prune.rule == "halving" else "all are counted to their end"
            lines.append(f"Hopeless points are stopped early ({prune.rule}); {counted}.")
    split = sorted({(run.schedule.batch_size, run.schedule.accumulation) for run in _all(graph) if run.schedule.steps})
    if graph.study.memory is not None:
        shown = ", ".join(f"{size} in {parts} parts" if parts > 1 else str(size) for size, parts in split)
        lines.append(f"Batches within {graph.study.memory.limit_gb:g} GB a run: {shown} (as many tokens either way).")
    lines += [f"Left out, memory: {what} ({why})." for what, why in graph.left_out]
    hours, workers = cost.hours, graph.study.workers
    if hours is None:
        lines.append("Hours cannot be told: the size of a model is unknown and no run of it is finished.")
    else:
        lines.append(
            f"About {hours:,.2f} device hours"
            + (f", {hours / workers:,.2f} with {workers} at once." if workers > 1 else ".")
        )
    chat = f"Rewriting and judging: {cost.chat_calls:,} calls, {cost.chat_tokens / 1e6:,.2f} million tokens"
    price = "no price in the study file" if cost.chat_usd is None else f"{cost.chat_usd:,.2f} USD"
    lines.append(f"{chat}, {price}." if cost.chat_calls else "No rewriting is left.")
    if cost.usd_per_hour is not None and cost.usd is not None:
        lines.append(f"Money: {cost.usd:,.2f} USD at {cost.usd_per_hour:g} USD an hour.")
    elif cost.usd_per_hour is None:
        lines.append("Money for devices: give --usd-per-hour.")
    if graph.study.budget_gpu_hours is not None:
        lines.append(f"The study may take {graph.study.budget_gpu_hours:g} device hours (budget_gpu_hours).")
    return "\n".join(lines)


def _all(graph: StudyGraph) -> list[RunSpec]:
    return [*graph.runs, *(run for choice in graph.choices for run in choice.tries)]
