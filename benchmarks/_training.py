"""A whole run of `optaware.train.train`, as `optaware train` makes it, on a model of known shape."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _shapes import METHODS, SEED
from optaware._io import read_json, write_json
from optaware.models import EncodedExample, OptionScorer
from optaware.records import DataRef, Fast, Method, ModelRef, RunSpec, Schedule
from optaware.store import RunFolder
from optaware.train import train

__all__ = ["TRAINED", "train_whole"]

TRAINED: dict[str, Method] = {
    "train-low-rank-host": Fast(**METHODS["low-rank"].model_dump(exclude={"host_residuals"}), host_residuals=True),
    "train-low-rank": METHODS["low-rank"],
    "train-dense-stochastic": METHODS["dense-stochastic"],
}


def train_whole(variant: str, model: Any, rows: list[EncodedExample], steps: int) -> str:
    """Train: check at the start, steps, two evaluations on rows of the batch's size, checkpoints, the best weights.

    Returns:
        What made the steps: "fused", or "not fused" and why.
    """
    spec = RunSpec(
        model=ModelRef(name="shape", dtype="bf16"),
        data=DataRef(task="random"),
        method=TRAINED[variant],
        schedule=Schedule(steps=steps, batch_size=len(rows), eval_every=max(1, steps // 2)),
        seed=SEED,
        keep_weights=False,
    )
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        write_json(folder.resolved, {})
        train(
            spec,
            folder,
            loaded=SimpleNamespace(model=model, tokenizer=None, sha256="0" * 64),  # type: ignore[arg-type]
            scorer=OptionScorer(model, SimpleNamespace(pad_token_id=0, eos_token_id=0)),
            train_rows=rows,
            dev_rows=rows,
            objective="options",
        )
        return str(read_json(folder.resolved)["step"])
