"""What an arm does, as a list of instructions: the run goes through them and can stop at any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optaware.errors import InputError
from optaware.records import ComplementaryPromptTuning
from optaware.train.methods.prompt_tuning._ledger import Ledger

__all__ = ["Instruction", "check_budget", "program"]


@dataclass(frozen=True)
class Instruction:
    """One thing to do.

    Attributes:
        what: `start`: a fresh θ, number `n`; `steps`: `n` gradient steps; `until`: gradient steps up to `limit`;
            `propose`: compare candidates, ask for proposals, restart (round `n`); `loop`: propose until the budget is
            spent; `keep`: judge θ on the fitness rows and keep it when it is the best so far.
        n: Number of the start or round, or of steps.
        limit: Spending to go up to.
    """

    what: Literal["start", "steps", "until", "propose", "loop", "keep"]
    n: int = 0
    limit: int | None = None


def program(method: ComplementaryPromptTuning, budget: int, fitness: int) -> list[Instruction]:
    """The instructions of an arm.

    Args:
        method: The config.
        budget: Forward passes times examples.
        fitness: Fitness rows.
    """
    if method.search == "multi-start":
        made = []
        for start in range(method.starts):
            limit = budget * (start + 1) // method.starts - fitness
            made += [Instruction("start", start), Instruction("until", limit=limit), Instruction("keep")]
        return made
    if method.search == "proposals-only":
        return [Instruction("start", 0), Instruction("loop")]
    made = [Instruction("start", 0)]
    if method.proposer != "none":
        for number in range(method.rounds):
            made += [Instruction("steps", method.round_steps), Instruction("propose", number)]
    return [*made, Instruction("until")]


def check_budget(method: ComplementaryPromptTuning, ledger: Ledger, batch_size: int, fitness: int) -> None:
    """Refuse a budget that the arm cannot keep.

    Raises:
        InputError: The rounds alone, or one step and one comparison per start, would take more.
    """
    if method.search == "multi-start":
        need = method.starts * (3 * batch_size + fitness)
        what = f"{method.starts} starts"
    elif method.search == "proposals-only":
        need, what = fitness, "one proposal"
    else:
        rounds = method.rounds if method.proposer != "none" else 0
        asks = method.search_asks if method.proposer in ("evolutionary", "bayesian", "cma-es") else 1
        size = max(2, method.proposals) if method.proposer == "cma-es" else method.proposals
        compared = 1 + min(method.candidates, max(1, method.round_steps)) + asks * size
        need = rounds * (3 * batch_size * method.round_steps + compared * fitness)
        what = f"{rounds} rounds"
    if need > ledger.budget:
        raise InputError.of(
            "budget-too-small",
            f"a budget of {ledger.budget} forward passes times examples",
            f"{what} take up to {need}",
            "Raise schedule.steps, or ask for fewer rounds, proposals or fitness rows.",
        )
