"""Several processes train one model and exchange scalars only.

Every process holds the whole model. Between them they evaluate the losses of a step, tell each other the numbers (eight
bytes a loss) and then all make the same update from the same seeds and coefficients. So weights never travel, not even
at the start, and stay the same to the bit.

- **Queries shared** (`SharedEstimator`): all processes see the same batch, each makes a share of the forward passes
  that the estimator asks for. A pass holds the same points whoever makes it, so the numbers are those of one process
  and the weights are too, however many processes there are; a run may be resumed with another number of them.
- **Data shared** (`ZerothOrder(share="data")`, the Trainer): each process evaluates all points on rows of its own.
  Losses are added by `math.fsum`, which rounds once whatever the order: n processes with one part of the batch each and
  one process that accumulates the same n parts come to the same bits. (One process that puts the same rows through the
  model as a single part does not: the forward pass itself rounds differently.)

Both hold among processors of one kind, where the same forward pass gives the same bits.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from optaware.errors import InputError, Problem, RankError
from optaware.train._asked import answered, asked
from optaware.train._digest import text_digest, weights_digest
from optaware.train._types import Learner, Probe
from optaware.train.estimators._points import Point, batches_of, losses_of
from optaware.train.zeroth import ZerothOrderLearner

if TYPE_CHECKING:
    from optaware.train.directions import Direction
    from optaware.train.estimators import Estimator

__all__ = ["Ranks", "SharedEstimator", "launched", "share_queries", "shared_losses"]


def launched() -> bool:
    """Whether this process was started as one of several (by torchrun, `accelerate launch` or the like)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


class Ranks:
    """The processes that train together, and how they exchange numbers.

    Without an initialised process group there is one rank and nothing is exchanged. The group of whoever launched the
    processes (torchrun, accelerate) is used as it is; numbers travel as float64 and int64 tensors, on the CPU with
    gloo and on the current GPU with NCCL.

    Args:
        group: A `torch.distributed` process group; None: the default one.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        alone = not (dist.is_available() and dist.is_initialized())
        self.size: int = 1 if alone else dist.get_world_size(group)
        self.rank: int = 0 if alone else dist.get_rank(group)
        nccl = not alone and "nccl" in str(dist.get_backend(group))
        self._device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    @classmethod
    @contextmanager
    def joined(cls, *, backend: str = "gloo", timeout_s: float = 600.0) -> Iterator[Ranks]:
        """Join the process group that the environment describes (as torchrun sets it), and leave it at the end.

        gloo is enough on GPUs too: only a few numbers a step travel, and where a process is lost it raises an error
        where NCCL would end the process. Where a group is there already, it is used and left alone.

        Args:
            backend: Of `torch.distributed`.
            timeout_s: How long a rank waits for the others.

        Raises:
            RankError: The others did not come in time.
        """
        if not launched() or dist.is_initialized():
            yield cls()
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        with _told("join the other processes"):
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        try:
            yield cls()
        finally:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes files and speaks."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> range:
        """Which of `count` things are this rank's (or another's): a block, the blocks of all ranks in order."""
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The float64 values of every rank, by rank; ranks may give different numbers of them.

        Raises:
            RankError: A process is gone or does not answer.
        """
        if self.size == 1:
            return [list(values)]
        with _told("exchange losses"):
            counts = [int(each.item()) for each in self._all(torch.tensor([len(values)], dtype=torch.int64))]
            if not any(counts):
                return [[] for _ in counts]
            row = torch.zeros(max(counts), dtype=torch.float64)
            row[: len(values)] = torch.tensor(values, dtype=torch.float64)
            rows = self._all(row)
        return [row[:count].tolist() for row, count in zip(rows, counts, strict=True)]

    def joint(self, values: Sequence[float], counts: Sequence[int]) -> list[float]:
        """The values of all ranks in order, where every rank knows already how many each has made.

        Raises:
            RankError: A process is gone or does not answer.
        """
        if self.size == 1:
            return list(values)
        row = torch.zeros(max(counts), dtype=torch.float64)
        row[: len(values)] = torch.tensor(values, dtype=torch.float64)
        with _told("exchange losses"):
            rows = self._all(row)
        return [value for row, count in zip(rows, counts, strict=True) for value in row[:count].tolist()]

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        return flag if self.size == 1 else any(value[0] for value in self.gather([float(flag)]))

    def wait(self) -> None:
        """Go on when all ranks have come here.

        Raises:
            RankError: A process is gone or does not answer.
        """
        self.gather([])

    def check_same(self, what: Mapping[str, str]) -> None:
        """Refuse to start where ranks hold different things.

        Args:
            what: Name of the thing (`"weights"`, `"seed"`) -> its description or digest.

        Raises:
            InputError: Something differs, with the ranks that hold something else than rank 0.
        """
        if self.size == 1:
            return
        mine = torch.tensor([text_digest(value) for value in what.values()], dtype=torch.int64)
        with _told("compare what they hold"):
            rows = self._all(mine)
        problems = []
        for at, (name, value) in enumerate(what.items()):
            others = [rank for rank, row in enumerate(rows) if row[at] != rows[0][at]]
            if others:
                shown = f"{name} (here, at rank {self.rank}: {value[:80]})"
                problems.append(
                    Problem(
                        "ranks-differ",
                        shown,
                        f"rank {', '.join(map(str, others))} holds another than rank 0, so the weights would part",
                        "Start all processes with the same command, files and versions.",
                    )
                )
        if problems:
            raise InputError(*problems)

    def _all(self, values: Tensor) -> list[Tensor]:
        values = values.to(self._device)
        rows = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(rows, values, group=self.group)
        return [row.cpu() for row in rows]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what a backend says of a lost process into an error that says what it means."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, RankError):
            raise
        raise RankError(
            Problem(
                "rank-lost",
                str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
                f"this process could not {what}: another one has ended or did not answer in time",
                "Look at the first error of the other processes; the same command resumes from the last checkpoint.",
            )
        ) from error


