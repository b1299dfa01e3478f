"""Accuracy that the defaults reach with SmolLM2-135M: zero-shot COPA, and MeZO on SST-2 by seed.

    python benchmarks/accuracy.py --data-dir DATA [--store FOLDER] [--steps 400] [--seeds 0 1 2] [--out FILE]

COPA is scored on the 600 labelled rows that training never uses (validation and test). SST-2 follows the `mezo`
protocol: 1000 training and 500 dev rows drawn from the train split, all 872 validation rows as test. Nothing is chosen
by test accuracy: the learning rate is the one fixed beforehand, the checkpoint is that with the lowest dev loss.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from _result import write_result
from optaware._io import read_jsonl
from optaware.execute import Subprocess
from optaware.records import MethodArm, MeZO, ModelRef, Protocol, Schedule, StudySpec, short_id
from optaware.store import Store
from optaware.study import plan_study, run_study
from optaware.tasks import get_task

MODEL = "smollm2-135m-instruct"


def copa(data_dir: Path) -> dict[str, object]:
    """Zero-shot accuracy on COPA's validation and test rows."""
    from optaware.evaluate import evaluate
    from optaware.models import OptionScorer, encode, load_model

    task = get_task("copa")
    rows = []
    for split in ("validation", "test"):
        path = data_dir / "copa" / f"{split}.jsonl"
        rows += [task.example(row, split, index, str(path)) for index, row in enumerate(read_jsonl(path))]
    loaded = load_model(ModelRef(name=MODEL))
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    _, score = evaluate(scorer, encode([task.render(row) for row in rows], loaded.tokenizer, 256), task.loss, None)
    return {"case": "copa zero-shot", "variant": "validation + test", "accuracy": score.accuracy, "n": score.n}


def sst2(data_dir: Path, store: Store, steps: int, seeds: tuple[int, ...], workers: int) -> list[dict[str, object]]:
    """Test accuracy of MeZO on SST-2, by seed, beside the untrained model."""
    study = StudySpec(
        name="benchmark-sst2",
        models=(ModelRef(name=MODEL),),
        tasks=("sst2",),
        protocol=Protocol(name="mezo"),
        methods=(MethodArm(config=MeZO(direction="low-rank", lr=2e-5)),),
        schedule=Schedule(steps=steps, batch_size=16, eval_every=100, max_length=256),
        seeds=seeds,
        workers=workers,
    )
    graph = plan_study(study, data_dir=data_dir)
    ended = run_study(graph, store, Subprocess(workers, lambda: False), data_dir=data_dir, on_event=print)
    if ended.failures:
        raise SystemExit(str(ended.failures))
    rows: list[dict[str, object]] = []
    for spec in graph.runs:
        result = store.run_folder(spec).read_result()
        rows.append(
            {
                "case": "sst2",
                "variant": spec.method.name,
                "seed": spec.seed,
                "run_id": short_id(spec),
                "accuracy": result.test.accuracy,
                "n": result.test.n,
                "steps": result.steps,
                "best_step": result.best_step,
                "forwards": result.forwards,
                "train_s": result.train_s,
                "peak_memory_bytes": result.peak_memory_bytes,
            }
        )
    trained = [float(str(row["accuracy"])) for row in rows if row["variant"] == "mezo"]
    mean = sum(trained) / len(trained)
    rows.append({"case": "sst2", "variant": "mezo, mean over seeds", "accuracy": mean, "seeds": len(trained)})
    return rows


def main() -> None:
    """Run both and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OPTAWARE_DATA_DIR"), required=False)
    parser.add_argument("--store", type=Path, default=Path("optaware-results"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = [copa(options.data_dir)]
    rows += sst2(options.data_dir, Store(options.store), options.steps, tuple(options.seeds), options.workers)
    write_result("accuracy", rows, out=options.out)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
