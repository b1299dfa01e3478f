from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optaware._io import finite_or_none, write_json, write_text
from optaware.records.plan_run import PlannedRuns
from optaware.report._ablation_runs import AblationRun

if TYPE_CHECKING:
    from optaware.report._ablation_view import AblationView

__all__ = ["AblationFiles", "build_ablation_report"]


@dataclass(frozen=True)
class AblationFiles:
    """What was written: `report.html`, `report.md`, `arms.csv`, `runs.csv`, `results.json`."""

    html: Path
    markdown: Path
    csv: tuple[Path, ...]
    json: Path
    headline: str
    verdicts: tuple[tuple[str, str, str], ...]
    """Ablation, verdict, and the arms' differences in words."""


def build_ablation_report(
    planned: PlannedRuns,
    measured: tuple[Mapping[str, AblationRun], AblationRun | None],
    out: Path,
    *,
    failures: Mapping[str, str] | None = None,
) -> AblationFiles:
    """Write the report of a plan: one self-contained page, the same in Markdown, tables as CSV, everything as JSON.

    Args:
        planned: Arms and run ids.
        measured: Runs by id, and the baseline's first seed run again.
        out: Folder to write to.
        failures: Reasons by run id, for runs that left none on disk.

    Raises:
        StorageError: A file cannot be written.
    """
    from optaware.report._ablation_render import render_ablation_html, render_ablation_markdown
    from optaware.report._ablation_view import make_ablation_view

    view = make_ablation_view(planned, *measured, failures or {})
    arms, runs = out / "arms.csv", out / "runs.csv"
    write_text(arms, _csv(_arm_rows(view)))
    write_text(runs, _csv(_run_rows(view)))
    results = out / "results.json"
    write_json(results, _results(view))
    html, markdown = out / "report.html", out / "report.md"
    write_text(markdown, render_ablation_markdown(view))
    write_text(html, render_ablation_html(view, [arms.name, runs.name, results.name]))
    verdicts = tuple((table.ablation.name, str(table.verdict), table.said) for table in view.tables)
    return AblationFiles(html, markdown, (arms, runs), results, view.headline, verdicts)


def _arm_rows(view: AblationView) -> list[dict[str, Any]]:
    rows = []
    for table in view.tables:
        for arm in (table.baseline, *table.arms):
            d = arm.effect.difference if arm.effect else None
            changes = "; ".join(f"{change.field}: {change.before} -> {change.after}" for change in arm.arm.changes)
            row: dict[str, Any] = {
                "ablation": table.ablation.name,
                "arm": arm.arm.label,
                "changes": changes,
                "verdict": arm.verdict or "baseline",
                f"{view.primary.key} difference": d.estimate if d else None,
                "low": d.low if d else None,
                "high": d.high if d else None,
                "p": arm.effect.p_value if arm.effect else None,
                "p corrected": arm.effect.p_corrected if arm.effect else None,
                "spread over seeds": arm.spread,
                "diverged": arm.diverged[0],
                "finished": arm.diverged[1],
                "memory reduction": arm.memory_reduction,
                **{column.measure.key: column.mean for column in arm.columns},
                "runs": " ".join(arm.run_ids),
            }
            rows.append(row)
    return rows


def _run_rows(view: AblationView) -> list[dict[str, Any]]:
    return [
        {"run": run.run_id, "arm": name, "seed": run.seed, "state": run.state, **run.values, "detail": run.detail[:500]}
        for name, run in view.runs
    ]


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula is written with a quote in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _results(view: AblationView) -> dict[str, Any]:
    floor = view.noise
    return {
        "version": 1,
        "planned": view.planned.to_json(),
        "primary": view.primary.key,
        "headline": view.headline,
        "limits": list(view.limits),
        "noise_floor": {
            "size": floor.size,
            "spread": floor.spread,
            "runs": floor.runs,
            "between": floor.between,
            "repeated": floor.repeated,
        },
        "target_dev_loss": view.target,
        "ablations": [
            {
                "name": table.ablation.name,
                "verdict": table.verdict,
                "said": table.said,
                "not_measured": list(table.unmeasured),
                "arms": [
                    {
                        "label": arm.arm.label,
                        "verdict": arm.verdict,
                        "difference": arm.effect.difference.to_json() if arm.effect and arm.effect.difference else None,
                        "p_value": arm.effect.p_value if arm.effect else None,
                        "p_corrected": arm.effect.p_corrected if arm.effect else None,
                        "p_method": arm.effect.p_method if arm.effect else "",
                        "note": arm.effect.note if arm.effect else "",
                        "spread": arm.spread,
                        "memory_reduction": arm.memory_reduction,
                        "means": {column.measure.key: column.mean for column in arm.columns},
                        "runs": list(arm.run_ids),
                    }
                    for arm in (table.baseline, *table.arms)
                ],
            }
            for table in view.tables
        ],
        "runs": [
            {
                "run": run.run_id,
                "arm": name,
                "seed": run.seed,
                "state": run.state,
                "values": {key: finite_or_none(value) for key, value in run.values.items()},
                "curve": [[p.step, p.forwards, p.loss, p.accuracy] for p in run.curve],
                "detail": run.detail[:2000],
            }
            for name, run in view.runs
        ],
        "environment": dict(view.facts),
    }
