"""Prompts: a constant head (instructions and examples), the same for every row, then the row's own short turn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optaware._io import canonical_json, text_sha256
from optaware.data._fewshot import TEMPLATES, FewShotModule, Given, find_module
from optaware.errors import InputError
from optaware.llm import Template, load_template
from optaware.llm._inert import CONTROL
from optaware.records import ChatMessage, Example, JudgeShot, JudgeTemplate
from optaware.tasks import Task

__all__ = [
    "QUESTIONS",
    "JudgePrompt",
    "PromptIds",
    "RewriterPrompt",
    "judge_prompts",
    "prompt_ids",
    "rewriter_prompt",
    "role_lines",
]

PROMPT_VERSION = 1
"""Raised when the code here builds other messages from the same template, so that prompt ids change with them."""

Question = Literal["meaning", "role"]
QUESTIONS: tuple[Question, Question] = ("meaning", "role")


@dataclass(frozen=True)
class PromptIds:
    """Content hashes of the prompts of one corpus, as `CorpusSpec` holds them."""

    rewriter: str
    judge: dict[str, str]


@dataclass(frozen=True)
class _Prompt:
    """A template, filled in for one task as far as that goes without a row.

    Attributes:
        task: The task.
        template: The Jinja template.
        wording: What the template is told about the task.
        shown: Lines shown beside the span: heading -> field.
        head: Messages that are the same for every row; empty when the template makes one message of everything.
        shots: The examples, for templates that lay them out themselves.
    """

    task: Task
    template: Template
    wording: Mapping[str, str]
    shown: Mapping[str, str]
    head: tuple[ChatMessage, ...]
    shots: tuple[Mapping[str, Any], ...]

    @property
    def id(self) -> str:
        """Hash over everything that decides the messages, rows aside."""
        content = {
            "prompt_version": PROMPT_VERSION,
            "template": self.template.id,
            "head": [message.to_json() for message in self.head],
            "shots": list(self.shots),
            "wording": dict(self.wording),
            "shown": list(self.shown.items()),
        }
        return text_sha256(canonical_json(content))

    @property
    def head_text(self) -> str:
        """All that is said before the row, to recognise a reply that repeats it."""
        return "\n".join(message.content for message in self.head)

    def _row(self, example: Example, **own: Any) -> tuple[ChatMessage, ...]:
        context = self.task.context(example)
        given = _lines({heading: _shown(context, name) for heading, name in self.shown.items()})
        context |= {**self.wording, "part": "row", "given": given, "shots": list(self.shots), **own}
        return (*self.head, ChatMessage(role="user", content=self.template.render(**context)))


class RewriterPrompt(_Prompt):
    """Asks for another wording of a row's span."""

    def messages(self, example: Example) -> tuple[ChatMessage, ...]:
        """The whole chat for one row."""
        return self._row(example, span=_plain(self.task.span_text(example)))

    def told(self, example: Example) -> str:
        """`head_text` for one row. A row may be one of the examples: its own rewrite there is no repeated prompt."""
        span = _plain(self.task.span_text(example))
        own = {shot["rewrite"] for shot in self.shots if shot["text"] == span}
        if not own:
            return self.head_text
        return "\n".join(turn.content for turn in self.head if turn.role != "assistant" or turn.content not in own)


