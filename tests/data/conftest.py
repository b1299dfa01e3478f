"""Rows written for these tests, and a little factory around a corpus."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from optaware.data import build_corpus, make_corpus_spec
from optaware.llm import Chat, ChatModel, scripted_chat
from optaware.records import (
    ChatModelRef,
    ChatReply,
    ChatRequest,
    CorpusSpec,
    DatasetCard,
    DataSource,
    Example,
    GateSpec,
    Protocol,
)
from optaware.tasks import Task, get_task

ARC = {"text": ["a magnet", "a sieve", "a mirror"], "label": ["A", "B", "C"]}
ROWS: dict[str, list[dict[str, Any]]] = {
    "copa": [
        {"premise": p, "choice1": a, "choice2": b, "question": q, "label": n}
        for p, a, b, q, n in [
            ("The baker closed the shop early.", "The bread was sold out.", "The oven was new.", "cause", 0),
            ("Mia dropped the vase {twice}.", "It was expensive.", "It broke into pieces.", "effect", 1),
            ("The bus did not stop.", "The stop was empty.", "The bus was blue.", "cause", 0),
            ("The café — crowded — ran out of crêpes.", "Guests left.", "It rained.", "effect", 0),
        ]
    ],
    "cb": [
        {"premise": p, "hypothesis": h, "label": n}
        for p, h, n in [
            ("Ann frowned. She did not think that Leo had lied.", "Leo had lied", 1),
            ("``Go,'' said Ann. Perhaps she knew that Leo had lied.", "Leo had lied", 2),
            ("It was dark. Ann knew that Leo had lied.", "Leo had lied", 0),
            ("Ann asked, {who} believes that Leo had lied?", "Leo had lied", 2),
        ]
    ],
    "rte": [
        {"premise": p, "hypothesis": h, "label": n}
        for p, h, n in [
            ("The ferry Aurora sank off Bergen in 1962, with 41 people on board.", "A ferry sank.", 0),
            ("Prices in Peru rose by 3.5% in May.", "Prices fell.", 1),
            ("Dr. Lund leads the museum, which opened 20 years ago.", "Lund is a painter.", 1),
            ("No trains ran on Monday.", "Trains stood still.", 0),
        ]
    ],
    "boolq": [
        {"passage": p, "question": q, "label": n}
        for p, q, n in [
            ("Kestrel -- The kestrel is a small falcon. It can hover, and it nests in walls.", "can kestrels hover", 1),
            (
                "Toll road -- Drivers pay a toll of 4 euros. The toll is not due at night.",
                "is the toll due at night",
                0,
            ),
            ("Tin -- Tin is a soft metal which melts at 232 degrees.", "is tin hard", 0),
            ("Ælfric (abbot) -- Ælfric was an abbot; he wrote {many} homilies.", "did aelfric write homilies", 1),
        ]
    ],
    "arc-c-cloze": [
        {"question": q, "choices": ARC, "answerKey": k}
        for q, k in [
            ("Which tool separates sand from gravel?", "B"),
            ("Which tool separates iron filings from salt?", "A"),
            ("A pupil wants to see around a corner. What helps best?", "C"),
            ("Which of these does NOT let light through {at all}?", "A"),
        ]
    ],
    "arc-c-mc": [{"question": "Which tool separates sand from gravel?", "choices": ARC, "answerKey": "B"}] * 4,
    "sst2": [
        {"sentence": s, "label": n}
        for s, n in [
            ("a warm and funny little picture ", 1),
            ("never comes to life ", 0),
            ("{ sic } transit , gloria ", 0),
            ("a naïve , but touching debut . ", 1),
        ]
    ],
}
TASKS = sorted(ROWS)
SOURCE = DataSource(kind="local", location="tests", sha256={})
SCRIPTED = ChatModelRef(provider="scripted", model="test")


def examples_of(task: Task, repeat: int = 1) -> list[Example]:
    rows = ROWS[task.name] * repeat
    return [task.example(row, "train", number, f"row {number}") for number, row in enumerate(rows)]


Reply = Callable[[ChatRequest], str | ChatReply | None]


@dataclass
class Bench:
    """One corpus to make: task, rows, spec, folder, and every request that was asked for."""

    task: Task
    examples: list[Example]
    spec: CorpusSpec
    folder: Path
    asked: list[str] = field(default_factory=list)

    def model(self, reply: Reply, cache: Path | None = None, **settings: Any) -> Chat:
        def answer(request: ChatRequest) -> str | ChatReply | None:
            self.asked.append(request.key)
            return reply(request)

        return scripted_chat(answer, cache=cache, **settings)

    def build(self, reply: Reply, *, cache: Path | None = None, **more: Any) -> DatasetCard:
        return self.build_with(self.model(reply, cache), **more)

    def build_with(self, model: ChatModel, *, folder: Path | None = None, **more: Any) -> DatasetCard:
        return build_corpus(
            self.spec,
            self.task,
            self.examples,
            rewriter=model,
            judge=model,
            folder=folder or self.folder,
            source=SOURCE,
            **more,
        )

    def span(self, request: ChatRequest) -> str:
        """The original span that a request is about."""
        number = int(request.key.rsplit("/", 1)[-1])
        return self.task.span_text(self.examples[number])


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power losses are not tested here, and a busy disk makes every fsync slow."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(name: str = "copa", *, repeat: int = 1, template: str = "oat", gate: GateSpec | None = None) -> Bench:
        task = get_task(name)
        examples = examples_of(task, repeat)
        spec = make_corpus_spec(
            task=task,
            task_name=name,
            protocol=Protocol(),
            variant="oat",
            template=template,
            examples=examples,
            rewriter=SCRIPTED,
            judge=SCRIPTED,
            gate=gate,
        )
        return Bench(task, examples, spec, tmp_path / "corpus")

    return make


@pytest.fixture(params=TASKS)
def every_bench(request: pytest.FixtureRequest, bench: Callable[..., Bench]) -> Bench:
    return bench(request.param)


@pytest.fixture(params=TASKS)
def every_task(request: pytest.FixtureRequest) -> tuple[Task, list[Example]]:
    task = get_task(request.param)
    return task, examples_of(task)


@pytest.fixture
def rows_of() -> Callable[[str], tuple[Task, list[Example]]]:
    def make(name: str) -> tuple[Task, list[Example]]:
        task = get_task(name)
        return task, examples_of(task)

    return make
