"""The study that the campaigns disturb: every stage of a real one, small enough to be done in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optaware._io import dump_yaml

__all__ = ["write_study"]

ROOT = Path(__file__).parents[2]


def write_study(path: Path, model: Path, chat: dict[str, Any], *, small: bool = False, workers: int = 1) -> Path:
    """Write a study over the example task: rewriting, judging, training by three methods, evaluation, report.

    Args:
        path: Its file.
        model: Folder of the tiny model.
        chat: The chat model, as `Endpoint.ref` says it.
        small: One corpus and three runs instead of two and six, for where every job is a cold process.
        workers: Runs at once.
    """
    variants = [{"name": "original"}, {"name": "paraphrase", "template": "paraphrase"}]
    methods: list[dict[str, Any]] = [
        {"config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3, "refresh_every": 3}}
    ]
    if not small:
        variants.append({"name": "oat", "template": "oat"})
        methods += [
            {"config": {"name": "fo-lora", "lr": 1.0e-3, "rank": 2}, "variants": ["original"]},
            {"label": "plain", "config": {"name": "mezo", "lr": 1.0e-4}, "variants": ["original"]},
        ]
    study = {
        "name": "torture-small" if small else "torture",
        "models": [{"name": str(model), "dtype": "fp32"}],
        "tasks": [str(ROOT / "examples" / "tasks" / "ticket_routing.yaml")],
        "protocol": {"name": "free", "train": 12, "dev": 6, "test": 9},
        "variants": variants,
        "methods": methods,
        "schedule": {"steps": 12, "batch_size": 4, "eval_every": 3, "max_length": 128},
        "seeds": [0],
        "rewriter": {**chat, "max_tokens": 64},
        "judge": {**chat, "max_tokens": 8},
        "workers": workers,
    }
    path.write_text(dump_yaml(study), "utf-8")
    return path
