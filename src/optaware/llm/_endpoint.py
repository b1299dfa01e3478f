"""Where an OpenAI-compatible endpoint is, which key opens it, and what to say when it cannot be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from optaware.errors import EndpointError, InputError, Problem
from optaware.llm._wire import Fault, Secret
from optaware.records import ChatModelRef

__all__ = ["DEFAULT_BASE_URL", "Endpoint"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Endpoint:
    """An endpoint's address and the name of the variable that holds its key; `shown` is safe to print and to hash."""

    url: str
    shown: str
    model: str
    key_env: str

    @classmethod
    def of(cls, ref: ChatModelRef) -> Endpoint:
        """From a reference; without `base_url`, `OPENAI_BASE_URL` or else OpenAI's own address.

        Raises:
            InputError: The address is not an http(s) URL.
        """
        url = (ref.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).strip()
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            parts, port = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                Problem(
                    "base-url",
                    "base_url",
                    "it is not an http:// or https:// address with a host",
                    "Give the address up to and without /chat/completions, e.g. http://localhost:8000/v1.",
                )
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        # User info and query may hold secrets: neither is printed, hashed or stored.
        shown = urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))
        return cls(url, shown, ref.model, ref.api_key_env)

    def secret(self) -> Secret:
        """Read the key from the environment now.

        Raises:
            EndpointError: OpenAI's own endpoint needs a key and there is none, or the key cannot be sent.
        """
        key = os.environ.get(self.key_env, "").strip()
        if not key and self.shown == DEFAULT_BASE_URL:
            raise self._error("endpoint-key", "no API key", f"the environment variable {self.key_env} is not set", "")
        if not all(33 <= ord(char) <= 126 for char in key):
            why = f"the value of {self.key_env} holds spaces or characters that a header cannot carry"
            raise self._error("endpoint-key", "API key", why, "")
        return Secret(key)

    def refused(self, fault: Fault, has_key: bool) -> EndpointError:
        """A fault that no retry can mend."""
        status = fault.status
        if status in (401, 403):
            key = f"the key in {self.key_env}" if has_key else f"no key was sent ({self.key_env} is not set)"
            why = f"{key}{' was not accepted' if has_key else ''}"
            advice = f"Set {self.key_env} to a key that may use {self.model!r} at {self.shown}."
        elif status == 404:
            why = "this path or this model is not there"
            advice = f"Check base_url (most end in /v1) and the model name {self.model!r}."
        elif fault.quota_spent or status == 402:
            why, advice = (
                "the account's quota is spent",
                "Check the account's billing, then run the same command again.",
            )
        elif fault.wait_s is not None:
            why = f"it asks to wait {fault.wait_s:.0f} s"
            advice = "Run the same command again later; finished replies are kept."
        else:
            why = "the endpoint does not take this kind of request"
            advice = f"Check that {self.model!r} is a chat model and takes these settings (max_tokens, temperature)."
        return self._error("endpoint-refused", f"{self.shown} answered {status}", why + _said(fault), advice)

    def unreachable(self, fault: Fault, seconds: float) -> EndpointError:
        """Not one answer since the start."""
        return self._error(
            "endpoint-unreachable",
            self.shown,
            f"no answer within {seconds:.1f} s ({fault.detail})",
            "Check base_url, that the server is running, and the network.",
        )

    def gone(self, fault: Fault, requests: int) -> EndpointError:
        """It answered before, but the last requests all failed."""
        return self._error(
            "endpoint-gone",
            self.shown,
            f"{requests} requests in a row failed after all retries, the last with {fault.code} ({fault.detail})",
            "Run the same command again when it is back; finished replies are kept.",
        )

    def _error(self, code: str, given: str, why: str, advice: str) -> EndpointError:
        return EndpointError(
            Problem(code, given, why, advice or f"Set {self.key_env} in the environment of this command.")
        )


def _said(fault: Fault) -> str:
    return f"; it says: {fault.detail}" if fault.detail else ""
