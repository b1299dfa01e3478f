"""What rewriting and judging will take, before anybody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from optaware.data import preview
from optaware.records import ChatModelRef, CorpusSpec
from optaware.study._task_size import CHARACTERS, TaskSize

__all__ = ["chat_cost"]


def chat_cost(left: Sequence[CorpusSpec], sizes: dict[str, TaskSize]) -> tuple[int, int, float | None]:
    """Calls, tokens and money of these corpora, if every row is judged twice; None where a model that is paid for has
    no price."""
    calls = tokens = 0
    usd: float | None = 0.0
    for spec in left:
        if spec.given is not None:
            continue
        size = sizes[spec.task]
        rows = len(size.train)
        span = fmean(len(size.task.span_text(row)) for row in size.train) / CHARACTERS
        for kind, asked in _prompt_tokens(size, spec.template).items():
            model = spec.rewriter if kind == "rewrite" else spec.judge
            said = min(model.max_tokens, round(span * 1.5) + 8 if kind == "rewrite" else 4)
            calls += rows
            tokens += rows * (asked + said)
            price = _price(model, rows * asked, rows * said)
            usd = None if usd is None or price is None else usd + price
    return calls, tokens, usd


def _prompt_tokens(size: TaskSize, template: str) -> dict[str, int]:
    """Mean tokens of a prompt by kind: `rewrite` and the judge's questions."""
    found: dict[str, list[int]] = {}
    for shown in preview(size.task, list(size.train[:8]), template, 8):
        found.setdefault(shown["kind"], []).append(sum(len(each["content"]) for each in shown["messages"]))
    return {kind: round(fmean(lengths) / CHARACTERS) for kind, lengths in found.items()}


def _price(model: ChatModelRef, sent: int, had: int) -> float | None:
    if model.provider != "openai":
        return 0.0
    if model.usd_per_million_prompt_tokens is None or model.usd_per_million_completion_tokens is None:
        return None
    return (sent * model.usd_per_million_prompt_tokens + had * model.usd_per_million_completion_tokens) / 1e6
