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

    def repeated(self, body: bytes, answer: Completion, before: bytes | None) -> bytes | None:
        """The digest of these bytes when they were an earlier request's answer, else None.

        Args:
            body: The answer's bytes.
            answer: What they say.
            before: The digest that this request was turned away for before, on another connection. The same one again
                is what the endpoint means; another one only shows that the second connection was out of step too.
        """
        if len(answer.id) < _SHORTEST_ID or self._false_alarms >= _FALSE_ALARMS:
            return None
        digest = sha256(body).digest()[:16]
        if digest in self._known:
            self._false_alarms += digest == before
            return None if digest == before else digest
        self._known[digest] = None
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return None
