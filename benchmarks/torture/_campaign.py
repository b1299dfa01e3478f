"""What all campaigns share: their options, rows that are kept as they come, and the result file."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _result import RESULTS, write_result
from optaware._io import JsonlAppender, read_jsonl

__all__ = ["Campaign", "options"]


def options(doc: str | None, count: int, what: str) -> argparse.ArgumentParser:
    """The options of every campaign.

    Args:
        doc: The script's docstring.
        count: Default of `--count`.
        what: What is counted.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help=f"{what} (default {count})")
    parser.add_argument("--seed", type=int, default=0, help="another seed disturbs at other places")
    parser.add_argument("--out", type=Path, help="result file; default: benchmarks/results/torture_<name>.json")
    parser.add_argument("--work", type=Path, help="scratch folder; rows that lie there are not made again")
    return parser


class Campaign:
    """Rows of one campaign: those of an earlier, interrupted call are taken up.

    Args:
        name: `torture_<name>` is the benchmark's name.
        given: The parsed options.
    """

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name, self.given = name, given
        self.work: Path = given.work or Path(tempfile.gettempdir()) / f"optaware-torture-{name}-{given.seed}"
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "rows.jsonl"
        self.rows: list[dict[str, Any]] = read_jsonl(path, torn_tail=True) if path.exists() else []
        self._file = JsonlAppender(path)
        self._began = time.monotonic()

    def random(self, *what: object) -> random.Random:
        """A generator of its own for one piece of the campaign."""
        return random.Random("/".join(map(str, (self.name, self.given.seed, *what))))

    def has(self, key: str) -> bool:
        """Whether this piece was done, in this call or an earlier one."""
        return any(row["key"] == key for row in self.rows)

    def add(self, key: str, **figures: Any) -> None:
        """Keep the outcome of one piece."""
        row = {"key": key, **figures}
        self.rows.append(row)
        self._file.append(row)
        seconds = time.monotonic() - self._began
        shown = {name: value for name, value in figures.items() if value not in ([], {}, 0)}
        print(f"{seconds:7.1f} s  {key}: {shown}", flush=True)

    def finish(
        self, rows: Iterable[Mapping[str, Any]], *, notes: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> int:
        """Write the result file; returns 1 when there were faults, else 0."""
        faults = [fault for row in self.rows for fault in row.get("faults", [])]
        said = [*notes, *(f"FAULT: {fault}" for fault in faults[:20])]
        out = self.given.out or RESULTS / f"torture_{self.name}.json"
        path = write_result(
            f"torture_{self.name}",
            list(rows),
            out=out,
            notes=said,
            settings={"count": self.given.count, "seed": self.given.seed, **(settings or {})},
        )
        print(f"{len(faults)} faults; {path}")
        return 1 if faults else 0
