"""How well a local model judges rewrites: every task's judge refined and measured on the project's own labelled pairs.

python benchmarks/judge_calibration.py --store /tmp/judges --data-dir DATA           # all six tasks; resumes
python benchmarks/judge_calibration.py --quick          # the packaged judge only, on all pairs: it was refined on none
python benchmarks/judge_calibration.py --task copa --rounds 2 --attacks

Each task's record goes to the store (`judges/`), one row a version and way of counting to
`benchmarks/results/judge_calibration_<device>.json`. The pooled rows put all tasks' measured pairs together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _result import write_result
from optaware._io import read_json, write_json
from optaware.data.judge import (
    Bench,
    LabelledPair,
    Refining,
    calibrate,
    labelled_pairs,
    measure,
    packaged_labels,
    verdict_words,
    write_calibration,
)
from optaware.data.review import RowFinder
from optaware.llm import open_chat
from optaware.records import ChatModelRef, JudgeCalibration, JudgeMeasure, JudgeTemplate, parse_record
from optaware.stats import wilson
from optaware.store import Store
from optaware.tasks import get_task

TASKS = ("copa", "sst2", "arc-c-cloze", "cb", "rte", "boolq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=TASKS, help="default: all")
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write-rules", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--attacks", action="store_true")
    parser.add_argument("--store", type=Path, default=Path("optaware-results"))
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    store, ref = Store(given.store), ChatModelRef(provider="local", model=given.model, max_tokens=16, concurrency=64)
    chat = open_chat(ref, cache=store.chat_cache())
    for name in given.task or TASKS:
        task = get_task(name)
        pairs, differ, people = labelled_pairs([packaged_labels(name)], task, RowFinder(task, given.data_dir))
        if given.quick:
            _quick(store.root / "judges" / f"{name}.packaged.json", Bench(task, [chat], [ref], _said), pairs)
        else:
            found = calibrate(
                task,
                pairs,
                [chat],
                [ref],
                how=Refining(rounds=given.rounds, writer=chat if given.write_rules else None),
                attacks=given.attacks,
                left_out=differ,
                labellers=people,
                on_progress=_said,
            )
            write_calibration(store.root / "judges" / name, found, pairs)
            print(f"\n{name}: {verdict_words(found)}", flush=True)
        _write(store.root / "judges", given)


def _said(done: int, total: int, what: str) -> None:
    print(f"\r{what} {done}/{total}   ", end="", flush=True)


def _quick(path: Path, bench: Bench, pairs: Sequence[LabelledPair]) -> None:
    """Measure the packaged judge, in one order, on all pairs of a task."""
    judge = JudgeTemplate(task=bench.task.name, base="plain")
    bench.ballots(judge, pairs, "packaged judge", first_only=True)
    found = measure("packaged judge", pairs, bench.verdicts(judge, ((0,), ("original-first",), "all")), 2.0)
    write_json(path, found.to_json())
    print(f"\n{bench.task.name}: {found.right} of {found.pairs}", flush=True)


def _write(folder: Path, given: argparse.Namespace) -> None:
    write_result(
        "judge_calibration",
        _rows(folder),
        settings={"model": given.model, "rounds": given.rounds, "write_rules": given.write_rules},
        notes=(
            "Labels: src/optaware/data/labels (one labeller; about half of the pairs are faulty on purpose).",
            "packaged, all pairs: the packaged judge in one order, refined on none of them.",
            "packaged, refined: measured once each, on pairs that refining never saw. Intervals are 95 % (Wilson).",
        ),
    )


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    found: list[JudgeCalibration] = []
    quick: list[JudgeMeasure] = []
    for name in TASKS:
        path = folder / f"{name}.packaged.json"
        if path.is_file():
            quick.append(parse_record(JudgeMeasure, read_json(path), str(path)))
            rows.append({"case": name, "variant": "packaged, all pairs", **_figures(quick[-1])})
        path = folder / name / "calibration.json"
        if (folder / name / "DONE").is_file():
            record = parse_record(JudgeCalibration, read_json(path), str(path))
            found.append(record)
            rows += [_row(name, record, "packaged", record.start), _row(name, record, "refined", record.final)]
            rows += [_row(name, record, f"refined, {option.name}", option) for option in record.options]
            rows += [
                {"case": name, "variant": f"order {each.order!r}", "pairs": each.pairs, "passed": each.passed,
                 "passed_without": each.passed_without, "caught": each.caught}
                for each in record.attacks
            ]  # fmt: skip
    groups = {
        "packaged, all pairs": quick,
        "packaged": [record.start for record in found],
        "refined": [record.final for record in found],
    }
    rows += [_pooled(variant, measures) for variant, measures in groups.items() if len(measures) > 1]
    return rows


def _row(name: str, record: JudgeCalibration, variant: str, measure: JudgeMeasure) -> dict[str, Any]:
    return {
        "case": name,
        "variant": variant,
        "template": (record.start_id if variant == "packaged" else record.template_id)[:12],
        "tuning": record.tuning,
        "rounds": len(record.rounds),
        **_figures(measure),
        "reached": measure.accuracy.estimate >= record.target,
        "calls": record.calls,
        "wall_s": record.wall_s,
    }


def _figures(measure: JudgeMeasure) -> dict[str, Any]:
    faulty, good = measure.passed_wrongly, measure.rejected_wrongly
    return {
        "pairs": measure.pairs,
        "right": measure.right,
        "accuracy": round(measure.accuracy.estimate, 4),
        "low": round(measure.accuracy.low, 4),
        "high": round(measure.accuracy.high, 4),
        "let_through_wrongly": None if faulty is None else round(faulty.estimate, 4),
        "rejected_wrongly": None if good is None else round(good.estimate, 4),
        "balanced": None if measure.balanced is None else round(measure.balanced, 4),
        "abstained": sum(row["abstained"] for row in measure.table.values()),
        "always_same": round(measure.always_same, 4),
    }


def _pooled(variant: str, measures: Sequence[JudgeMeasure]) -> dict[str, Any]:
    labels, verdicts = ("same", "not the same"), ("same", "not the same", "abstained")
    table = {label: {said: sum(m.table[label][said] for m in measures) for said in verdicts} for label in labels}
    right, pairs = sum(m.right for m in measures), sum(m.pairs for m in measures)
    accuracy, faulty = wilson(right, pairs), sum(table["not the same"].values())
    return {
        "case": f"{len(measures)} tasks",
        "variant": variant,
        "pairs": pairs,
        "right": right,
        "accuracy": round(accuracy.estimate, 4),
        "low": round(accuracy.low, 4),
        "high": round(accuracy.high, 4),
        "let_through_wrongly": round(table["not the same"]["same"] / faulty, 4),
        "rejected_wrongly": round(1 - table["same"]["same"] / (pairs - faulty), 4),
        "always_same": round((pairs - faulty) / pairs, 4),
    }


if __name__ == "__main__":
    main()
