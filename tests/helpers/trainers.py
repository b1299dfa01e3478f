"""The smallest trainings under other people's trainers, and what these say to each other kept out of the tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from optaware.train import ZerothOrderMixin

torch.set_num_threads(1)
os.environ.setdefault("TRACKIO_DIR", os.devnull)


class ZOTrainer(ZerothOrderMixin, Trainer):
    """The stock trainer, forward passes only."""


@contextmanager
def their_warnings_aside() -> Iterator[None]:
    """What the trainers say to each other about coming versions is not ours to mend."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, UserWarning, ImportWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(?!optaware)")
        yield


def token_rows(count: int, length: int) -> list[dict[str, Tensor]]:
    """Rows of random tokens, the same every time."""
    source = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, 250, (length,), generator=source) for _ in range(count)]
    return [{"input_ids": each, "labels": each} for each in ids]


def training_arguments(out: Path, **changes: Any) -> dict[str, Any]:
    """Six steps of a trainer that reports to nobody and saves nothing."""
    plain = {
        "output_dir": str(out),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    return plain | changes
