"""A chat model that reads the trajectory and writes new prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from optaware.llm import ChatModel
from optaware.records import ChatMessage, ChatRequest
from optaware.train._seeds import derive_seed
from optaware.train.methods.prompt_tuning.proposers._protocol import History, Proposal, Proposed

__all__ = ["LLM", "parse_templates"]

_ITEM = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*(.+?)\s*$")
_QUOTES = "\"'“”‘’`*"
_LONGEST = 200
_ECHO = re.compile(r"[\"'”’]?\s*\|\s*(?:loss|accuracy)\b.*", re.IGNORECASE | re.DOTALL)
"""Figures behind a prompt, as the question lists them; models copy that form."""
_FIGURE = re.compile(r"(?:loss|accuracy)\b\W*\d", re.IGNORECASE)


@dataclass(frozen=True)
class LLM:
    """Asks a chat model once a round for k short templates.

    It is shown the task, its answers, a prompt written by hand, and the trajectory's texts from the worst to the best
    with their losses and accuracies on the fitness rows.

    Args:
        chat: Any chat model of `optaware.llm`.
        temperature: Of its sampling.
        max_tokens: Longest reply.
    """

    chat: ChatModel
    temperature: float
    max_tokens: int = 160
    asks: int = 1

    def propose(self, history: History, k: int) -> Proposed:
        """The templates in the reply that can be used; others and failed calls are said."""
        request = ChatRequest(
            key=f"{history.task}/{history.seed}/{history.round}",
            messages=(ChatMessage(role="user", content=question(history, k)),),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=derive_seed(history.seed, "llm", history.round) % 2**31,
        )
        reply = next(iter(self.chat.complete([request])))
        if reply.text is None:
            return Proposed((), (f"the call failed ({reply.error_code}): {reply.error}",))
        return parse_templates(reply.text, k, {history.manual, *(each.text for each in history.candidates)})


def question(history: History, k: int) -> str:
    """What the model is asked."""
    lines = [
        f"Task: {history.description.strip()}",
        f"Possible answers: {', '.join(history.labels)}.",
        f'A prompt written by hand: "{history.manual}"',
        "",
        "An optimizer tried the prompts below, which are put before every input. They are listed from the worst to the "
        "best; a lower loss is better.",
    ]
    for each in history.candidates:
        loss = "not finite" if each.loss is None else f"{each.loss:.3f}"
        lines.append(f'- prompt: "{each.text}" | loss: {loss} | accuracy: {100 * each.accuracy:.0f}%')
    if not history.candidates:
        lines.append("- none yet")
    lines += [
        "",
        f"Write {k} new prompts that are unlike the ones above and should have a lower loss. Each is one short phrase "
        f"of at most 10 words. Answer with a numbered list of {k} lines and nothing else.",
    ]
    return "\n".join(lines)


def parse_templates(text: str, k: int, known: set[str]) -> Proposed:
    """The items of a numbered or bulleted list; with no list at all, the lines, if there are two to 2k of them.

    An item is usable when it has a letter, at most 200 characters, and is neither among `known` nor a repetition. The
    figures that the question shows behind each prompt are cut off where the model copies them; an item that is nothing
    but such figures is not usable.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    items = [match[1] for line in lines if (match := _ITEM.match(line))] or _bare(lines, k)
    if not items:
        return Proposed((), (f"no list in the reply: {text.strip()[:80]!r}",))
    seen = {_plain(each) for each in known}
    usable: list[Proposal] = []
    unusable: list[str] = []
    for item in items:
        words = _ECHO.sub("", item.strip().removeprefix("prompt:")).strip().strip(_QUOTES).strip()
        if not any(char.isalpha() for char in words) or _FIGURE.match(words):
            unusable.append(f"no words: {item[:80]!r}")
        elif len(words) > _LONGEST:
            unusable.append(f"{len(words)} characters: {words[:80]!r}")
        elif _plain(words) in seen:
            unusable.append(f"known already: {words[:80]!r}")
        elif len(usable) < k:
            seen.add(_plain(words))
            usable.append(Proposal(text=words))
    return Proposed(tuple(usable), tuple(unusable))


def _bare(lines: list[str], k: int) -> list[str]:
    """Lines that stand for a list without numbers; a single one is prose (a refusal, say), unless one was asked for."""
    return lines if min(2, k) <= len(lines) <= 2 * k else []


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
