from __future__ import annotations

__all__ = ["split_outside_brackets"]

_CLOSERS = {")": "(", "]": "[", "}": "{"}


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas outside brackets; pieces are stripped, empty ones left out.

    A bracket without its partner protects nothing, so one that was left open cannot swallow the rest of the list.
    """
    inside = [0] * (len(text) + 1)
    waiting: list[tuple[str, int]] = []
    for index, char in enumerate(text):
        if char in "([{":
            waiting.append((char, index))
        elif char in _CLOSERS and waiting and waiting[-1][0] == _CLOSERS[char]:
            _, start = waiting.pop()
            inside[start] += 1
            inside[index] -= 1
    pieces: list[str] = []
    depth = start = 0
    for index, char in enumerate(text):
        depth += inside[index]
        if char == "," and depth == 0:
            pieces.append(text[start:index])
            start = index + 1
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]
