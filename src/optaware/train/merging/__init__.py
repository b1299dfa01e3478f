"""Merging LoRA adapters on what they add to the weights, ΔW = s·B·A, and never on the factors A and B by themselves.

Averages of A and of B are no average of B·A. Here a weighted sum is made exactly, by putting the factors side by side;
TIES and DARE, which are no weighted sums, work on ΔW in fp32.
"""

from __future__ import annotations

from optaware.train.merging._adapter import Adapter, Layer
from optaware.train.merging._apply import applied, gated, zeroed
from optaware.train.merging._compatible import check_compatible
from optaware.train.merging._dense import dare, ties
from optaware.train.merging._identity import IDENTITY_TOLERANCE, check_identity, cosines, identity_error
from optaware.train.merging._linear import add_expert, weighted
from optaware.train.merging._peft import read_adapter, write_adapter
from optaware.train.merging._search import Found, Validation, greedy_soup, learned, scaled, validation_softmax

__all__ = [
    "IDENTITY_TOLERANCE",
    "Adapter",
    "Found",
    "Layer",
    "Validation",
    "add_expert",
    "applied",
    "check_compatible",
    "check_identity",
    "cosines",
    "dare",
    "gated",
    "greedy_soup",
    "identity_error",
    "learned",
    "read_adapter",
    "scaled",
    "ties",
    "validation_softmax",
    "weighted",
    "write_adapter",
    "zeroed",
]
