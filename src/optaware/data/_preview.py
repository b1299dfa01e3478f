"""What would be sent, shown without sending it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaware.data._prompts import judge_prompts, rewriter_prompt
from optaware.errors import InputError
from optaware.records import ChatMessage, Example
from optaware.tasks import Task

__all__ = ["preview"]

_STAND_IN = "(the rewrite)"


def preview(task: Task, examples: Sequence[Example], template: str, n: int = 3) -> list[dict[str, Any]]:
    """The prompts of rewriter and judge for the first rows. Calls no model and spends nothing.

    Args:
        task: The task.
        examples: The training rows.
        template: `oat`, `paraphrase` or the path of a Jinja file.
        n: How many rows.

    Returns:
        For each row three entries with `example_id`, `kind` (`rewrite`, `meaning`, `role`), `prompt_id` and `messages`
        (`role`, `content`). In the judge's prompts "(the rewrite)" stands for what the rewriter would say.

    Raises:
        InputError: `n` is below 1, or the template is unknown or malformed.
    """
    if n < 1:
        raise InputError.of("count-too-small", f"{n} rows", "at least one row is shown", "Give 1 or more.")
    rewriting, judging = rewriter_prompt(task, template), judge_prompts(task, template)
    shown = []
    for example in examples[:n]:
        shown.append(_entry(example, "rewrite", rewriting.id, rewriting.messages(example)))
        for question, prompt in judging.items():
            shown.append(_entry(example, question, prompt.id, prompt.messages(example, _STAND_IN)))
    return shown


def _entry(example: Example, kind: str, prompt_id: str, messages: tuple[ChatMessage, ...]) -> dict[str, Any]:
    return {
        "example_id": example.id,
        "kind": kind,
        "prompt_id": prompt_id,
        "messages": [message.to_json() for message in messages],
    }
