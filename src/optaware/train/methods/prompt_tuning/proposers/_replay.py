"""Proposals that were recorded by an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optaware._io import file_sha256, read_jsonl
from optaware.errors import InputError
from optaware.train.methods.prompt_tuning.proposers._protocol import History, Proposal, Proposed

__all__ = ["Replay"]


@dataclass(frozen=True)
class Replay:
    """Gives the texts recorded for the same task, seed and round, whatever the trajectory is now.

    The recording's author saw its own trajectory; on other hardware or with other settings the texts are still its
    answers to that one, which a report has to say.

    Args:
        texts: By task, seed and round.
    """

    texts: dict[tuple[str, int, int], tuple[str, ...]]
    asks: int = 1

    @classmethod
    def read(cls, path: Path, sha256: str | None = None, llm: str | None = None) -> Replay:
        """Read a recording: JSONL with `task`, `seed`, `round` and `texts` a line; other fields are left alone.

        Rows that name an LLM (field `llm`) count for that one only, so a recording may hold several.

        Raises:
            InputError: It is missing, malformed, not the one that was meant, or of other LLMs than the one wanted.
        """
        rows = read_jsonl(path)
        if sha256 is not None and file_sha256(path) != sha256:
            raise InputError.of(
                "replay-changed", str(path), "it is not the recording that the spec names", "Plan again."
            )
        authors = {str(row["llm"]) for row in rows if isinstance(row, dict) and row.get("llm") is not None}
        if authors and llm is not None and llm not in authors:
            raise InputError.of(
                "replay-other-llm",
                f"llm: {llm}",
                f"{path} has the proposals of {', '.join(sorted(authors))}",
                "Name one of them as llm, or record the model that is meant.",
            )
        texts: dict[tuple[str, int, int], tuple[str, ...]] = {}
        for number, row in enumerate(rows, 1):
            if isinstance(row, dict) and row.get("llm") is not None and llm not in (None, row["llm"]):
                continue
            try:
                texts[str(row["task"]), int(row["seed"]), int(row["round"])] = tuple(map(str, row["texts"]))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError.of(
                    "replay-malformed",
                    f"{path}:{number}",
                    f"it has not task, seed, round and texts ({error!r})",
                    "Give a proposals.jsonl as runs write it.",
                ) from None
        return cls(texts)

    def propose(self, history: History, k: int) -> Proposed:
        """The recorded texts, at most k."""
        found = self.texts.get((history.task, history.seed, history.round))
        if found is None:
            return Proposed(
                (), (f"nothing is recorded for {history.task}, seed {history.seed}, round {history.round}",)
            )
        return Proposed(tuple(Proposal(text=text) for text in found[:k]))
