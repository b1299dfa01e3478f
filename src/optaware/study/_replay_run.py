from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from optaware._io import read_jsonl
from optaware.errors import InputError
from optaware.records import ModelRef, Record, ZerothOrderConfig
from optaware.store import RunFolder
from optaware.study._load_run import with_adapter

__all__ = ["ReplayReport", "replay_file", "replay_run"]


class ReplayReport(Record):
    """What a replay gave.

    Attributes are those of the command's JSON output. `exact`: the platform is the one that the journal was written on,
    so the weights are those of the training to the bit; otherwise no weight is further from it than `bound` times the
    largest of its tensor. `compared`: with the run's kept weights, when it has any of that step, or with the digest
    that an optimizer left at its end; `largest_difference` is relative to the largest weight of a tensor.
    """

    run_id: str
    step: int
    exact: bool
    bound: float
    compared: bool
    identical: bool | None = None
    largest_difference: float | None = None
    out: str | None = None


def replay_run(folder: RunFolder, *, step: int | None = None, out: Path | None = None) -> ReplayReport:
    """Rebuild a run's weights from the base model and its journal; compare them with those it kept, and write them.

    Args:
        folder: The run.
        step: After which update; None: the step whose weights the run chose, or the journal's last.
        out: Folder to write the model (or adapter) to; None: it is only compared.

    Raises:
        InputError: The run has no journal, or too short a one; `out` is already there.
        IntegrityError: The journal belongs to other weights.
    """
    from optaware.models import load_model
    from optaware.train import replay, save_weights

    spec = folder.read_spec()
    if not isinstance(spec.method, ZerothOrderConfig) or not folder.journal.exists():
        raise InputError.of(
            "journal-missing",
            folder.path.name,
            "only forward-only methods write a journal, when they train",
            "Name a run of such a method.",
            str(folder.path),
        )
    _check_out(out)
    best = _best_step(folder)
    loaded = load_model(spec.model, device=spec.device)
    outcome = replay(folder.journal, loaded.model, base=loaded.sha256, upto=best if step is None else step)
    difference = _difference(outcome.model, folder.path / "weights") if outcome.step == best else None
    if out is not None:
        save_weights(outcome.model, loaded.tokenizer, out)
    return ReplayReport(
        run_id=folder.run_id,
        step=outcome.step,
        exact=outcome.exact,
        bound=outcome.bound,
        compared=difference is not None,
        identical=None if difference is None else difference == 0.0,
        largest_difference=difference,
        out=None if out is None else str(out),
    )


def replay_file(
    path: Path,
    model: str,
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    adapter: Path | None = None,
    step: int | None = None,
    out: Path | None = None,
) -> ReplayReport:
    """Rebuild weights from a base model and a journal file alone, as `ZerothOrder` and its Trainer mixin write it.

    Args:
        path: The journal.
        model: Name or path of the base model.
        dtype: Precision of its weights; None: what the journal says, else bf16.
        adapter: Folder of the PEFT adapter that the training started from; None: it had none.
        step: After which update; None: the journal's last.
        out: Folder to write the model (or adapter) to; None: nothing is written.

    Raises:
        InputError: The journal has fewer steps; `out` is already there.
        IntegrityError: The file is no journal, or one of other weights.
    """
    from optaware.models import load_model
    from optaware.train import read_journal, replay, save_weights

    _check_out(out)
    header, _ = read_journal(path)
    held: Any = dtype or header.dtype or ModelRef(name=model).dtype
    loaded = load_model(ModelRef(name=model, dtype=held), device=header.device)
    if adapter is not None:
        loaded = with_adapter(loaded, adapter)
    outcome = replay(path, loaded.model, base=loaded.sha256, upto=step)
    if out is not None:
        save_weights(outcome.model, loaded.tokenizer, out)
    return ReplayReport(
        run_id=str(path),
        step=outcome.step,
        exact=outcome.exact,
        bound=outcome.bound,
        compared=outcome.identical is not None,
        identical=outcome.identical,
        out=None if out is None else str(out),
    )


def _check_out(out: Path | None) -> None:
    if out is not None and out.exists():
        raise InputError.of("folder-exists", str(out), "it is already there", "Name a folder that is not there yet.")


def _best_step(folder: RunFolder) -> int | None:
    if folder.is_done:
        return folder.read_result().best_step
    rows = read_jsonl(folder.evals, torn_tail=True) if folder.evals.exists() else []
    best = [row["step"] for row in rows if row["best"]]
    return int(best[-1]) if best else None


def _difference(model: Any, weights: Path) -> float | None:
    """Largest difference of a tensor to the kept one, relative to the largest kept weight; None: nothing was kept."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    files = sorted(weights.glob("*.safetensors"))
    if not files:
        return None
    adapter = hasattr(model, "peft_config")
    own = get_peft_model_state_dict(model, save_embedding_layers=False) if adapter else model.state_dict()
    worst = 0.0
    for path in files:
        for name, kept in load_file(path).items():
            made = own[name].detach().cpu()
            if not torch.equal(made, kept):
                scale = float(kept.abs().max().double()) or 1.0
                worst = max(worst, float((made.double() - kept.double()).abs().max()) / scale)
    return worst
