"""How well a local model judges rewrites: every task's judge refined and measured on the project's own labelled pairs.

python benchmarks/judge_calibration.py --store /tmp/judges --data-dir DATA           # all six tasks; resumes
python benchmarks/judge_calibration.py --task copa --rounds 2 --attacks

Each task's record goes to the store (`judges/`), one row a version and way of counting to
`benchmarks/results/judge_calibration_<device>.json`. The pooled rows put all tasks' measured pairs together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _result import RESULTS, write_result
from optaware._io import read_json
from optaware.data.judge import Refining, calibrate, labelled_pairs, packaged_labels, verdict_words, write_calibration
from optaware.data.review import RowFinder
from optaware.llm import open_chat
from optaware.records import ChatModelRef, JudgeCalibration, JudgeMeasure, parse_record
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
    parser.add_argument("--attacks", action="store_true")
    parser.add_argument("--store", type=Path, default=Path("optaware-results"))
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    store, ref = Store(given.store), ChatModelRef(provider="local", model=given.model, max_tokens=16, concurrency=64)
    chat = open_chat(ref, cache=store.chat_cache())
    for name in given.task or TASKS:
        task = get_task(name)
        pairs, differ, people = labelled_pairs([packaged_labels(name)], task, RowFinder(task, given.data_dir))
        found = calibrate(
            task,
            pairs,
            [chat],
            [ref],
            how=Refining(rounds=given.rounds, writer=chat if given.write_rules else None),
            attacks=given.attacks,
            left_out=differ,
            labellers=people,
            on_progress=lambda done, total, what: print(f"\r{what} {done}/{total}   ", end="", flush=True),
        )
        write_calibration(store.root / "judges" / name, found, pairs)
        print(f"\n{name}: {verdict_words(found)}", flush=True)
    write_result("judge_calibration", _rows(store.root / "judges"), settings=vars(given) | {
        "store": None, "data_dir": None, "task": None}, notes=(
        "Labels: src/optaware/data/labels (one labeller; about half of the pairs are faulty on purpose).",
        "Each version is measured once, on pairs that refining never saw; intervals are 95 % (Wilson).",
    ))  # fmt: skip
    print(f"written to {RESULTS}")


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows, found = [], []
    for name in TASKS:
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
    for variant in ("packaged", "refined"):
        measures = [record.start if variant == "packaged" else record.final for record in found]
        if measures:
            rows.append(_pooled(variant, measures))
    return rows


def _row(name: str, record: JudgeCalibration, variant: str, measure: JudgeMeasure) -> dict[str, Any]:
    faulty, good = measure.passed_wrongly, measure.rejected_wrongly
    return {
        "case": name,
        "variant": variant,
        "template": (record.start_id if variant == "packaged" else record.template_id)[:12],
        "tuning": record.tuning,
        "rounds": len(record.rounds),
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
        "reached": measure.accuracy.estimate >= record.target,
        "calls": record.calls,
        "wall_s": record.wall_s,
    }


def _pooled(variant: str, measures: Sequence[JudgeMeasure]) -> dict[str, Any]:
    labels, verdicts = ("same", "not the same"), ("same", "not the same", "abstained")
    table = {label: {said: sum(m.table[label][said] for m in measures) for said in verdicts} for label in labels}
    right, pairs = sum(m.right for m in measures), sum(m.pairs for m in measures)
    accuracy, faulty = wilson(right, pairs), sum(table["not the same"].values())
    return {
        "case": "all tasks",
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