def shared_losses(
    ranks: Ranks, direction: Direction, loss: Callable[[], float], points: Sequence[Point]
) -> list[float]:
    """Loss at each point, every rank evaluating a share of the forward passes that one process would make.

    Passes are dealt out whole, in blocks in the estimator's order: a pass has the same shapes whoever makes it, so the
    losses are those of one process to the bit, and both sides of a direction mostly fall to one rank, which draws z
    once.

    Raises:
        RankError: A process is gone or does not answer.
    """
    passes = batches_of(direction, loss, points)
    shares = [ranks.share(len(passes), rank) for rank in range(ranks.size)]
    counts = [sum(len(passes[at]) for at in share) for share in shares]
    if not all(counts):
        _tell_of_idle(ranks.size, len(passes))
    mine = [passes[at] for at in shares[ranks.rank]]
    return ranks.joint(losses_of(direction, loss, mine), counts)


def _tell_of_idle(processes: int, passes: int) -> None:
    warnings.warn(
        f"{processes} processes share {passes} forward pass{'es' if passes > 1 else ''} a step, so some have nothing "
        'to do: ask for more queries, or for fewer points in one pass (batching: "pairs" or "off")',
        stacklevel=3,
    )


class SharedEstimator:
    """An estimator whose losses are evaluated by all ranks together, each at its share of the points.

    The batch is the same for all. Each rank then knows all losses; see `shared_losses`.

    Args:
        inner: What is estimated.
        ranks: Who takes part.
    """

    def __init__(self, inner: Estimator, ranks: Ranks) -> None:
        self.inner = inner
        self.ranks = ranks

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate this rank's share, exchange, and let the estimator make its probe; see `Estimator.estimate`."""
        losses = shared_losses(self.ranks, direction, loss, asked(self.inner, seeds, eps))
        return answered(self.inner, seeds, losses, eps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def share_queries(learner: Learner, what: Mapping[str, str]) -> None:
    """Let a run's learner share its queries with the processes that were launched with this one, if there are any.

    To be called when the learner holds the state that it starts from.

    Args:
        learner: The run's learner.
        what: What all processes must agree in beside weights and state; see `Ranks.check_same`.

    Raises:
        InputError: The learner has no queries to share, or the processes hold different things.
        RankError: A process is gone or does not answer.
    """
    ranks = Ranks()
    if ranks.size == 1:
        return
    if not isinstance(learner, ZerothOrderLearner):
        raise InputError(
            Problem(
                "method-not-shared",
                f"{ranks.size} processes for a method that is not composed of direction, estimator and update",
                "only losses are exchanged, and this method needs more",
                "Start it as one process.",
            )
        )
    learner.estimator = SharedEstimator(learner.estimator, ranks)
    state = {f"state {name}": each for name, each in learner.state().items()}
    ranks.check_same({**what, "weights": weights_digest({**learner.weights(), **state})})
