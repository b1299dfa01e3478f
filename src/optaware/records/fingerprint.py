"""The identity of a spec: SHA-256 of its canonical JSON, versioned, without the fields that do not change results."""

from __future__ import annotations

import weakref
from typing import Any

from optaware._io import canonical_json, text_sha256
from optaware.records._base import Record
from optaware.records.chat import ChatModelRef

__all__ = ["ADDED", "FINGERPRINT_VERSION", "LEFT_OUT", "REACHED", "fingerprint", "hashed_fields", "short_id"]

FINGERPRINT_VERSION = 2
"""Raised whenever the meaning of a hashed field changes, so that old folders are not mistaken for new ones."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "RunSpec": {
        "keep_weights": "decides what stays on disk afterwards, not what is computed",
    },
    "CorpusSpec": {
        "template": "a path; the content behind it is hashed as rewriter_prompt_id",
        "given": "a path; its content is hashed as given_sha256",
        "judge_file": "a path; its content is hashed in judge_prompt_ids",
    },
    "ScriptSpec": {
        "arm": "a name for people; the command says what is run",
        "timeout_s": "a run that is ended has no result",
    },
    "DesignSpec": {
        "paper": "a path; the content is hashed beside it",
        "judge_file": "a path; the content is hashed beside it",
        "max_calls": "where a build stops and goes on does not change it",
    },
    "PlanRunSpec": {
        "workers": "how many runs go on at once does not change any of them",
        "timeout_s": "a run that is ended has no result",
        "description": "a text for people",
        "plan": "a path; the plan's content is hashed beside it",
        "binding": "a path, and a person may edit it; each run has a hash of its own",
        "manifest": "a path; its content is hashed beside it",
        "scales": "the chosen one is already put in",
        "smallest_effect": "verdicts are rebuilt from records",
        "target_share": "rebuilt from records",
        "primary": "verdicts are rebuilt from records",
        "better": "verdicts are rebuilt from records",
    },
    "StudySpec": {
        "workers": "how many runs go on at once does not change any of them",
        "report": "the report is rebuilt from records",
        "budget_gpu_hours": "it decides whether to begin, not what comes out",
    },
}
"""Fields left out of the hash by record class, each with the reason."""

REACHED = ("concurrency", "timeout_s", "max_retries", "budget_usd", "budget_tokens")
"""Fields of a chat model that say how fast and how far it is asked, not what it answers: hashed with their defaults, so
that a larger budget or another number of requests at once makes no other corpus. (`api_key_env` would belong here, but
corpora of earlier versions that name another variable would lose their ids.)"""

ADDED: dict[str, dict[str, object]] = {
    "CorpusSpec": {
        "retries": 0,
        "retry_prompt_id": None,
        "search": None,
        "held_out_sha256": None,
        "given_sha256": None,
    },
    "VariantSpec": {"retries": 0, "search": None, "rows": None},
    "Method": {"fused": "auto", "host_residuals": False},
    "MethodArm": {"grid": {}},
    "RunSpec": {"score_test": True, "deterministic": False},
    "ExpertSpec": {"deterministic": False},
    "PlanRunSpec": {"deterministic": False},
    "Selection": {"prune": None},
    "StudySpec": {
        "selection": {"seeds": None, "per_seed": False},
        "memory": None,
        "scale": None,
        "judge_file": None,
        "deterministic": False,
    },
}
"""Fields that came later, with the value that means what was done before they were there: with it they are not hashed,
so that corpora, runs and studies keep their ids."""


def fingerprint(spec: Record) -> str:
    """SHA-256 (hexadecimal) of `spec`'s class name, fingerprint version and hashed fields.

    Two specs with the same fingerprint give the same result on the same machine and library versions.
    """
    whole = {"kind": type(spec).__name__, "fingerprint_version": FINGERPRINT_VERSION, "fields": hashed_fields(spec)}
    return text_sha256(canonical_json(whole))


def hashed_fields(spec: Record) -> dict[str, Any]:
    """The fields that make a spec what it is, as they are hashed: what two specs of one id agree in."""
    name = type(spec).__name__
    left_out = LEFT_OUT.get(name, {})
    data = spec.to_json()
    for field, value in spec:
        if isinstance(value, ChatModelRef):
            data[field] |= {each: ChatModelRef.model_fields[each].default for each in REACHED}
    if name == "StudySpec":
        data["selection"] = _hashed("Selection", data["selection"])
    fields = {key: value for key, value in _hashed(name, data).items() if key not in left_out}
    if name == "StudySpec":
        fields["variants"] = [_hashed("VariantSpec", variant) for variant in fields["variants"]]
        fields["methods"] = [_hashed("MethodArm", arm) for arm in fields["methods"]]
        for arm in fields["methods"]:
            arm["config"] = _hashed("Method", arm["config"])
    if name == "RunSpec":
        fields["method"] = _hashed("Method", fields["method"])
    return fields


def short_id(spec: Record) -> str:
    """The first 12 hexadecimal digits of the fingerprint: the id of the run or corpus and of its folder.

    Records do not change, so an object's id is worked out once; a study of many runs asks for it again and again.
    """
    place = id(spec)
    known = _IDS.get(place)
    if known is not None and known[0]() is spec:
        return known[1]
    found = fingerprint(spec)[:12]
    _IDS[place] = (weakref.ref(spec, lambda _: _IDS.pop(place, None)), found)
    return found


_IDS: dict[int, tuple[weakref.ref[Record], str]] = {}
"""Ids by the object's address, for as long as the object lives."""


def _hashed(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    added = ADDED.get(name, {})
    return {key: value for key, value in fields.items() if key not in added or value != added[key]}
