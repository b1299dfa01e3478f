from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, store_at

__all__ = ["evidence"]


def evidence(
    corpus: str,
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="Model to be trained: measures zeroth-order statistics and perplexity.")
    ] = None,
    dtype: Annotated[str, Parameter(help="Its precision; half precision rounds g away.")] = "fp32",
    rows: Annotated[int, Parameter(name=("--rows", "-n"), help="Most rows that the model measures.")] = 200,
    directions: Annotated[int, Parameter(help="Directions of each row.")] = 16,
    eps: Annotated[float, Parameter(help="Perturbation scale.")] = 1e-3,
    batch_size: Annotated[int, Parameter(help="Batch that the signal-to-noise ratio is of.")] = 16,
    seed: Annotated[int, Parameter(help="Directions, folds and bootstraps are drawn from it.")] = 0,
    store: StoreDir = None,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Say what a rewritten corpus is worth before anybody trains on it; writes `evidence.md` and `evidence.json`.

    Whether the rewritten span gives the label away, what changed in the texts, whether the gate preferred a label, what
    came near dev and test rows; with `--model` whether single rows give steadier zeroth-order estimates than before.

    Parameters
    ----------
    corpus
        Corpus id, or its folder; also that of a trial of `data template build`.
    """
    from optaware.data.evidence import evidence_page
    from optaware.records import ModelRef, parse_record
    from optaware.study import gather_evidence

    path = Path(corpus)
    folder = path if (path / "spec.json").exists() else store_at(store).find_corpus(corpus)
    found = gather_evidence(
        folder,
        data_dir=data_dir(data),
        model=parse_record(ModelRef, {"name": model, "dtype": dtype}, "--model/--dtype") if model else None,
        directions=directions,
        eps=eps,
        rows=rows,
        batch_size=batch_size,
        seed=seed,
    )
    if json:
        print_json(found.to_json())
    else:
        print(evidence_page(found))
    return 0
