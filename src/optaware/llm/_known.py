"""Answers of a session that were seen before: an answer must not be given to two requests."""

from __future__ import annotations

from hashlib import sha256

from optaware.llm._wire import Completion

__all__ = ["KnownAnswers"]

_SHORTEST_ID = 8
_REMEMBERED = 4096
_FALSE_ALARMS = 8


class KnownAnswers:
    """Remembers the last answers of a session by their bytes.

    An answer that a proxy sends late a second time is read as the answer to whatever was asked next on that
    connection. Its id gives it away: endpoints name each answer anew ("chatcmpl-…"). Endpoints that give no such names
    are not checked, and those that turn out to use one for several answers no longer.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}
        self._false_alarms = 0

    def repeats(self, body: bytes, answer: Completion, seen_before: bool) -> bool:
        """Whether these bytes were an earlier request's answer.

        Args:
            body: The answer's bytes.
            answer: What they say.
            seen_before: This request was told so before, on another connection: then the endpoint means it.
        """
        if len(answer.id) < _SHORTEST_ID or self._false_alarms >= _FALSE_ALARMS:
            return False
        digest = sha256(body).digest()[:16]
        if digest in self._known:
            self._false_alarms += seen_before
            return not seen_before
        self._known[digest] = None
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return False
