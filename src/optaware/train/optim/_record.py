"""The journal of an optimizer in somebody else's loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from optaware._io import make_folder
from optaware.errors import InputError, Problem, ProblemList
from optaware.records import ZerothOrderConfig
from optaware.train._digest import parameters_digest
from optaware.train._journal import Journal, set_aside
from optaware.train._journal_header import OPTIMIZER, JournalHeader
from optaware.train._journal_records import Mark, Rates
from optaware.train._platform import platform_of

__all__ = ["RecordOfSteps", "check_journal", "header_of"]

_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_MOVED = Mark("moved")


def check_journal(config: ZerothOrderConfig, journal: Path | str | None, *, resume: bool) -> None:
    """Refuse what no journal can be kept of, or resumed from.

    Raises:
        InputError: Perturbations in place, whose probes leave roundings behind that a replay does not make; `resume`
            without a journal.
    """
    problems = ProblemList("ZerothOrder")
    if resume and journal is None:
        problems.add("journal-missing", "resume=True", "there is no journal to resume from", "Give journal=PATH.")
    if journal is not None and config.apply == "in-place":
        why = "each probe leaves its rounding in the weights, once for every part of a batch, which no journal tells"
        problems.add("journal-in-place", 'apply: "in-place"', why, 'Use apply: "forward", or leave the journal out.')
    problems.raise_if_any()


def header_of(
    model: nn.Module, config: ZerothOrderConfig, names: Sequence[Sequence[str]], seed: int, steps: int | None
) -> JournalHeader:
    """The head of an optimizer's journal, but for the digest of the base weights.

    Args:
        model: The model.
        config: The method.
        names: Names of the parameters of each group.
        seed: The optimizer's seed.
        steps: Steps that it was told of; they count where a schedule goes by them.
    """
    group_of = {name: number for number, group in enumerate(names) for name in group}
    runs: list[tuple[int, int]] = []
    for name in sorted(name for name, _ in model.named_parameters()):
        group = group_of.get(name, -1)
        before = runs.pop()[1] if runs and runs[-1][0] == group else 0
        runs.append((group, before + 1))
    weight = next(each for name, each in model.named_parameters() if name in group_of)
    scheduled = config.eps_schedule != "constant" or config.query_schedule != "constant"
    return JournalHeader(
        spec="",
        base="",
        seed=seed,
        method=config.to_json(),
        steps=steps or 0 if scheduled else 0,
        settle_every=0,
        device=weight.device.type,
        platform=platform_of(weight.device),
        dtype=_DTYPES.get(weight.dtype, ""),
        groups=tuple(runs),
        version=OPTIMIZER,
    )


class RecordOfSteps:
    """Writes down what an optimizer does, or has it done again where the same training had come to before.

    Nothing is opened before the first step, so that a state can be loaded first: with it comes the journal up to where
    it was saved.

    Args:
        path: The file. One that is there and is not gone on with is set aside under another name.
        model: The model.
        header: Makes the head, when it is needed: by then the model is where it is trained.
        resume: Whether to follow a journal that is there.
        writes: Whether the file is this process's to write; otherwise it is only followed.

    Raises:
        InputError: With `resume`, at the first step: the journal was written on another platform.
        IntegrityError: With `resume`, at the first step: it belongs to something else.
    """

    def __init__(
        self, path: Path, model: nn.Module, header: Callable[[], JournalHeader], *, resume: bool, writes: bool
    ) -> None:
        self.path, self._model, self._header = path, model, header
        self._resume, self._writes = resume, writes
        self._journal: Journal | None = None
        self._off = self._replaced = False

    def next_step(self, rates: Rates) -> tuple[float, ...] | None:
        """What is kept of the next step, when it can be made again instead of being estimated."""
        if self._replaced:
            self.close()
            self._stop("other weights were loaded into the model, and it ends where they were")
        if self._off:
            return None
        if self._journal is None:
            self._journal = self._open()
        return self._journal.next_step(rates)

    def _open(self) -> Journal:
        header = replace(self._header(), base=parameters_digest(self._model))
        if self._resume and self.path.exists() and self.path.stat().st_size:
            journal = Journal.follow(self.path, header, writes=self._writes)
            if journal.header.platform != header.platform or journal.holds(_MOVED):
                journal.close()
                raise _inexact(self.path, journal.header, header)
            return journal
        if self._writes:
            make_folder(self.path.parent)
            set_aside(self.path)
        return Journal(self.path, header, 0, writes=self._writes)

    def step(self, kept: Sequence[float], rates: Rates) -> None:
        """A step is made."""
        if self._journal is not None:
            self._journal.append(kept, rates)

    def settled(self) -> None:
        """What was learnt was rounded into the stored weights."""
        if self._journal is not None:
            self._journal.mark(Mark("settled"))

    @property
    def data(self) -> Tensor | None:
        """The journal up to here, (bytes,), uint8; None: no step was made."""
        if self._journal is None:
            return None
        return torch.frombuffer(bytearray(self._journal.data), dtype=torch.uint8)

    def load(self, data: Tensor | None, step: int) -> None:
        """Go on from the journal that was saved with a state.

        Args:
            data: What `data` gave; None: the state has none.
            step: Steps made so far.
        """
        self.close()
        self._resume = self._resume and self._journal is None and not step  # accelerate loads a state before training
        self._journal, self._off, self._replaced = None, False, False
        if data is None:
            if step:
                self._stop("the state that was loaded holds none, and a replay needs every step since the base weights")
            return
        held = data.cpu().numpy().tobytes()
        found, _ = JournalHeader.unpack(held, self.path)
        header = replace(self._header(), base=found.base)  # the weights are no longer the base weights
        if header.device != found.device:
            self._stop(f"its steps were made on {found.device}, these are on {header.device}, which draws other noise")
            return
        self._journal = Journal.restore(self.path, header, held, writes=self._writes)
        if header.platform != found.platform:
            self._journal.mark(_MOVED)

    def weights_replaced(self) -> None:
        """Somebody loaded other weights; unless a state follows, no journal leads to what comes next."""
        self._replaced = self._journal is not None

    def _stop(self, why: str) -> None:
        self._journal, self._off, self._replaced = None, True, False
        warnings.warn(f"{self.path.name} is not written any further: {why}", stacklevel=4)

    def leave(self) -> None:
        """Nothing more is to be written where the training stops before it has come to the journal's end."""
        if self._journal is not None and self._journal.ahead:
            self.close()
            self._journal, self._off = None, True

    def close(self, digest: Callable[[], str] | None = None) -> None:
        """Close the file; with a digest of the trained weights, as what the steps have led to."""
        if self._journal is None:
            return
        if digest is not None and not self._replaced:
            self._journal.mark(Mark("ended", digest()))
        self._journal.close()


def _inexact(path: Path, found: JournalHeader, own: JournalHeader) -> InputError:
    wrote = f"{found.platform}" if found.platform != own.platform else "several platforms, one after another"
    return InputError(
        Problem(
            "journal-inexact",
            path.name,
            f"it was written on {wrote}, this is {own.platform}: its steps, made again here, would not give the bits",
            "Go on from a checkpoint, or begin anew without resume; replay rebuilds the weights within its bound.",
            str(path),
        )
    )
