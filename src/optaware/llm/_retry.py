"""Which faults of an endpoint are worth another try, and how long to wait before it."""

from __future__ import annotations

import email.utils
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["RETRYABLE_STATUS", "RetryPolicy", "is_retryable", "retry_after_s"]

RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
"""Client-side statuses that may pass by themselves; all of 5xx are retried too."""


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in RETRYABLE_STATUS or 500 <= status <= 599


@dataclass(frozen=True)
class RetryPolicy:
    """How stubborn a session is.

    Attributes:
        max_retries: Further attempts per request after retryable faults.
        base_s: Upper bound of the first wait.
        cap_s: Upper bound of any wait of our own choice.
        retry_after_cap_s: Longest wait that an endpoint may ask for; beyond it the run stops and says so.
        startup_s: An endpoint from which not one HTTP answer came in this time counts as dead.
        bad_body_retries: Further attempts after an answer that is not a usable completion.
        give_up_after: So many requests in a row that ran out of attempts end the run.
    """

    max_retries: int = 6
    base_s: float = 0.5
    cap_s: float = 60.0
    retry_after_cap_s: float = 600.0
    startup_s: float = 5.0
    bad_body_retries: int = 2
    give_up_after: int = 16

    def backoff_s(self, attempt: int, draw: random.Random) -> float:
        """Exponential back-off with full jitter: uniform on `[0, min(cap_s, base_s · 2^(attempt − 1))]`.

        Args:
            attempt: How many attempts have failed (from 1).
            draw: The session's own generator.
        """
        return draw.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60)))


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an endpoint asks to wait: `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date.

    Args:
        headers: Response headers; lookup must ignore case (or the names be lower-case).
        now: Seconds since the epoch.

    Returns:
        At least 0; None when neither header is there or can be read.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
            except (TypeError, ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
