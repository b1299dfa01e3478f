from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from optaware.data.review import LabelsFile, Review, pair_id
from optaware.records import ReviewPair

MARKUP = "<img src=x onerror=\"document.title='taken'\">"


def pair(original: str, rewritten: str, **more) -> ReviewPair:
    name = pair_id(more.get("task"), more.get("example_id"), original, rewritten)
    return ReviewPair(id=name, original=original, rewritten=rewritten, **more)


PAIRS = [
    pair("The baker closed the shop.", "The baker shut the shop.", given={"Asked": "cause", "Options": ["a", "b"]}),
    pair("Mia dropped the vase.", "Mia dropped two vases.", outcome="accepted", reason="accepted", origin="a model"),
    pair(f"A {MARKUP} film", f"A <script>document.title='taken'</script> \u202eemas :rewsna film {MARKUP}",
         given={f"<b>{MARKUP}": [MARKUP, "javascript:alert(1)"]}, outcome="rejected", reason=MARKUP, origin=MARKUP),
]  # fmt: skip


@pytest.fixture
def open_review(tmp_path: Path) -> Iterator[Callable[..., Review]]:
    with ExitStack() as stack:

        def make(labeller: str = "ann", path: Path | None = None, pairs=PAIRS) -> Review:
            file = stack.enter_context(LabelsFile(path or tmp_path / "labels.jsonl", labeller))
            return Review(pairs, file, f"pairs {MARKUP}")

        yield make
