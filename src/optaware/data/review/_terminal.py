"""Reviewing in the terminal: the same keys as the page; without a terminal, one key a line from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO

from rich.console import Console, Group
from rich.markup import escape
from rich.text import Text

from optaware.data.review._session import Review, Shown
from optaware.records import Fault

__all__ = ["review_in_terminal"]

_ANSWERS: dict[str, tuple[Any, tuple[Fault, ...]]] = {
    "s": ("same", ()),
    "n": ("not the same", ()),
    "m": ("not the same", ("meaning",)),
    "r": ("not the same", ("role",)),
    "b": ("not the same", ("meaning", "role")),
    "x": ("skipped", ()),
}
_FILTERS: tuple[Shown, ...] = ("all", "open", "same", "not the same", "skipped", "noted")
_HELP = (
    "s same  n not the same  m meaning differs  r role differs  b both  x skip  u undo  j next  k back  t note  "
    "f filter  v gate  q quit"
)

ReadKey = Callable[[], str]
"""One key; empty at the end of the input."""


def review_in_terminal(review: Review, *, keys: TextIO | None = None, console: Console | None = None) -> int:
    """Label pairs until they are done or `q` is pressed.

    Args:
        review: What is reviewed.
        keys: Where keys come from; None: standard input, key by key when it is a terminal, else one a line.
        console: Where pairs are shown; None: standard output.

    Returns:
        How many pairs are still open.
    """
    out, source = console or Console(highlight=False), keys or sys.stdin
    with _keys(source) as read:
        _Terminal(review, out, read, source).run()
    return review.counts()["open"]


class _Terminal:
    def __init__(self, review: Review, out: Console, read: ReadKey, source: TextIO) -> None:
        self._review, self._out, self._read, self._source = review, out, read, source
        self._shown: Shown = "all"
        self._names = review.names()
        self._at = next((n for n, name in enumerate(self._names) if review.label_of(name) is None), 0)
        self._note: tuple[str, str] | None = None
        self._told = False
        self._said = ""

    def run(self) -> None:
        drawn, since = None, monotonic()
        while True:
            name = self._names[self._at] if self._names else None
            if name != drawn:
                drawn, since, self._told = name, monotonic(), False
            self._draw(name)
            key = self._read()
            self._said = ""
            if key in ("", "q"):
                return
            self._act(key, name, monotonic() - since)

    def _act(self, key: str, name: str | None, seconds: float) -> None:
        low = key.casefold()
        if low in _ANSWERS and name is not None:
            self._label(low, name, seconds)
        elif low == "u":
            found = self._review.undo()["item"]
            self._said = "Nothing to undo." if found is None else "Taken back."
            if found is not None:
                self._filter("all", found["id"])
        elif low in ("j", "k") and self._names:
            self._at = (self._at + (1 if low == "j" else -1)) % len(self._names)
        elif low == "f":
            self._filter(_FILTERS[(_FILTERS.index(self._shown) + 1) % len(_FILTERS)], name)
        elif low == "t" and name is not None:
            self._take_note(name)
        elif low == "v":
            self._told = not self._told
        else:
            self._said = _HELP

    def _label(self, key: str, name: str, seconds: float) -> None:
        answer, faults = _ANSWERS[key]
        before = self._review.label_of(name)
        note = self._note[1] if self._note and self._note[0] == name else (before.note if before else "")
        self._review.label(name, answer, faults=faults, note=note, seconds=round(seconds, 1))
        self._note = None
        order = [*self._names[self._at + 1 :], *self._names[: self._at]]
        following = next((other for other in order if self._review.label_of(other) is None), name)
        self._filter(self._shown, following)
        self._said = "All pairs are labelled; q ends." if self._review.counts()["open"] == 0 else f"{answer}: saved"

    def _take_note(self, name: str) -> None:
        self._out.print("Note: ", end="")
        with _line_mode(self._source):
            text = self._source.readline().strip()
        label = self._review.label_of(name)
        if label is None or (label.verdict is None and label.answer != "skipped"):
            self._note = (name, text)
            self._said = "The note is saved with your answer."
        else:
            self._review.label(name, label.answer, faults=label.faults, note=text)  # type: ignore[arg-type]
            self._said = "Note saved."

    def _filter(self, shown: Shown, keep: str | None) -> None:
        self._shown, self._names = shown, self._review.names(shown)
        place = self._names.index(keep) if keep in self._names else min(self._at, max(len(self._names) - 1, 0))
        self._at = place

    def _draw(self, name: str | None) -> None:
        counts = self._review.counts()
        done = counts["pairs"] - counts["open"]
        if self._out.is_terminal:
            self._out.clear()
        self._out.rule(
            escape(
                f"{done} of {counts['pairs']} done · {counts['same']} same · {counts['not the same']} not the same · "
                f"{counts['skipped']} skipped · shown: {self._shown}"
            )
        )
        self._out.print(self._pair(name) if name is not None else Text("Nothing here: f chooses another filter."))
        self._out.print(Text(self._said or _HELP, style="dim"))

    def _pair(self, name: str) -> Group:
        pair = self._review.pair(name)
        place = Text(f"{self._at + 1} of {len(self._names)}  {pair['example_id']}  ", style="dim")
        place.append(f"labelled: {pair['answer']} {' '.join(pair['faults'])}".rstrip() if pair["answer"] else "open")
        given = [Text.assemble((f"{heading}: ", "dim"), " | ".join(lines)) for heading, lines in pair["given"]]
        sides = [
            Text("Original:", style="dim"),
            _marked(pair["original"], "red strike", "[-", "-]", self._out.is_terminal),
            Text("Rewrite:", style="dim"),
            _marked(pair["rewritten"], "green underline", "{+", "+}", self._out.is_terminal),
        ]
        note = [Text(f"note: {pair['note']}")] if pair["note"] else []
        gate = [Text(f"gate: {pair['outcome']} {pair['reason']} {pair['origin']}".rstrip())] if self._told else []
        return Group(place, *given, *sides, *note, *gate)


def _marked(segments: list[list[Any]], style: str, left: str, right: str, coloured: bool) -> Text:
    text = Text()
    for part, changed in segments:
        if changed and not coloured:
            body = part.lstrip()
            text.append(f"{part[: len(part) - len(body)]}{left}{body}{right}")
        else:
            text.append(part, style=style if changed else "")
    return text


@contextmanager
def _keys(source: TextIO) -> Iterator[ReadKey]:
    """Reads single keys from a terminal without waiting for Enter, or else the first letter of each line."""
    if not source.isatty():

        def line() -> str:
            for text in iter(source.readline, ""):
                if text.strip():
                    return text.strip()[0]
            return ""

        yield line
        return
    import os
    import select
    import termios
    import tty

    handle = source.fileno()
    before = termios.tcgetattr(handle)

    def key() -> str:
        first = os.read(handle, 1)
        if first == b"\x1b":  # an arrow key comes as three bytes; Escape alone as one
            if not select.select([handle], [], [], 0.05)[0]:
                return "?"
            return {b"[C": "j", b"[D": "k"}.get(os.read(handle, 2), "?")
        return "" if first in (b"", b"\x04") else first.decode("ascii", "replace")

    try:
        tty.setcbreak(handle)
        yield key
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


@contextmanager
def _line_mode(source: TextIO) -> Iterator[None]:
    """The terminal as usual while the block runs: a line with echo, ended by Enter."""
    if not source.isatty():
        yield
        return
    import termios

    handle = source.fileno()
    before = termios.tcgetattr(handle)
    usual = termios.tcgetattr(handle)
    usual[3] |= termios.ICANON | termios.ECHO
    try:
        termios.tcsetattr(handle, termios.TCSADRAIN, usual)
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
