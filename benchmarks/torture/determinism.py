"""The same spec twice gives the same bytes; how far other numbers of threads or processes move the figures.

    python benchmarks/torture/determinism.py                # two models, three methods; some minutes on two cores

Each run is `optaware train` in a process of its own. `again` repeats it with one thread; `threads` gives it 2 and 4;
`ranks` shares the queries of a step among 2 and 4 processes under torchrun. Compared are the journal or the logged
losses, the scores of all answer options of the test rows, and the predicted answers. The wide model is large enough
that matrix products are split among threads.

    python benchmarks/torture/determinism.py --device cuda  # as it is, and with `deterministic: true`

On a GPU each run is repeated as it is, which may give other bits and then shows how far apart they are, and with
deterministic kernels, which may not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from _campaign import Campaign, options

from optaware._io import dump_yaml
from optaware.models import tiny_model
from optaware.records import RunSpec, parse_record
from optaware.store import Store
from optaware.train import read_journal

ROOT = Path(__file__).parents[2]
MODELS: dict[str, dict[str, int]] = {"tiny": {}, "wide": {"hidden_size": 384, "layers": 3}}
METHODS: dict[str, dict[str, Any]] = {
    "mezo, low-rank": {"name": "fast", "lr": 1.0e-3, "queries": 4, "refresh_every": 5},
    "mezo, dense": {"name": "mezo", "lr": 1.0e-4},
    "lora": {"name": "fo-lora", "lr": 1.0e-3, "rank": 4},
}
CHANGES = {
    "cpu": (("again", 1), ("threads", 2), ("threads", 4), ("ranks", 2), ("ranks", 4)),
    "cuda": (("again", 1), ("deterministic", 1)),
}
DTYPES = {"cpu": "fp32", "cuda": "bf16"}


def spec_of(
    folder: Path, model: Path, method: dict[str, Any], threads: int, steps: int, device: str, deterministic: bool
) -> RunSpec:
    """The run; threads are a part of its identity, since sums over threads round differently."""
    plain = {
        "model": {"name": str(model), "dtype": DTYPES[device]},
        "data": {
            "task": str(ROOT / "examples" / "tasks" / "ticket_routing.yaml"),
            "protocol": {"name": "free", "train": 12, "dev": 6, "test": 9},
        },
        "method": method,
        "schedule": {"steps": steps, "batch_size": 4, "eval_every": steps, "max_length": 128},
        "device": device,
        "deterministic": deterministic,
        "threads": threads,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(dump_yaml(plain), "utf-8")
    return parse_record(RunSpec, plain, "spec")


def run(folder: Path, spec: RunSpec, ranks: int = 1) -> Path:
    """Do a run in a process of its own, or in several; its folder."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "optaware", "train", str(folder / "spec.yaml")]
    done = subprocess.run(
        [*command, "--store", str(folder / "store"), "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": str(spec.threads), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return Store(folder / "store").run_folder(spec).path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def compared(one: Path, other: Path) -> dict[str, Any]:
    """How far two runs of one spec are apart."""
    same = (one / "predictions.jsonl").read_bytes() == (other / "predictions.jsonl").read_bytes()
    if (one / "journal.bin").exists():  # its header has the spec's hash; what follows are the numbers of the steps
        same = same and read_journal(one / "journal.bin")[1] == read_journal(other / "journal.bin")[1]
    losses = [[row["loss"] for row in rows_of(folder / "steps.jsonl")] for folder in (one, other)]
    tests = [rows_of(folder / "predictions.jsonl") for folder in (one, other)]
    scores = [[score for row in rows for score in row["scores"]] for rows in tests]
    return {
        "same_bytes": same and losses[0] == losses[1],
        "largest_relative_loss_change": max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)),
        "largest_score_change": max(abs(a - b) for a, b in zip(*scores, strict=True)),
        "other_answers": sum(a["predicted"] != b["predicted"] for a, b in zip(*tests, strict=True)),
    }


def main() -> int:
    """Run the campaign."""
    parser = options(__doc__, 20, "updates of each run")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", choices=CHANGES, default="cpu")
    given = parser.parse_args()
    campaign = Campaign("determinism", given)

    def made(place: Path, model: Path, method: str, change: str = "again", many: int = 1) -> Path:
        threads, ranks = many if change == "threads" else 1, many if change == "ranks" else 1
        kernels = change == "deterministic"
        spec = spec_of(place, model, METHODS[method], threads, given.count, given.device, kernels)
        return run(place, spec, ranks)

    for name in given.models:
        model = tiny_model(campaign.work / f"model-{name}", **MODELS[name])  # type: ignore[arg-type]
        for method in given.methods:
            first: dict[bool, Path] = {}
            for change, many in CHANGES[given.device]:
                key = f"{name}/{method}/{change} {many}"
                if campaign.has(key) or (change == "ranks" and METHODS[method]["name"].startswith("fo-")):
                    continue
                place = campaign.work / key.replace(" ", "-").replace(",", "")
                kernels = change == "deterministic"
                if kernels not in first:
                    base = place.with_name(f"{place.name}-first")
                    first[kernels] = made(base, model, method, "deterministic" if kernels else "again")
                found = compared(first[kernels], made(place, model, method, change, many))
                may_differ = change == "threads" or (given.device == "cuda" and not kernels)
                faults = [] if found["same_bytes"] or may_differ else [f"{key}: not the same bytes: {found}"]
                campaign.add(key, case=f"{name} model, {method}", variant=f"{change} {many}", faults=faults, **found)
    rows = [{name: value for name, value in row.items() if name not in ("key", "faults")} for row in campaign.rows]
    notes = ["against the first run with one thread and one process; scores are mean log-probabilities of the options"]
    return campaign.finish(rows, notes=notes, settings={"steps": given.count, "device": given.device, "models": MODELS})


if __name__ == "__main__":
    sys.exit(main())
