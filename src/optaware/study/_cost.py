"""What a study will take, before anything is spent: runs, forward passes, tokens, hours, memory, money."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from optaware.errors import InputError
from optaware.records import RunSpec, ZeroShot
from optaware.store import Store
from optaware.study._chat_cost import chat_cost
from optaware.study._choose import Choice, Chosen, Option, choose
from optaware.study._graph import StudyGraph
from optaware.study._memory import memory_bytes, size_of
from optaware.study._plan_cost import forwards_per_step
from optaware.study._prune import expected_steps
from optaware.study._task_size import TaskSize, task_size

__all__ = ["CostRow", "StudyCost", "check_budget", "cost_of_study"]

_LAYER_S = 0.6e-3
"""Seconds that a block takes at least in one forward pass, however small it is: the host has to start its kernels
(docs/ lab_notes.md: 0.9 ms a block of Llama-3.2-1B on an H100, run eagerly)."""
_START_S = 8.0
"""Seconds until a run's process has imported torch and transformers and opened its folder (docs/lab_notes.md: 5.6 to
7.2 s on two busy cores). Short runs may take longer to start than to train."""


@dataclass(frozen=True)
class CostRow:
    """What the runs of one model, task and method take, all variants and seeds together.

    Attributes:
        model, task, method: Which runs.
        runs: How many, and `left`, how many of them are not done.
        forwards: Forward passes of a batch that are left, training only; a backward pass counts as two.
        tokens: Tokens through the model that are left, training and evaluation.
        hours: Hours of one device that are left; None when neither finished runs nor the model's size tell.
        memory_bytes: Estimate of one run's peak.
        how: Where the hours come from: `measured` (finished runs of the same kind in this store) or `assumed`.
    """

    model: str
    task: str
    method: str
    runs: int
    left: int
    forwards: int
    tokens: int
    hours: float | None
    memory_bytes: int | None
    how: str


@dataclass(frozen=True)
class StudyCost:
    """The whole study's cost.

    Attributes:
        rows: By model, task and method.
        corpora: How many corpora, and `corpora_left`, how many are not done.
        chat_calls, chat_tokens: Calls and tokens of rewriter and judge that are left, if every row is judged twice.
        chat_usd: What they cost; None where a model that is paid for has no price in the study file.
        usd_per_hour: Price of a device that was given, if any.
    """

    rows: tuple[CostRow, ...]
    corpora: int
    corpora_left: int
    chat_calls: int
    chat_tokens: int
    chat_usd: float | None
    usd_per_hour: float | None

    @property
    def hours(self) -> float | None:
        """Device hours that are left; None when any row's are unknown."""
        known = [row.hours for row in self.rows if row.hours is not None]
        return sum(known) if len(known) == len(self.rows) else None

    @property
    def usd(self) -> float | None:
        """Money that is left to be spent; None when a price or the hours are unknown."""
        if self.hours is None or self.usd_per_hour is None or self.chat_usd is None:
            return None
        return self.hours * self.usd_per_hour + self.chat_usd

    def to_json(self) -> dict[str, Any]:
        """All figures and totals."""
        return {
            **asdict(self),
            "runs": sum(row.runs for row in self.rows),
            "left": sum(row.left for row in self.rows),
            "forwards": sum(row.forwards for row in self.rows),
            "tokens": sum(row.tokens for row in self.rows),
            "hours": self.hours,
            "usd": self.usd,
        }


def cost_of_study(
    graph: StudyGraph,
    store: Store,
    *,
    data_dir: Path | None = None,
    tflops: float = 60.0,
    usd_per_hour: float | None = None,
) -> StudyCost:
    """Estimate what is left of a study. Loads no model, calls nobody.

    Tokens are counted from the rows' lengths (4 characters a token, all answer options, the prompt once). Hours come
    from finished runs of the same model and method in this store, by seconds a token; where there are none, from
    `2·parameters·tokens` operations at `tflops`; and each run's process takes seconds to start.

    Args:
        graph: The study.
        store: Where its results lie; what is done there costs nothing.
        data_dir: Folder of task data.
        tflops: Speed that is assumed, in 10¹² operations a second that are really reached.
        usd_per_hour: Price of one device.
    """
    sizes = {name: task_size(graph, name, data_dir) for name in graph.study.tasks}
    groups: dict[tuple[str, str, str], list[tuple[RunSpec, bool]]] = {}
    for run, method, done in _runs(graph, store):
        groups.setdefault((run.model.name, run.rows.task, method), []).append((run, done))
    speed = _measured(graph, store, sizes)
    rows = [_row(key, members, sizes[key[1]], speed, tflops) for key, members in groups.items()]
    left = [spec for spec in graph.corpora if not (store.corpus_folder(spec) / "DONE").exists()]
    calls, tokens, usd = chat_cost(left, sizes)
    return StudyCost(tuple(rows), len(graph.corpora), len(left), calls, tokens, usd, usd_per_hour)


