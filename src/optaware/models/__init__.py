"""Causal language models: load, encode, score answer options, generate; and a tiny one for tests.

Names are imported when they are first used, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optaware.models._deterministic import deterministic_kernels
    from optaware.models._encode import EncodedExample, encode
    from optaware.models._energy import Counter, CounterError, EnergyMeter
    from optaware.models._generate import Generation, generate
    from optaware.models._introspect import unwrap
    from optaware.models._kept_prefixes import KeptPrefixes
    from optaware.models._load import LoadedModel, list_model_names, load_model
    from optaware.models._memory import (
        free_cached_memory,
        held_memory_bytes,
        is_out_of_memory,
        memory_errors,
        peak_memory_bytes,
    )
    from optaware.models._resolve import check_hub, is_to_be_fetched
    from optaware.models._scoring import Objective, OptionScorer
    from optaware.models._size import ModelSize, model_size
    from optaware.models._tiny import tiny_model

__all__ = [
    "Counter",
    "CounterError",
    "EncodedExample",
    "EnergyMeter",
    "Generation",
    "KeptPrefixes",
    "LoadedModel",
    "ModelSize",
    "Objective",
    "OptionScorer",
    "check_hub",
    "deterministic_kernels",
    "encode",
    "free_cached_memory",
    "generate",
    "held_memory_bytes",
    "is_out_of_memory",
    "is_to_be_fetched",
    "list_model_names",
    "load_model",
    "memory_errors",
    "model_size",
    "peak_memory_bytes",
    "tiny_model",
    "unwrap",
]

_HOMES = {
    "Counter": "_energy",
    "CounterError": "_energy",
    "EncodedExample": "_encode",
    "EnergyMeter": "_energy",
    "Generation": "_generate",
    "KeptPrefixes": "_kept_prefixes",
    "LoadedModel": "_load",
    "ModelSize": "_size",
    "Objective": "_scoring",
    "OptionScorer": "_scoring",
    "check_hub": "_resolve",
    "deterministic_kernels": "_deterministic",
    "encode": "_encode",
    "free_cached_memory": "_memory",
    "generate": "_generate",
    "held_memory_bytes": "_memory",
    "is_out_of_memory": "_memory",
    "is_to_be_fetched": "_resolve",
    "list_model_names": "_load",
    "load_model": "_load",
    "memory_errors": "_memory",
    "model_size": "_size",
    "peak_memory_bytes": "_memory",
    "tiny_model": "_tiny",
    "unwrap": "_introspect",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
