"""What can go wrong, told as: what was given, why it cannot work, what to do next.

Every error that optaware raises on purpose is an `OptawareError` and also inherits the standard-library exception
that a caller would expect. `code` is stable and may be matched by programs; `docs/errors.md` lists the codes.
Input errors are collected in a `ProblemList` and raised together, so that one run shows all that is wrong with a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = [
    "AssetError",
    "BudgetExhausted",
    "DivergedError",
    "EndpointError",
    "InputError",
    "IntegrityError",
    "MemoryUsedUp",
    "ModelError",
    "OptawareError",
    "Problem",
    "ProblemList",
    "RankError",
    "StoppedBySignal",
    "StorageError",
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave.

    Attributes:
        code: Stable identifier, lower-case words joined by hyphens (`"label-out-of-range"`).
        given: What was given, quoted.
        why: Why it cannot work.
        next: What to do about it.
        where: The place: `file`, `file:line` or `file: field.path`; empty when there is no file.
    """

    code: str
    given: str
    why: str
    next: str
    where: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.given}: {self.why}. {self.next} [{self.code}]"


class OptawareError(Exception):
    """Base of all errors raised on purpose; holds one or more `Problem`s."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, code: str, given: str, why: str, next: str, where: str = "") -> OptawareError:
        """Build the error from the parts of its only problem."""
        return cls(Problem(code, given, why, next, where))

    @property
    def code(self) -> str:
        """Code of the first problem."""
        return self.problems[0].code if self.problems else "unknown"


class InputError(OptawareError, ValueError):
    """The user's files, options or names cannot be used as they are."""

    exit_code = 2


class AssetError(OptawareError, OSError):
    """A packaged model or data set cannot be brought, checked or converted."""


class IntegrityError(OptawareError, OSError):
    """Bytes on disk are not what their checksum or record says."""


class StorageError(OptawareError, OSError):
    """Something could not be written or read: full disk, missing rights, locked folder."""


class ModelError(OptawareError, RuntimeError):
    """A model or tokenizer loads but cannot do what is asked of it."""


class EndpointError(OptawareError, ConnectionError):
    """A chat endpoint cannot be reached, refuses, or answers what cannot be used."""


class RankError(OptawareError, ConnectionError):
    """Another process of a run on several processes has ended or does not answer."""


class DivergedError(OptawareError, ArithmeticError):
    """Training produced no usable loss for a stated number of steps."""


class MemoryUsedUp(OptawareError, MemoryError):
    """A device has no memory left, and nothing could be made smaller; beside fewer other programs it may go."""

    exit_code = 4


class BudgetExhausted(OptawareError, RuntimeError):
    """A stated budget is spent; the same command resumes once it is raised."""

    exit_code = 3


class StoppedBySignal(OptawareError, InterruptedError):
    """SIGINT or SIGTERM arrived; what was finished is kept and the same command resumes."""

    exit_code = 3


@dataclass
class ProblemList:
    """Collects the problems of one input so that they are shown together.

    Use `add` while reading on, then `raise_if_any`; or let `collecting` gather the `InputError`s of a block.
    """

    where: str = ""
    limit: int = 200
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, given: str, why: str, next: str, where: str | None = None) -> None:
        """Note one problem; `where` defaults to the list's own place."""
        self.problems.append(Problem(code, given, why, next, self.where if where is None else where))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Turn an `InputError` raised inside the block into collected problems."""
        try:
            yield
        except InputError as error:
            self.problems.extend(error.problems)

    def raise_if_any(self) -> None:
        """Raise one `InputError` with everything collected (the first `limit`, and a count of the rest)."""
        if not self.problems:
            return
        shown = self.problems[: self.limit]
        if left := len(self.problems) - len(shown):
            shown = [
                *shown,
                Problem("more-problems", f"{left} more problems", "only the first are listed", "Mend these first."),
            ]
        raise InputError(*shown)
