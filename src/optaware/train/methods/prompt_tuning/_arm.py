"""One arm at work: gradient steps, rounds of proposals, starts - by its program, within its budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optaware._io import JsonlAppender, dumps, read_jsonl, write_jsonl
from optaware.errors import Problem, StoppedBySignal
from optaware.records import EvalRecord, RunSpec, Score, StepRecord
from optaware.store import RunFolder
from optaware.train._batches import BatchOrder
from optaware.train._checkpoint import Checkpoint
from optaware.train._seeds import derive_seed, generator
from optaware.train._types import EvalEvent, StepEvent, TrainEvent
from optaware.train.methods.prompt_tuning._ledger import BACKWARD, Ledger
from optaware.train.methods.prompt_tuning._program import Instruction, check_budget, program
from optaware.train.methods.prompt_tuning._rows import FewShotRows
from optaware.train.methods.prompt_tuning._soft import SoftPrompt
from optaware.train.methods.prompt_tuning._state import Adam, State
from optaware.train.methods.prompt_tuning.proposers import Candidate, History, Proposal, Proposer, Trial

__all__ = ["Arm"]

_GIVE_UP = 3
"""Rounds in a row without a usable proposal after which an arm that only proposes ends."""


class Arm:
    """An arm of the method, resumable at every step.

    Args:
        spec: The run.
        method: Its config.
        folder: Where logs and checkpoints go.
        soft: The frozen model with its soft prompt.
        rows: The few-shot rows.
        proposer: What proposes restarts.
        on_event: Told of steps and comparisons.
        should_stop: Asked before each step and round.

    Raises:
        InputError: The budget is too small for the arm.
    """

    def __init__(
        self,
        spec: RunSpec,
        method: Any,
        folder: RunFolder,
        soft: SoftPrompt,
        rows: FewShotRows,
        proposer: Proposer,
        on_event: Callable[[TrainEvent], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.spec, self.method, self.folder = spec, method, folder
        self.soft, self.rows, self.proposer = soft, rows, proposer
        self.on_event, self.should_stop = on_event, should_stop
        self.batch = min(spec.schedule.batch_size, len(rows.train))
        self.ledger = Ledger.of_steps(spec.schedule.steps, spec.schedule.batch_size)
        check_budget(method, self.ledger, self.batch, len(rows.fitness))
        self.program = program(method, self.ledger.budget, len(rows.fitness))
        self.order = BatchOrder(len(rows.train), self.batch, spec.seed)
        self.adam = Adam(self._start(0), method.lr)
        self.best = self.adam.prompt.clone()
        self.state = State()
        self.checkpoint = Checkpoint(folder.path / "checkpoint-last")
        self.recording = folder.path / "proposals.jsonl"

    def run(self) -> Tensor:
        """Go through the program; returns the θ that is reported.

        Raises:
            StoppedBySignal: It was told to stop; a checkpoint is left.
        """
        if self.checkpoint.exists():
            self.state = self.adam.load(self.checkpoint, self.best)
            self.ledger.spent = self.state.spent
        self._cut_logs()
        while self.state.at < len(self.program):
            self._do(self.program[self.state.at])
            self._save(at=self.state.at + 1, within=0)
        return self.adam.prompt if self.state.best is None else self.best

    def fitness(self, prompt: Tensor) -> Score:
        """Loss and accuracy on the fitness rows, not paid for."""
        return self.soft.predict(prompt, self.rows.fitness, self.rows.task.loss)[1]

    def _do(self, what: Instruction) -> None:
        match what.what:
            case "start":
                self._restart(self._start(what.n))
            case "steps":
                while self.state.within < what.n and self.ledger.affords(BACKWARD * self.batch):
                    self._step()
            case "until":
                while self.ledger.affords(BACKWARD * self.batch, what.limit):
                    self._step()
            case "propose":
                self._obey()
                self._round(what.n)
            case "loop":
                while self.ledger.affords(len(self.rows.fitness)) and self.state.empty < _GIVE_UP:
                    self._obey()
                    self._round(self.state.within)
                    self._save(within=self.state.within + 1)
            case "keep":
                self._keep(self.adam.prompt, self._judge(self.adam.prompt))

    def _start(self, number: int) -> Tensor:
        """θ of a start: embeddings of random tokens, or of the manual prompt (start 0)."""
        if self.method.init == "manual" and number == 0:
            return self.soft.embed(self.soft.ids_of(self.method.manual_prompt))
        source = generator(derive_seed(self.spec.seed, "prompt-start", number))
        allowed = self.soft.allowed.cpu()
        picks = allowed[torch.randint(len(allowed), (self.soft.length,), generator=source)]
        return self.soft.embed(picks.tolist())

    def _restart(self, prompt: Tensor) -> None:
        self.adam.restart(prompt)
        self._update(updates=0, trajectory=())

    def _step(self) -> None:
        self._obey()
        started = time.perf_counter()
        batch = [self.rows.train[index] for index in self.order.batch(self.state.step + 1)]
        prompt = self.adam.prompt.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.soft.loss(prompt, batch, self.rows.task.loss)
            (gradient,) = torch.autograd.grad(loss, prompt)
        value, norm = float(loss.detach()), float(gradient.norm())
        usable = math.isfinite(value) and math.isfinite(norm)
        if usable:
            self.adam.step(gradient.float(), self.state.updates + 1)
        self._spend(BACKWARD * len(batch))
        self._update(
            step=self.state.step + 1,
            within=self.state.within + 1,
            updates=self.state.updates + usable,
            skipped=self.state.skipped + (not usable),
            trajectory=(*self.state.trajectory, self.soft.project(self.adam.prompt)),
        )
        record = StepRecord(
            step=self.state.step,
            loss=value if math.isfinite(value) else None,
            grad_norm=norm if math.isfinite(norm) else None,
            lr=self.method.lr,
            examples=len(batch),
            forwards=self.ledger.spent // self.batch,
            skipped=not usable,
            step_s=time.perf_counter() - started,
        )
        self._log(self.folder.steps, record.to_json())
        self.on_event(StepEvent(record, self.spec.schedule.steps))

    def _round(self, number: int) -> None:
        """Compare the trajectory's texts, ask, judge the proposals, restart at the best of them."""
        unique = list(dict.fromkeys(self.state.trajectory))
        soft = self._judge(self.adam.prompt) if unique and self.ledger.affords(len(self.rows.fitness)) else None
        seen: dict[tuple[int, ...], Candidate] = {}
        for ids in unique[-self.method.candidates :]:
            if self.ledger.affords(len(self.rows.fitness)):
                score = self._judge(self.soft.embed(ids))
                seen[ids] = Candidate(ids, self.soft.text(ids), score.loss, score.accuracy)
        if self.method.search == "proposals-only":
            seen |= self._earlier()
        ranked = sorted(seen.values(), key=lambda each: -_or_inf(each.loss))[-self.method.candidates :]
        history = History(
            task=self.rows.task.name,
            description=self.rows.description,
            labels=self._labels(),
            manual=self.method.manual_prompt,
            seed=self.spec.seed,
            round=number,
            candidates=tuple(ranked),
            current=self.adam.prompt.clone(),
        )
        trials, unusable = self._ask(history)
        finite = [trial for trial in trials if trial[0].loss is not None]
        chosen = min(finite, key=_trial_loss) if finite else None
        taken = chosen is not None and (
            self.method.accept == "always" or soft is None or _or_inf(chosen[0].loss) < _or_inf(soft.loss)
        )
        if chosen is not None:
            if self.method.search == "proposals-only":
                self._keep(chosen[1], Score(accuracy=chosen[0].accuracy, loss=chosen[0].loss, n=len(self.rows.fitness)))
            if taken:
                self._restart(chosen[1])
        last = seen.get(unique[-1]) if unique else None
        self._note_round(number, ranked, [trial for trial, _ in trials], unusable, chosen and chosen[0], taken)
        summary = {
            "unique": len(unique),
            "gap": _gap(last, soft),
            "diversity": _diversity([trial for trial, _ in trials]),
            "unusable": len(unusable),
            "proposed": len(trials),
            "restarted": taken,
        }
        empty = 0 if trials else self.state.empty + 1
        self._update(rounds=(*self.state.rounds, summary), empty=empty)

    def _ask(self, history: History) -> tuple[list[tuple[Trial, Tensor]], list[str]]:
        judged: list[tuple[Trial, Tensor]] = []
        unusable: list[str] = []
        for _ in range(self.proposer.asks):
            now = History(**{**history.__dict__, "trials": tuple(trial for trial, _ in judged)})
            answer = self.proposer.propose(now, self.method.proposals)
            unusable += answer.unusable
            for proposal in answer.proposals:
                prompt, ids = self._place(proposal)
                if prompt is None:
                    unusable.append(f"no tokens: {proposal.text!r}")
                elif self.ledger.affords(len(self.rows.fitness)):
                    score = self._judge(prompt)
                    judged.append((Trial(proposal, ids, score.loss, score.accuracy), prompt))
        return judged, unusable

    def _place(self, proposal: Proposal) -> tuple[Tensor | None, tuple[int, ...] | None]:
        """θ of a proposal, and its tokens when it has some."""
        if proposal.prompt is not None:
            return proposal.prompt, None
        ids = proposal.ids if proposal.ids is not None else self.soft.ids_of(proposal.text or "")
        return (self.soft.embed(ids), ids) if ids else (None, None)

    def _judge(self, prompt: Tensor) -> Score:
        started = time.perf_counter()
        score = self.fitness(prompt)
        self._spend(len(self.rows.fitness))
        record = EvalRecord(
            step=self.state.step,
            split="fitness",
            loss=score.loss,
            accuracy=score.accuracy,
            n=score.n,
            forwards=self.ledger.spent // self.batch,
            wall_s=time.perf_counter() - started,
        )
        self._log(self.folder.evals, record.to_json())
        self.on_event(EvalEvent(record, self.spec.schedule.steps))
        return score

    def _keep(self, prompt: Tensor, score: Score) -> None:
        if score.loss is not None and (self.state.best is None or score.loss < self.state.best):
            self.best.copy_(prompt)
            self._update(best=score.loss)

    def _earlier(self) -> dict[tuple[int, ...], Candidate]:
        """What earlier rounds proposed, from the recording on disk."""
        found = {}
        for row in read_jsonl(self.recording) if self.recording.exists() else []:
            for text, ids, loss, accuracy in zip(
                row["texts"], row["ids"], row["losses"], row["accuracies"], strict=True
            ):
                if ids:
                    found[tuple(ids)] = Candidate(tuple(ids), text, loss, accuracy)
        return found

    def _labels(self) -> tuple[str, ...]:
        tokens = dict.fromkeys(option for row in self.rows.train for option in row.option_ids)
        return tuple(self.soft.text(option) for option in tokens)[:10]

    def _note_round(
        self,
        number: int,
        ranked: Sequence[Candidate],
        trials: Sequence[Trial],
        unusable: list[str],
        chosen: Trial | None,
        taken: bool,
    ) -> None:
        def words(trial: Trial) -> str:
            return trial.proposal.text or (self.soft.text(trial.ids) if trial.ids else "")

        row = {
            "task": self.rows.task.name,
            "seed": self.spec.seed,
            "round": number,
            "proposer": self.method.proposer,
            "llm": self.method.llm if self.method.proposer == "llm" else None,
            "texts": [words(trial) for trial in trials],
            "ids": [list(trial.ids) if trial.ids else [] for trial in trials],
            "losses": [trial.loss for trial in trials],
            "accuracies": [trial.accuracy for trial in trials],
            "chosen": trials.index(chosen) if chosen is not None else None,
            "restarted": taken,
            "unusable": unusable,
            "candidates": [{"text": each.text, "loss": each.loss, "accuracy": each.accuracy} for each in ranked],
        }
        self._log(self.recording, row)

    def _log(self, path: Path, row: dict[str, Any]) -> None:
        dumps(row)
        with JsonlAppender(path, sync=False) as log:
            log.append(row)

    def _cut_logs(self) -> None:
        """Leave out what was written after the checkpoint: it is written again."""
        rounds = len(self.state.rounds)
        batches = self.ledger.spent // self.batch
        fresh = self.state == State()

        def cut(path: Path, keep: Callable[[int, dict[str, Any]], bool]) -> None:
            if path.exists():
                rows = read_jsonl(path, torn_tail=True)
                write_jsonl(path, [row for number, row in enumerate(rows) if not fresh and keep(number, row)])

        cut(self.folder.steps, lambda number, row: bool(row["step"] <= self.state.step))
        cut(self.recording, lambda number, row: number < rounds)
        cut(self.folder.evals, lambda number, row: bool(row["forwards"] <= batches))

    def _obey(self) -> None:
        if self.should_stop():
            self._save()
            why = f"it was told to stop after step {self.state.step}"
            advice = "Run the same command again to resume."
            raise StoppedBySignal(Problem("stopped", self.folder.path.name, why, advice))

    def _spend(self, cost: int) -> None:
        self.ledger.spend(cost)
        self._update(spent=self.ledger.spent)

    def _update(self, **changes: Any) -> None:
        self.state = self.state.with_(**changes)

    def _save(self, **changes: Any) -> None:
        self._update(**changes)
        self.adam.save(self.checkpoint, self.state, self.best)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _trial_loss(trial: tuple[Trial, Tensor]) -> float:
    return _or_inf(trial[0].loss)


def _gap(candidate: Candidate | None, soft: Score | None) -> float | None:
    """Fitness loss of the projected text less that of the soft prompt."""
    if candidate is None or soft is None or candidate.loss is None or soft.loss is None:
        return None
    return candidate.loss - soft.loss


def _diversity(trials: Sequence[Trial]) -> float | None:
    """Mean over pairs of 1 − |A ∩ B| / |A ∪ B| of the proposals' token sets; None below two texts."""
    sets = [set(trial.ids) for trial in trials if trial.ids]
    pairs = [(a, b) for index, a in enumerate(sets) for b in sets[:index]]
    return sum(1 - len(a & b) / len(a | b) for a, b in pairs) / len(pairs) if pairs else None