@dataclass(frozen=True)
class JudgePrompt(_Prompt):
    """Asks one question about an original span and its rewrite.

    Attributes:
        votes: How ballots are taken and counted, where there is more than one; part of the id.
        guidance: Further rules for the judge.
    """

    votes: str = ""
    guidance: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Hash over everything that decides the messages and how the replies are counted, rows aside."""
        return super().id if not self.votes else text_sha256(canonical_json([super().id, self.votes]))

    def messages(self, example: Example, rewritten: str) -> tuple[ChatMessage, ...]:
        """The whole chat for one pair. Data stands in JSON quotes, so that orders in it cannot pass for the prompt."""
        texts = {"original": _quoted(self.task.span_text(example)), "rewritten": _quoted(rewritten)}
        return self._row(example, **texts, guidance=self.guidance)


def _plain(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.strip().splitlines())
    return "\n".join(line for line in lines if line)


_UNSEEN = re.compile(
    r"[\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\U000e0000-\U000e0fff]"
)
"""Characters that end a line, turn the direction of writing round, or are not seen: what a reader does not see, a judge
shall not read. The joiners that scripts need (U+200C, U+200D) are not among them."""


def _quoted(text: str) -> str:
    """`text` as a JSON string: one line, ended by its quote whatever it says.

    Marks that a chat model's tokenizer would take for the end of a turn (`<|im_end|>`, `</s>`, `[INST]`) are written
    with an escape, as JSON allows, so that no row can end its turn and speak for somebody else; so are characters that
    end lines or cannot be seen.
    """
    quoted = json.dumps(text.strip(), ensure_ascii=False)
    return CONTROL.sub(_escaped, _UNSEEN.sub(_escaped, quoted))


def _escaped(mark: re.Match[str]) -> str:
    return json.dumps(mark.group())[1:-1] if ord(mark.group()) > 0x7E else f"\\u{ord(mark.group()):04x}"


def _lines(given: Given) -> list[tuple[str, str]]:
    return [
        (heading, " | ".join(map(_quoted, value)) if isinstance(value, list) else _quoted(value))
        for heading, value in given.items()
    ]


def _shown(context: Mapping[str, Any], name: str) -> str | list[str]:
    value = context[name] if name in ("options", "answer") else context["fields"][name]
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _wording(task: Task, module: FewShotModule) -> dict[str, str]:
    noun = module.noun or task.span.replace("_", " ")
    return {
        "noun": noun,
        "heading": module.heading or noun[:1].upper() + noun[1:],
        "about": module.about or task.description,
        "neutral": module.neutral,
        "keeps": module.keeps or task.role,
    }


def _template(name: str) -> tuple[Template, Path | None]:
    builtin = TEMPLATES / f"{name}.jinja"
    if "/" not in name and not name.startswith("judge_") and builtin.is_file():
        return load_template(builtin, name=builtin.name), None
    path = Path(name)
    if path.suffix != ".jinja" and not path.is_file():
        raise InputError.of(
            "template-unknown",
            repr(name),
            "there is no built-in template of this name",
            "Use `oat`, `paraphrase` or the path of a .jinja file.",
        )
    return load_template(path), path


def rewriter_prompt(task: Task, template: str) -> RewriterPrompt:
    """The rewriter's prompt for a task.

    A template that uses the variable `part` is filled in twice: with `part="system"` for the instructions, then with
    `part="row"` for every example and every row; the examples become turns of the chat. A template without it is
    filled in once for each row and sent as one message; it may lay out `shots` (`text`, `rewrite`) itself.

    Args:
        task: The task.
        template: `oat`, `paraphrase`, or the path of a Jinja file. Its front matter may say `shots: oat` to choose
            whose rewrites are shown as examples (default: those under the file's own name, else `paraphrase`).

    Raises:
        InputError: Unknown or malformed template or few-shot module.
    """
    loaded, path = _template(template)
    module = find_module(task, path)
    wording = _wording(task, module)
    column = str(loaded.meta.get("shots", Path(template).stem))
    known = sorted({name for shot in module.rewriter for name in shot.rewrites})
    if "shots" in loaded.meta and column not in (*known, "none"):
        raise InputError.of(
            "template-shots",
            f"shots: {column}",
            "the task's few-shot module has no such rewrites",
            f"Use one of: {', '.join((*known, 'none'))}.",
            loaded.name,
        )
    shots = []
    for shot in module.rewriter if column != "none" else ():
        rewrite = shot.rewrites.get(column) or shot.rewrites.get("paraphrase")
        if rewrite is not None:
            shots.append({"given": _lines(shot.given), "text": _plain(shot.text), "rewrite": rewrite})
    turns = [({"given": shot["given"], "span": shot["text"]}, str(shot["rewrite"])) for shot in shots]
    head = _head(loaded, wording, turns) if "part" in loaded.variables else ()
    return RewriterPrompt(task, loaded, wording, module.rewriter_given, head, tuple(shots))


def judge_prompts(task: Task, template: str = "oat", judge: JudgeTemplate | None = None) -> dict[Question, JudgePrompt]:
    """The judge's prompts for a task, one for each question.

    The judge is the same for every rewriter template; `template` only says where a user's few-shot module may lie.

    Args:
        task: The task.
        template: The rewriter's template.
        judge: A version of the judge as `optaware data calibrate` makes it; None: the packaged one.

    Raises:
        InputError: The judge was made for another task, or its examples lack lines that rows have.
    """
    path = _template(template)[1]
    module = find_module(task, path)
    wording = _wording(task, module)
    judge = judge or JudgeTemplate(task=task.name, base="plain")
    if judge.task != task.name:
        raise InputError.of(
            "judge-other-task",
            f"a judge for {judge.task}",
            f"its examples and rules are about another task than {task.name}",
            f"Calibrate a judge for {task.name}.",
        )
    prompts: dict[Question, JudgePrompt] = {}
    for question in QUESTIONS:
        own, given = (judge.meaning, module.meaning) if question == "meaning" else (judge.role, module.role)
        name = f"judge_{question}{'' if judge.base == 'plain' else '_guarded'}.jinja"
        loaded = load_template(TEMPLATES / name, name=name)
        shown = {} if question == "meaning" else _judge_shown(task, module)
        turns = [_judge_turn(shot, shown) for shot in (*given, *own.shots)]
        head = _head(loaded, wording | {"guidance": own.guidance}, turns)
        prompts[question] = JudgePrompt(task, loaded, wording, shown, head, (), _votes(judge), own.guidance)
    return prompts


def _judge_turn(shot: JudgeShot, shown: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    given = {heading: shot.given[heading] for heading in shown if heading in shot.given}
    texts = {"original": _quoted(shot.original), "rewritten": _quoted(shot.rewrite)}
    return {"given": _lines(given), **texts}, str(shot.answer)


def _votes(judge: JudgeTemplate) -> str:
    if not judge.votes:
        return ""
    return canonical_json([judge.orders, [member.to_json() for member in judge.members], judge.rule])


def _judge_shown(task: Task, module: FewShotModule) -> Mapping[str, str]:
    if module.judge_given is not None:
        return module.judge_given
    texts = [name for name, spec in task.fields.items() if spec.type == "text" and name != task.span]
    shown = {name.replace("_", " ").capitalize(): name for name in texts if name not in _label_fields(task)}
    return {**shown, "Options": "options", "Right answer": "answer"}


def role_lines(task: Task) -> Callable[[Example], dict[str, str | list[str]]]:
    """Gives the lines that the judge of `role` sees beside a row's span, unquoted, for a person to judge by."""
    shown = _judge_shown(task, find_module(task))

    def lines(example: Example) -> dict[str, str | list[str]]:
        context = task.context(example)
        return {heading: _shown(context, name) for heading, name in shown.items()}

    return lines


def _label_fields(task: Task) -> set[str]:
    return {name for name in (getattr(task, "label_field", None), "label", "answerKey") if name}


def _head(
    template: Template, wording: Mapping[str, Any], turns: Sequence[tuple[dict[str, Any], str]]
) -> tuple[ChatMessage, ...]:
    messages = [ChatMessage(role="system", content=template.render(part="system", **wording))]
    for context, answer in turns:
        content = template.render(part="row", **wording, **context)
        messages += [ChatMessage(role="user", content=content), ChatMessage(role="assistant", content=answer)]
    return tuple(messages)


def prompt_ids(task: Task, template: str, judge: JudgeTemplate | None = None) -> PromptIds:
    """Content hashes of the prompts: over the templates, the few-shot module and what it takes from the task.

    Args:
        task: The task.
        template: `oat`, `paraphrase` or the path of a Jinja file.
        judge: A calibrated judge; None: the packaged one.
    """
    judges = judge_prompts(task, template, judge)
    return PromptIds(rewriter_prompt(task, template).id, {question: prompt.id for question, prompt in judges.items()})
