"""The CSV tables: one row per run, per comparison and per corpus, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optaware._io import canonical_json, write_text
from optaware.records import Interval
from optaware.report._corpora import CorpusView
from optaware.report._view import RunRow, View

__all__ = ["write_tables"]

_Row = Mapping[str, Any]


def write_tables(view: View, out: Path) -> tuple[Path, ...]:
    """Write `runs`, `contrasts`, `corpora`, `cells` and `choices` as CSV; a table without rows has its header only."""
    tables: list[tuple[str, Sequence[str], Iterable[_Row]]] = [
        ("runs.csv", _RUNS, (_run(row) for row in view.runs)),
        ("contrasts.csv", _CONTRASTS, _contrasts(view)),
        ("corpora.csv", _CORPORA, (_corpus(corpus) for corpus in view.corpora)),
        ("cells.csv", _CELLS, _cells(view)),
        ("choices.csv", _CHOICES, _choices(view)),
    ]
    paths = []
    for name, header, rows in tables:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _safe(value) for key, value in row.items()} for row in rows)
        write_text(out / name, buffer.getvalue())
        paths.append(out / name)
    return tuple(paths)


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


_RUNS = (
    *("run_id", "fingerprint", "folder", "model", "revision", "dtype", "task", "variant", "corpus_id", "prompt"),
    *("method", "seed", "state", "detail", "test_accuracy", "test_loss", "test_n", "dev_accuracy", "dev_loss"),
    *("best_step", "steps", "forwards", "skipped", "train_s", "eval_s", "step_s_median", "peak_memory_bytes"),
    *("energy_j", "energy_source", "energy_unknown"),
    *("model_source", "model_sha256", "data_source", "method_config", "schedule"),
)
_CONTRASTS = (
    *("family", "model", "task", "method", "arm", "baseline", "seeds", "n_examples", "difference", "low", "high"),
    *("level", "interval_method", "p_value", "p_method", "p_corrected", "p_correction", "p_fdr", "p_models", "verdict"),
    *("disagreement", "seed_spread", "run_ids"),
)
_CELLS = (
    "model",
    "method",
    "variant",
    "task",
    "accuracy",
    "low",
    "high",
    "interval_method",
    "mark",
    "seeds",
    "run_ids",
)
_CHOICES = (
    "model",
    "task",
    "method",
    "variant",
    "seed",
    "point",
    "chosen",
    "state",
    "dev_accuracy",
    "dev_loss",
    "reason",
    "forwards",
    "forwards_asked",
    "runs",
)
_CORPORA = (
    *("corpus_id", "task", "variant", "rows", "accepted", "rejected", "failed", "identical", "rewriter_accuracy"),
    *("low", "high", "reaches_accept_at", "accept_at", "reasons", "rewriter", "judge", "rewriter_prompt_id"),
    *("words_before", "words_after", "calls", "cached_calls", "prompt_tokens", "completion_tokens", "cost_usd"),
    *("wall_s", "data_source", "licence"),
)


def _run(row: RunRow) -> _Row:
    run, spec, result = row.run, row.run.spec, row.run.result
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "fingerprint": row.fingerprint,
        "folder": run.folder.name,
        "model": spec.model.name,
        "revision": spec.model.revision,
        "dtype": spec.model.dtype,
        "task": spec.rows.task,
        "variant": spec.rows.variant,
        "corpus_id": spec.rows.corpus_id,
        "prompt": spec.rows.prompt,
        "method": row.method,
        "seed": spec.seed,
        "state": run.state,
        "detail": run.detail,
        "method_config": canonical_json(spec.method.to_json()),
        "schedule": canonical_json(spec.schedule.to_json()),
    }
    if result is not None:
        dev = result.dev
        found |= {
            "test_accuracy": result.test.accuracy if result.test else None,
            "test_loss": result.test.loss if result.test else None,
            "test_n": result.test.n if result.test else None,
            "dev_accuracy": dev.accuracy if dev else None,
            "dev_loss": dev.loss if dev else None,
            "data_source": f"{result.data_source.kind}:{result.data_source.location}",
        }
        same = ("best_step", "steps", "forwards", "skipped", "train_s", "eval_s", "step_s_median")
        taken = result.energy
        found |= {"energy_j": taken.joules, "energy_source": taken.source, "energy_unknown": taken.why}
        found |= {name: getattr(result, name) for name in (*same, "peak_memory_bytes", "model_source", "model_sha256")}
    return found


def _contrasts(view: View) -> Iterable[_Row]:
    for family in view.families:
        for item in family.comparisons:
            contrast, difference = item.contrast, item.contrast.difference
            yield {
                "family": family.key,
                "model": contrast.model,
                "task": contrast.task,
                "method": contrast.method,
                "arm": contrast.arm,
                "baseline": contrast.baseline,
                "seeds": " ".join(map(str, contrast.seeds)),
                "n_examples": contrast.n_examples,
                "difference": difference.estimate,
                "low": difference.low,
                "high": difference.high,
                "level": difference.level,
                "interval_method": difference.method,
                "p_value": contrast.p_value,
                "p_method": contrast.p_method,
                "p_corrected": contrast.p_corrected,
                "p_correction": f"Holm over {len(family.comparisons)}",
                "p_fdr": item.p_fdr,
                "p_models": item.p_models,
                "verdict": item.verdict,
                "disagreement": item.disagreement,
                "seed_spread": item.seed_spread,
                "run_ids": " ".join(contrast.run_ids),
            }


def _cells(view: View) -> Iterable[_Row]:
    for table in view.paper:
        for row in table.rows:
            for task, each in zip(table.tasks, row.cells, strict=True):
                if each.cell is not None and each.cell.accuracy is not None:
                    scored = each.cell.arm.scored
                    yield _cell(table.model, row.method, row.variant, task, each.cell.accuracy) | {
                        "mark": each.mark,
                        "seeds": " ".join(str(item.run.spec.seed) for item in scored),
                        "run_ids": " ".join(item.run.run_id for item in scored),
                    }
            for task, mean in (("average", row.average), ("average difference", row.difference)):
                if mean is not None:
                    yield _cell(table.model, row.method, row.variant, task, mean.interval)
        for task, untrained in zip(table.tasks, table.zero_shot, strict=True):
            if untrained is not None and untrained.accuracy is not None:
                yield _cell(table.model, "zero-shot", "", task, untrained.accuracy)
        for task, share in zip(table.tasks, table.majority, strict=True):
            if share is not None:
                yield {"model": table.model, "method": "most frequent label", "task": task, "accuracy": share}


def _cell(model: str, method: str, variant: str, task: str, interval: Interval) -> dict[str, Any]:
    return {
        "model": model,
        "method": method,
        "variant": variant,
        "task": task,
        "accuracy": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "interval_method": interval.method,
    }


def _choices(view: View) -> Iterable[_Row]:
    for choice in view.choices:
        for point in choice["points"]:
            yield {
                **{name: choice[name] for name in ("task", "method", "variant", "seed")},
                "model": choice["model"]["name"],
                "point": point["point"],
                "chosen": point["point"] == choice["chosen"],
                **{name: point[name] for name in ("state", "dev_accuracy", "dev_loss")},
                **{name: point.get(name) for name in ("reason", "forwards", "forwards_asked")},
                "runs": " ".join(point["runs"]),
            }


def _corpus(view: CorpusView) -> _Row:
    card = view.corpus.card
    same = ("corpus_id", "task", "variant", "rows", "accepted", "rejected", "failed", "identical", "rewriter", "judge")
    more = ("rewriter_prompt_id", "words_before", "words_after", "calls", "cached_calls", "prompt_tokens")
    last = ("completion_tokens", "cost_usd", "wall_s", "licence")
    return {name: getattr(card, name) for name in (*same, *more, *last)} | {
        "rewriter_accuracy": card.rewriter_accuracy if view.corpus.spec.given is None else None,
        "low": view.accuracy.low if view.accuracy else None,
        "high": view.accuracy.high if view.accuracy else None,
        "reaches_accept_at": view.accepted if view.corpus.spec.given is None else None,
        "accept_at": view.corpus.spec.gate.accept_at,
        "reasons": canonical_json(card.reasons),
        "data_source": f"{card.source.kind}:{card.source.location}",
    }
