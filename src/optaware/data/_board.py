"""Where a corpus stands: every try with what came back, on disk, and what it amounts to, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from optaware.data._gate import screen
from optaware.data._ledger import Ledger
from optaware.data._near import HeldOut
from optaware.data._prompts import QUESTIONS, JudgePrompt, Question, RewriterPrompt
from optaware.data._retry import RETRY_PROMPT_ID
from optaware.data._rows import RowIndex
from optaware.data._tries import (
    SAME,
    SETTLED,
    Stand,
    Tries,
    candidate_grade,
    open_question,
    verdict_grade,
)
from optaware.records import (
    AutomaticCheck,
    Candidate,
    CorpusSpec,
    Example,
    JudgeReason,
    RowMeasure,
    Verdict,
)

__all__ = ["Board", "OnProgress"]

OnProgress = Callable[[int, int, str], None]
"""Called as `(done, total, what)` after every reply; `what` is `rewrite`, `judge meaning`, `judge role`, from the
second round on with `, try N`, or `measure`."""


class Board:
    """The tries of all rows of a corpus. Memory holds some bytes a row; candidates and verdicts stay on disk."""

    def __init__(
        self,
        spec: CorpusSpec,
        examples: Sequence[Example],
        index: RowIndex,
        prompts: tuple[RewriterPrompt, Mapping[Question, JudgePrompt]],
        folder: Path,
        stack: ExitStack,
        on_progress: OnProgress | None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.spec, self.examples, self.tries = spec, examples, Tries.of(spec)
        self.index, self._held_out, self.on_progress = index, held_out, on_progress
        self._rewriting, self._judging = prompts
        self.task = self._rewriting.task
        slots = len(examples) * self.tries.most
        self.candidates: Ledger[Candidate] = stack.enter_context(
            Ledger(
                folder / "candidates.jsonl",
                Candidate,
                slots=slots,
                slot=lambda record: self._slot(record.example_id, record.attempt, record.prompt_id, "rewrite"),
                grade=lambda record: candidate_grade(record, self.checks(record)),
            )
        )
        self.verdicts: Ledger[Verdict] = stack.enter_context(
            Ledger(
                folder / "verdicts.jsonl",
                Verdict,
                slots=slots * len(QUESTIONS),
                slot=lambda record: self._slot(record.example_id, record.attempt, record.prompt_id, record.question),
                grade=verdict_grade,
            )
        )
        self.reasons: Ledger[JudgeReason] | None = None
        if spec.retries:
            self.reasons = stack.enter_context(
                Ledger(
                    folder / "reasons.jsonl",
                    JudgeReason,
                    slots=slots,
                    slot=lambda record: self._slot(record.example_id, record.attempt, record.prompt_id, "reason"),
                    grade=verdict_grade,
                )
            )
        self.measures: Ledger[RowMeasure] | None = None
        if spec.search and spec.search.prefer != "first":
            self.measures = stack.enter_context(
                Ledger(
                    folder / "measures.jsonl",
                    RowMeasure,
                    slots=len(examples) * (self.tries.most + 1),
                    slot=self._measure_slot,
                    grade=lambda record: SETTLED,
                )
            )

    def _slot(self, name: str, attempt: int, prompt_id: str, what: str) -> int | None:
        wanted = {"rewrite": self.spec.rewriter_prompt_id, "reason": RETRY_PROMPT_ID}
        if prompt_id != (wanted | self.spec.judge_prompt_ids)[what] or not 0 <= attempt < self.tries.most:
            return None
        row = self.index.find(name)
        if row is None:
            return None
        if what in QUESTIONS:
            return self.tries.verdict_slot(row, attempt, "meaning" if what == "meaning" else "role")
        return self.tries.slot(row, attempt)

    def _measure_slot(self, record: RowMeasure) -> int | None:
        row = self.index.find(record.example_id)
        # At loading the measure is not known yet, so figures of any are let in; `Choice` looks at their id.
        if row is None or not -1 <= (-1 if record.attempt is None else record.attempt) < self.tries.most:
            return None
        return row * (self.tries.most + 1) + (0 if record.attempt is None else record.attempt + 1)

    def checks(self, candidate: Candidate) -> tuple[AutomaticCheck, ...]:
        """The automatic checks of a candidate."""
        row = self.index.find(candidate.example_id)
        assert row is not None
        example = self.examples[row]
        told = self._rewriting.told(example)
        return screen(self.task, example, candidate, self.spec.gate, told, self._held_out)

    def stand(self, row: int, attempt: int) -> int:
        """Grade of a try; see `Stand`."""
        return int(self.candidates.grades[self.tries.slot(row, attempt)])

    def answer(self, row: int, attempt: int, question: Question) -> int:
        """Grade of a verdict."""
        return int(self.verdicts.grades[self.tries.verdict_slot(row, attempt, question)])

    def passed(self, row: int, attempt: int) -> bool:
        """Whether a try is through the gate."""
        stand = self.stand(row, attempt)
        return stand == Stand.IDENTICAL or (
            stand == Stand.OPEN and all(self.answer(row, attempt, question) == SAME for question in QUESTIONS)
        )

    def unjudged(self, row: int, attempt: int) -> Question | None:
        """The next question that the judge has to answer on a try."""
        answers = {question: self.answer(row, attempt, question) for question in QUESTIONS}
        return open_question(self.stand(row, attempt), answers)

    def verdicts_of(self, row: int, attempt: int) -> dict[Question, Verdict]:
        """The verdicts on a try."""
        found = {each: self.verdicts.get(self.tries.verdict_slot(row, attempt, each)) for each in QUESTIONS}
        return {question: verdict for question, verdict in found.items() if verdict is not None}
