"""BoolQ: yes-or-no questions about a passage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaware.tasks._fields import FieldSpec
from optaware.tasks._task import HubData, Rows
from optaware.tasks._verbalizer import VerbalizerTask

__all__ = ["BoolQ"]


class BoolQ(VerbalizerTask):
    """BoolQ (SuperGLUE form: the passage is "title -- passage").

    Rows in the form of google/boolq (`answer` true or false) are taken too; where a `title` is known it is put in
    front of the passage. Prompt styles: `default` is OAT-Rephrase's for Llama; `mezo`, which OAT-Rephrase uses for
    Mistral, has the answer on a line of its own.

    Differs from MeZO's code, which reads google/boolq: there the passage has no title.
    """

    name = "boolq"
    version = "1"
    title = "BoolQ: yes-or-no questions about a passage"
    description = (
        "An instance is a passage from an encyclopedia, headed by the title of its article, and a question that people "
        "asked a search engine. The answer, Yes or No, follows from the passage."
    )
    role = (
        "The passage is the evidence for the answer. A rewrite must keep the facts that the question turns on, with "
        "their names, numbers and dates, and must not answer the question more openly than the original does."
    )
    citation = "Clark et al., NAACL 2019; SuperGLUE: Wang et al., NeurIPS 2019"
    licence = "CC BY-SA 3.0"
    fields: Mapping[str, FieldSpec] = {
        "question": FieldSpec(type="text", description="The question, in lower case and without a question mark."),
        "passage": FieldSpec(type="text", description="Title and text that the question is about."),
        "label": FieldSpec(type="integer", description="0: No, 1: Yes."),
    }
    span = "passage"
    prompt_styles = ("default", "mezo", "mistral")
    data_folder = "boolq"
    hub = HubData("aps/super_glue", "boolq")
    assets = ("olmo-train-data", "olmo-eval-data")
    rows = Rows(500, 500, 1000, {"train": 9427, "validation": 3270})
    words = ("No", "Yes")

    def adapt(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take google/boolq's boolean `answer` for `label`, and put a known `title` before the passage."""
        adapted = dict(row)
        if "label" not in row and isinstance(row.get("answer"), bool):
            adapted["label"] = int(row["answer"])
        if row.get("title") and isinstance(row.get("passage"), str):
            adapted["passage"] = f"{row['title']} -- {row['passage']}"
        return adapted

    def _prompt(self, fields: Mapping[str, Any], style: str) -> str:
        question = fields["question"].strip()
        question = question[:1].upper() + question[1:].removesuffix("?") + "?"
        return f"{fields['passage']} {question}" + ("" if style == "default" else "\n")
