"""A small optimizer paper, 60 rows of COPA's form, and a chat model that writes a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optaware.data.design import Designer, make_design_spec
from optaware.llm import Chat, scripted_chat
from optaware.records import (
    ChatModelRef,
    ChatReply,
    ChatRequest,
    DataSource,
    DesignLimits,
    Example,
    PaperCard,
    TemplateCard,
)
from optaware.tasks import Task

PAPER = """# Zig: Training by Two Forward Passes

## Abstract

Zig trains language models with two forward passes and no backward pass. The cost {is} small.

# 1 Introduction

Training with a backward pass needs much memory. Zig perturbs all weights along one random direction and compares the
two losses of a training text. See Algorithm 1.

Algorithm 1: Zig perturbs the weights with a random direction, measures two losses, and moves along the direction.

# 2 Method

## 2.1 The estimate

The projected gradient of Zig is the difference of two losses divided by the scale. Ambiguous training texts make the
loss difference noisy, and a noisy difference is a weak estimate of the gradient.

## 2.2 The variance

The variance of the estimate grows with the number of parameters, so that Zig takes many steps. Smooth losses on clear
training texts keep the variance small.

# 3 Experiments

Zig reaches 81.0 on COPA.

# References

[1] Someone. Something.
"""
FACTS = [
    "Zig compares the two losses of a training text at each step.",
    "Ambiguous training texts make the loss difference noisy.",
    "The variance of the estimate grows with the number of parameters.",
]
RULES = [
    "Write the premise in plain, common words, because Zig compares two losses.",
    "Keep each sentence short and direct so that the loss difference is not noisy.",
]
WHO = ["farmer", "nurse", "baker", "pilot", "monk", "judge", "clerk", "diver", "mayor", "guard", "scout", "tailor"]
WHAT = ["horse", "lamp", "oven", "kite", "bell", "desk", "van", "boat", "harp", "dog", "tent", "loom"]
GUARD = "Never add a reason or a result that the original does not state."
REF = ChatModelRef(provider="scripted", model="writer")
SOURCE = DataSource(kind="local", location="tests", sha256={})


def copa_rows(task: Task, n: int) -> list[Example]:
    rows = [
        {
            "premise": f"The {WHO[number]} sold the {WHAT[number]}.",
            "choice1": "He needed money.",
            "choice2": "He bought a boat.",
            "question": "cause",
            "label": 0,
        }
        for number in range(n)
    ]
    return [task.example(row, "train", number, "row") for number, row in enumerate(rows)]


def rewritten(request: ChatRequest) -> str:
    """A good rewrite of one of the rows."""
    who, what = re.findall(r"The (\w+) sold the (\w+)\.", request.messages[-1].content)[-1]
    return f"The {what} was sold by the {who}."


@dataclass
class Writer:
    """Answers as a good model would; `answers` overrule by the beginning of a request's key."""

    answers: dict[str, Callable[[ChatRequest], str | ChatReply | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: ChatRequest) -> str | ChatReply | None:
        self.asked.append(request.key)
        for start, answer in self.answers.items():
            if request.key.startswith(start):
                return answer(request)
        kind = re.split("[ :#]", request.key)[0]
        if kind == "describe":
            return "Zig perturbs the weights and measures two losses."
        if kind in ("gaps", "key"):
            text = request.messages[-1].content.split('"""')[1]
            told = request.messages[-1].content.split("knows already:")[-1]
            own = [fact for fact in FACTS if fact.split()[-1][:-1] in text and fact not in told]
            number = int(request.key[-1]) - 1
            return own[number % len(own)] if own else "none"
        if kind == "rules":
            return "Here are the rules:\n" + "\n".join(f"{n}. {rule}" for n, rule in enumerate(RULES, 1))
        if kind == "more":
            return "- Say who acts first and what is done after that, so that losses stay smooth."
        if kind == "fault":
            return f"- {GUARD}"
        if kind == "rewrite":
            return rewritten(request)
        return "same"

    def count(self, start: str) -> int:
        return sum(key.startswith(start) for key in self.asked)


@dataclass
class Bench:
    """One build: task, rows, paper, folder."""

    task: Task
    rows: Sequence[Example]
    card: PaperCard
    folder: Path
    cache: Path

    def designer(self, writer: Writer | Chat, **more: Any) -> Designer:
        limits = {"rows": 4, "rounds": 3, "shots": 3, "context_chars": 500, "points": 6, "rules": 2, "parts": 9}
        bounds = DesignLimits.model_validate(limits | more.pop("limits", {}))
        folder = more.pop("folder", self.folder)
        spec = make_design_spec(
            task=self.task,
            task_name=more.pop("task_name", self.task.name),
            rows=self.rows,
            optimizer="Zig",
            paper="zig.md",
            paper_sha256=self.card.sha256,
            writer=more.pop("ref", REF),
            limits=bounds,
            **more,
        )
        chat = writer if isinstance(writer, Chat) else scripted_chat(writer, cache=self.cache)
        return Designer(spec, self.task, self.rows, writer=chat, folder=folder, source=SOURCE)

    def build(self, writer: Writer | Chat, until: int = 5, **more: Any) -> TemplateCard:
        card = self.designer(writer, **more).build(self.card, until=until)
        assert card is not None
        return card

    def text(self, phase: int) -> str:
        return (self.folder / f"phase-{phase}" / "template.jinja").read_text()
