"""What proposes where a soft prompt restarts: one protocol, `propose(history, k)`."""

from __future__ import annotations

from optaware.train.methods.prompt_tuning.proposers._make import make_proposer
from optaware.train.methods.prompt_tuning.proposers._protocol import (
    Candidate,
    History,
    Proposal,
    Proposed,
    Proposer,
    Trial,
    Vocabulary,
)

__all__ = ["Candidate", "History", "Proposal", "Proposed", "Proposer", "Trial", "Vocabulary", "make_proposer"]
