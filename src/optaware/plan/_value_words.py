from __future__ import annotations

import re

from optaware.plan._words import normal_text
from optaware.records import PlanValue

__all__ = ["is_baseline_word", "is_removal"]

_REMOVAL = re.compile(r"(?:no|without|w/o|omit|drop|disable|remove)\b.*|none|off|disabled|removed|nothing|n/a", re.S)
_BASELINE = re.compile(
    r".*\b(?:baseline|default|original|unchanged|as proposed|as in the paper|ours|full method|current)\b.*", re.S
)


def is_removal(value: PlanValue) -> bool:
    """Whether an alternative means that the part is taken away: none, off, "no …", "without …"."""
    return value.kind == "none" or value.value is False or _REMOVAL.fullmatch(normal_text(value.text)) is not None


def is_baseline_word(text: str) -> bool:
    """Whether an alternative says itself that it is the baseline: default, original, as in the paper."""
    return _BASELINE.fullmatch(normal_text(text)) is not None