def check_budget(graph: StudyGraph, cost: StudyCost) -> None:
    """Refuse a study whose estimate is above its `budget_gpu_hours`.

    Raises:
        InputError: It is, or the estimate cannot be made.
    """
    limit = graph.study.budget_gpu_hours
    if limit is None or (cost.hours is not None and cost.hours <= limit):
        return
    given = "an unknown number of hours" if cost.hours is None else f"about {cost.hours:.3g} hours"
    raise InputError.of(
        "study-over-budget",
        f"{given}, budget_gpu_hours {limit:g}",
        "what is left of the study takes more than it may",
        "See `--dry-run`; take fewer seeds, tasks or grid points, a smaller scale, or raise budget_gpu_hours.",
    )


def _runs(graph: StudyGraph, store: Store) -> Iterable[tuple[RunSpec, str, bool]]:
    """All runs with the name of their method in tables; of a choice not yet made, the first point stands for its
    finals."""
    labels = {
        (point.config, point.schedule.steps): arm.display
        for arm in graph.study.methods
        for point in arm.points(graph.study.schedule)
    }
    by_config = {config: label for (config, _), label in labels.items()}
    for run in graph.runs:
        label = labels.get((run.method, run.schedule.steps)) or by_config.get(run.method, run.method.name)
        yield run, label, store.run_folder(run).is_done
    for choice in graph.choices:
        chosen = choose(choice, store)
        yield from ((run, choice.method, done) for run, done in _tries(choice, chosen, store))
        option = chosen.option or max(choice.options, key=_work)
        for run in option.finals:
            yield run, choice.method, store.run_folder(run).is_done


def _tries(choice: Choice, chosen: Chosen, store: Store) -> Iterable[tuple[RunSpec, bool]]:
    """The runs that choose, each with the steps that it is expected to make, and whether it has ended."""
    steps: list[int | None] = [None] * len(choice.options)
    if choice.prune is not None:
        steps = [*expected_steps(choice.prune, [option.tries[0].schedule for option in choice.options])]
    for option, expected, (state, _, _) in zip(choice.options, steps, chosen.scores, strict=True):
        for run in option.tries:
            done = state == "pruned" or store.run_folder(run).is_done
            yield (run if expected is None or done else run.model_copy(update={"schedule": _made(run, expected)})), done


def _work(option: Option) -> int:
    return max(run.schedule.steps * run.schedule.batch_size for run in option.finals)


def _forwards(run: RunSpec) -> int:
    if isinstance(run.method, ZeroShot):
        return 0
    return round((forwards_per_step(run.method) or 2) * run.schedule.steps)


def _tokens(run: RunSpec, size: TaskSize) -> int:
    per_row = min(size.tokens_per_row, run.schedule.max_length)
    schedule = run.schedule
    evaluations = 1 if not schedule.steps else ceil(schedule.steps / schedule.eval_every) + 1
    rows = _forwards(run) * schedule.batch_size + evaluations * size.dev + (size.test if run.score_test else 0)
    return round(rows * per_row)


def _measured(graph: StudyGraph, store: Store, sizes: dict[str, TaskSize]) -> dict[tuple[str, str], float]:
    """Seconds a token by model and method name, of runs that are done."""
    found: dict[tuple[str, str], list[float]] = {}
    tries = [run for choice in graph.choices for run in choice.tries]
    for run in [*graph.runs, *tries]:
        folder = store.run_folder(run)
        if folder.is_done:
            result = folder.read_result()
            tokens = _tokens(run.model_copy(update={"schedule": _made(run, result.steps)}), sizes[run.rows.task])
            if tokens:
                seconds = (result.train_s + result.eval_s) / tokens
                found.setdefault((run.model.name, run.method.name), []).append(seconds)
    return {key: median(values) for key, values in found.items()}


def _made(run: RunSpec, steps: int) -> Any:
    return run.schedule.model_copy(update={"steps": steps})


def _row(
    key: tuple[str, str, str],
    members: Sequence[tuple[RunSpec, bool]],
    size: TaskSize,
    speed: dict[tuple[str, str], float],
    tflops: float,
) -> CostRow:
    left = [run for run, done in members if not done]
    first = members[0][0]
    measured = speed.get((first.model.name, first.method.name))
    model = size_of(first.model)
    tokens = sum(_tokens(run, size) for run in left)
    hours: float | None = None
    if measured is not None:
        hours = tokens * measured / 3600
    elif model is not None:
        computing = tokens * 2 * model.parameters / (tflops * 1e12)
        hours = max(computing, sum(_forwards(run) for run in left) * model.layers * _LAYER_S) / 3600
    if hours is not None:
        hours += len(left) * _START_S / 3600
    held = [memory_bytes(run.model, run.method, run.schedule, size.tokens_per_row) for run, _ in members]
    return CostRow(
        *key,
        runs=len(members),
        left=len(left),
        forwards=sum(_forwards(run) for run in left),
        tokens=tokens,
        hours=hours if left else 0.0,
        memory_bytes=max((each for each in held if each is not None), default=None),
        how="measured" if measured is not None else "assumed" if model is not None else "unknown",
    )
