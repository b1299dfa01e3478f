from __future__ import annotations

from pathlib import Path
from typing import Any

from optaware._io import read_json
from optaware.errors import InputError
from optaware.records.plan_run import PlannedRuns
from optaware.report import AblationRun, CurvePoint, ReportRun, load_report_run
from optaware.store import Store
from optaware.study._script_one import ScriptFolder

__all__ = ["Measures", "measure_runs"]

_NAMES = {"f1": "F1", "gci": "GCI"}
"""Names of `RunResult.metrics` that plans write otherwise."""


Measures = tuple[dict[str, AblationRun], AblationRun | None]
"""Runs by id, and the baseline's repetition."""


def measure_runs(planned: PlannedRuns, store: Store, folder: Path, *, scripts: bool) -> Measures:
    """Read what all runs of a plan measured, finished or not.

    Args:
        planned: Arms and run ids.
        store: Where the runs lie.
        folder: The plan's own folder; the repeated run lies in it.
        scripts: Whether they are runs of a stranger's script.
    """
    seeds: dict[str, int] = {}
    arms = [planned.baseline, *(arm for entry in planned.ablations for arm in entry.arms)]
    for arm in [*arms, *([planned.noise] if planned.noise else [])]:
        seeds |= {run_id: seed for seed, run_id in arm.runs.items()}
    if planned.zero_shot:
        seeds[planned.zero_shot] = 0
    read = _script if scripts else _own
    kind = "scripts" if scripts else "runs"
    places = _places(store.root / kind)
    found = {run_id: read(places.get(run_id), run_id, seed) for run_id, seed in seeds.items()}
    again = None
    if planned.repeat:
        path = _places(folder / "repeat" / kind).get(planned.repeat)
        again = read(path, planned.repeat, planned.spec.seeds[0])
    return found, again


def _places(root: Path) -> dict[str, Path]:
    return {path.name[:12]: path for path in root.iterdir() if path.is_dir()} if root.is_dir() else {}


def _own(path: Path | None, run_id: str, seed: int) -> AblationRun:
    if path is None:
        return AblationRun(run_id, seed, "missing", detail="not started")
    try:
        run = load_report_run(path)
        if run.result is None:
            return AblationRun(run_id, seed, run.state, detail=run.detail)
        return _measured(run, seed)
    except InputError as error:
        return AblationRun(run_id, seed, "failed", detail=f"its records cannot be used: {error}")


def _measured(run: ReportRun, seed: int) -> AblationRun:
    result = run.result
    assert result is not None
    values: dict[str, float | None] = {
        _NAMES.get(name, name.replace("_", " ") if name in ("mean_task_accuracy",) else name): value
        for name, value in result.metrics.items()
    }
    trained = result.steps > 0
    memory = result.metrics.get("training_peak_bytes") or result.peak_memory_bytes
    speed = run.spec.schedule.batch_size / result.step_s_median if result.step_s_median else None
    values |= {
        "accuracy": result.test.accuracy if result.test else None,
        "loss": result.test.loss if result.test else None,
        "forward passes": float(result.forwards),
        "steps": float(result.steps),
        "wall time": result.train_s + result.eval_s,
        "training time": result.train_s if trained else None,
        "peak memory": float(memory) if memory else None,
        "training speed": speed if trained else None,
        "diverged": float(result.outcome == "diverged"),
    }
    resolved = run.folder / "resolved.json"
    facts = read_json(resolved) if resolved.exists() else {}
    device = str(facts.get("device", ""))
    if device.startswith("cuda"):
        values["GPU-hours"] = (result.train_s + result.eval_s) / 3600
    predictions = run.folder / "predictions.jsonl"
    correct = {item.example_id: int(item.correct) for item in run.predictions()} if predictions.exists() else None
    curve = tuple(point for row in run.evals() if (point := _point(row)) is not None)
    if not trained and not curve and result.dev is not None:  # the untrained model: where every curve begins
        curve = (CurvePoint(0, 0, result.dev.loss, result.dev.accuracy),)
    shown = f"{facts['device_name']} ({device})" if facts.get("device_name") else device
    return AblationRun(
        run.run_id, seed, run.state, values, correct, curve, run.detail, dict(run.environment), device=shown
    )


def _point(row: dict[str, Any]) -> CurvePoint | None:
    loss, accuracy = row.get("loss"), row.get("accuracy")
    if not isinstance(row.get("step"), int):
        return None
    return CurvePoint(
        step=int(row["step"]),
        forwards=int(row.get("forwards") or 0),
        loss=float(loss) if isinstance(loss, int | float) else None,
        accuracy=float(accuracy) if isinstance(accuracy, int | float) else None,
    )


def _script(path: Path | None, run_id: str, seed: int) -> AblationRun:
    if path is None:
        return AblationRun(run_id, seed, "missing", detail="not started")
    folder = ScriptFolder(path)
    environment = read_json(path / "env.json") if (path / "env.json").exists() else {}
    if not folder.is_done:
        status = folder.read_status()
        failed = status.get("state") == "failed"
        detail = str(status.get("detail", "")) if failed else f"not finished: {status.get('state', 'not started')}"
        return AblationRun(run_id, seed, "failed" if failed else "missing", detail=detail, environment=environment)
    result = folder.read_result()
    values: dict[str, float | None] = {
        "wall time": result.wall_s,
        "processor time": result.cpu_s,
        "peak memory": float(result.peak_memory_bytes),
        **result.metrics,
    }
    return AblationRun(run_id, seed, "done", values, environment=environment)
