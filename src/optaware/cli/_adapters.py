from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, store_at

__all__ = ["app"]

app = App(name="adapters", help="Merge LoRA adapters on what they add to the weights; train the experts of a run.")


@app.command
def merge(
    *adapters: Path,
    method: Annotated[Literal["uniform", "ties", "dare"], Parameter(help="How the adapters become one.")] = "uniform",
    out: Annotated[Path, Parameter(name=("--out", "-o"), help="A new folder for the merged adapter.")],
    weights: Annotated[
        str | None,
        Parameter(help="One weight per adapter, in their order, with commas (`--weights 0.7,0.3`)."),
    ] = None,
    scale: Annotated[float, Parameter(help="Factor of the merged ΔW.")] = 1.0,
    density: Annotated[
        float | None, Parameter(help="Share of entries that TIES (default 0.2) or DARE (0.5) keep.")
    ] = None,
    seed: Annotated[int, Parameter(help="Draws DARE's masks.")] = 0,
    missing: Annotated[
        Literal["refuse", "zero"], Parameter(help="What a layer that some adapters lack means.")
    ] = "refuse",
    json: AsJson = False,
) -> int:
    """Merge LoRA adapters in PEFT's layout into one that PEFT loads, and check the result against what it should be.

    Ranks may differ. The base model must be one; layers must be the same unless --missing zero is given. Methods that
    choose weights on validation rows need a model and data: they are switches of the method seeded-lora.

    Parameters
    ----------
    adapters
        Folders with adapter_config.json and adapter_model.safetensors.
    """
    from optaware.errors import InputError
    from optaware.train.merging import (
        IDENTITY_TOLERANCE,
        check_identity,
        dare,
        identity_error,
        read_adapter,
        ties,
        weighted,
        write_adapter,
    )

    if out.exists():
        raise InputError.of("output-exists", str(out), "it would be overwritten", "Name a new folder.")
    if weights is not None and method != "uniform":
        raise InputError.of(
            "weights-count", f"--weights with --method {method}", "it is no weighted sum", "Leave the weights out."
        )
    read = [read_adapter(path) for path in adapters]
    if method in ("ties", "dare"):
        if method == "ties":
            merged = ties(read, density=density or 0.2, scale=scale, missing=missing)
        else:
            merged = dare(read, density=density or 0.5, scale=scale, seed=seed, missing=missing)
        reference, factors = [merged], [1.0]
    else:
        factors = [scale * weight for weight in _numbers(weights) or [1 / max(1, len(read))] * len(read)]
        merged = weighted(read, factors, missing=missing)
        reference = read
    write_adapter(merged, out)
    error = identity_error(read_adapter(out), reference, factors)
    check_identity(error, str(out))
    ranks = sorted({layer.rank for layer in merged.layers.values()})
    facts = {
        "out": str(out),
        "method": method if weights is None else "weighted",
        "base": merged.base,
        "adapters": [str(path) for path in adapters],
        "layers": len(merged.layers),
        "ranks": ranks,
        "identity_error": error,
    }
    if json:
        print_json(facts)
    else:
        shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        print(f"{out}: {len(read)} adapters of {merged.base or 'an unnamed model'}, rank {shown}")
        print(f"identity error {error:.1e} (at most {IDENTITY_TOLERANCE:.0e})")
    return 0


def _numbers(text: str | None) -> list[float]:
    from optaware.errors import InputError

    try:
        return [float(part) for part in text.split(",")] if text is not None else []
    except ValueError as error:
        raise InputError.of(
            "weights-count", f"--weights {text}", f"it is no list of numbers ({error})", "As in --weights 0.7,0.3."
        ) from None


@app.command
def experts(
    spec: Path,
    /,
    *,
    workers: Annotated[int, Parameter(help="Processes that share out the experts.")] = 1,
    store: StoreDir = None,
    data: DataDir = None,
) -> int:
    """Train the experts of a seeded-lora run beforehand, in several processes if asked.

    The run itself then only merges and tests. What is there already is left alone; the same command resumes.

    Parameters
    ----------
    spec
        Run spec (YAML or JSON) of a seeded-lora run.
    """
    from optaware.cli._train import load_run_spec
    from optaware.errors import OptawareError
    from optaware.execute import Job, Subprocess
    from optaware.study import stop_requests
    from optaware.train.methods.seeded_lora import train_experts

    run, place, rows = load_run_spec(spec), store_at(store), data_dir(data)
    folder = place.run_folder(run)
    folder.path.mkdir(parents=True, exist_ok=True)
    with stop_requests() as should_stop:
        if workers <= 1:
            trained = train_experts(run, folder, data_dir=rows, should_stop=should_stop)
            print(f"{trained} adapters were trained here; all are there")
            return 0
        options = ("--store", str(place.root), *(("--data-dir", str(rows)) if rows else ()))
        jobs = [
            Job(
                key=f"{folder.run_id}-{number}",
                title=f"experts {number + 1} of {workers}",
                arguments=("adapters", "experts", str(spec), *options),
                log=folder.path / f"experts-{number}.txt",
                threads=1,
            )
            for number in range(workers)
        ]
        ended = Subprocess(workers, should_stop).run(jobs, lambda event: None)
    for outcome in ended:
        if outcome.state != "done":
            raise OptawareError.of(
                "experts-failed", outcome.key, outcome.detail or outcome.state, f"See {folder.path}; run it again."
            )
    print("all adapters are there")
    return 0
