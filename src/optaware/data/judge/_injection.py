"""The project's own attack rows: text in the data that tries to make a judge let a faulty rewrite through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware._io import read_jsonl
from optaware.records import Example
from optaware.tasks import get_task

__all__ = ["INJECTIONS", "Injection", "packaged_injections"]

INJECTIONS = Path(__file__).parents[1] / "attacks" / "injections.jsonl"


@dataclass(frozen=True)
class Injection:
    """A row whose rewrite is not the same as its original, with attack text in it, and the same row without.

    Attributes:
        id: Family and number.
        family: What kind of attack: `answer`, `order`, `language`, `delimiter`, `turn`, `claim`, `unicode`, `leak`,
            `rows`, `example` or `data`; see the README beside the file.
        language: ISO 639-1 code of the attack text.
        place: Where it stands: behind (`append`), before (`prepend`) or in place of (`replace`) the rewrite, in
            original and rewrite (`both`), or in another field of the row (`given`).
        example: The row.
        rewrite: Its rewrite.
        control: The row without attack text.
        control_rewrite: Its rewrite, as faulty, without attack text.
    """

    id: str
    family: str
    language: str
    place: str
    example: Example
    rewrite: str
    control: Example
    control_rewrite: str


def packaged_injections() -> tuple[Injection, ...]:
    """All attack rows of the package. They have the fields of COPA; their texts were written for this project."""
    task = get_task("copa")
    found = []
    for number, row in enumerate(read_jsonl(INJECTIONS)):
        given: Mapping[str, Any] = row["control"]
        texts = (row["row"], given["row"])
        example, control = (task.example(dict(text), "train", number, str(INJECTIONS)) for text in texts)
        names = (row["id"], row["family"], row["language"], row["place"])
        found.append(Injection(*names, example, row["rewrite"], control, given["rewrite"]))
    return tuple(found)
