from __future__ import annotations

from typing import Literal

from optaware.records import Diagnostic, Repair

__all__ = ["Notes", "quote"]

LIMIT = 20


def quote(text: str, limit: int = 200) -> str:
    """Text short enough to show."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class Notes:
    """Gathers what was noticed and mended while one piece of text is read: 20 of a kind, then a line for the rest."""

    def __init__(self, line: int | None = None) -> None:
        self.line = line
        self.diagnostics: list[Diagnostic] = []
        self.repairs: list[Repair] = []

    def error(self, code: str, given: str, why: str, next: str, line: int | None = None) -> None:
        """Something that was not understood."""
        self._note("error", code, given, why, next, line)

    def warn(self, code: str, given: str, why: str, next: str, line: int | None = None) -> None:
        """Something that was understood but is probably not meant."""
        self._note("warning", code, given, why, next, line)

    def repaired(self, code: str, before: str, after: str, line: int | None = None) -> None:
        """A change made in order to read the text."""
        if len(self.repairs) == LIMIT:
            self.repairs.append(Repair(code="more-repairs", before="further places", after="mended as well"))
        if len(self.repairs) > LIMIT:
            return
        self.repairs.append(
            Repair(code=code, before=quote(before, 2000), after=quote(after, 2000), line=line or self.line)
        )

    def _note(
        self, level: Literal["error", "warning"], code: str, given: str, why: str, next: str, line: int | None
    ) -> None:
        count = sum(found.level == level for found in self.diagnostics)  # a flood of warnings must not hide an error
        if count == LIMIT:
            code, given, why = "more-problems", "further places", f"only the first {LIMIT} are listed"
        if count <= LIMIT:
            self.diagnostics.append(
                Diagnostic(level=level, code=code, given=quote(given), why=why, next=next, line=line or self.line)
            )
