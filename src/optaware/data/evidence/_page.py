"""The evidence as a page in Markdown: each figure with its interval, each finding in a plain sentence."""

from __future__ import annotations

from collections.abc import Sequence

from optaware.records import CorpusEvidence, Drift, GateByLabel, Interval, Leakage, RowProbes, WordShift

__all__ = ["evidence_page"]


def evidence_page(evidence: CorpusEvidence) -> str:
    """The page `evidence.md` of a corpus."""
    parts = [
        f"# Evidence on corpus {evidence.corpus_id}\n",
        f"{evidence.changed} of {evidence.rows} rows have a rewritten span; figures below are of these rows. Intervals "
        "are 95 % and speak of further rows of this kind.\n",
        *(f"{note}\n" for note in evidence.notes),
        _leakage(evidence.leakage),
        _drift(evidence),
        _labels(evidence.by_label),
        _near(evidence),
        _probes(evidence.probes),
    ]
    return "\n".join(part for part in parts if part)


def _leakage(found: Leakage | None) -> str:
    if found is None:
        return ""
    points = _signed(found.difference, 100)
    if found.leaks:
        said = (
            "**The rewrites give labels away**: from them alone the label is found more often than from the originals."
        )
    elif found.difference.high < 0:
        said = "The label is found less often from the rewrites than from the originals."
    else:
        said = "No leak was found; one of the size of the interval's upper end cannot be excluded."
    return (
        f"## Does the span give the label away?\n\n{said}\n\n"
        f"A scorer that sees the span and nothing else of the row ({found.scorer}) is right in "
        f"{100 * found.before:.1f} % of {found.rows} rows from the original spans and in {100 * found.after:.1f} % "
        f"from the rewritten ones: {points} points. Always answering the most frequent label: "
        f"{100 * found.chance:.1f} %.\n"
    )


def _drift(evidence: CorpusEvidence) -> str:
    if not evidence.drift:
        return ""
    lines = ["## What changed in the texts\n", _table(evidence.drift), "", "| kept in | share of rows |", "|---|---|"]
    for name, kept in (
        ("all names (capitalised words within sentences)", evidence.names_kept),
        ("all numbers", evidence.numbers_kept),
        ("negated or not, as before", evidence.negation_kept),
    ):
        if kept is not None:
            lines.append(f"| {name} | {_percent(kept)} |")
    for title, shifts in (("Words gained", evidence.gained_words), ("Words lost", evidence.lost_words)):
        if shifts:
            lines += ["", f"{title} (rows before → after): {_words(shifts)}."]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Drift]) -> str:
    lines = ["| mean over rows | before | after | difference |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.before:.4g} | {row.after:.4g} | {_signed(row.difference)} |" for row in rows]
    return "\n".join(lines)


def _words(shifts: Sequence[WordShift]) -> str:
    return ", ".join(f"{item.word} {item.rows_before} → {item.rows_after}" for item in shifts)


def _labels(rows: Sequence[GateByLabel]) -> str:
    lines = ["## Did the gate prefer a label?\n", "| label | rows | rewritten | share |", "|---|---|---|---|"]
    lines += [f"| {row.label} | {row.rows} | {row.rewritten} | {_percent(row.share)} |" for row in rows]
    apart = any(a.share.low > b.share.high for a in rows for b in rows)
    lines += ["", "The intervals of two labels lie apart: rewritten rows are not spread evenly." if apart else ""]
    return "\n".join(lines).rstrip() + "\n"


def _near(evidence: CorpusEvidence) -> str:
    held = evidence.held_out
    if not held.texts:
        return ""
    return (
        "## Nearness to dev and test rows\n\n"
        f"{held.near_before} original and {held.near_after} rewritten training spans are near-duplicates of one of "
        f"{held.texts} held-out spans; the gate refused {held.refused} rewrites for it.\n"
    )


def _probes(found: RowProbes | None) -> str:
    if found is None:
        return "## Zeroth-order estimates\n\nNot measured: name the model to be trained with `--model`.\n"
    said = {
        True: "**Rewritten rows give steadier estimates**: along a direction, single rows agree more with all rows.",
        False: "**Rewritten rows give noisier estimates**: along a direction, single rows agree less with all rows.",
        None: "Whether rewritten rows give steadier estimates is open: the interval holds both answers.",
    }[found.steadier]
    return (
        f"## Zeroth-order estimates\n\n{said}\n\n"
        f"{found.rows} rows under {found.model} ({found.dtype}), before training, along {found.directions} directions, "
        f"eps {found.eps:g}; both texts of a row along the same directions.\n\n"
        f"{_table((*found.figures, found.signal_to_noise))}\n\n"
        f"Signal to noise: squared mean of g over rows, over its variance between rows divided by the batch of "
        f"{found.batch_size}; its difference is one of logarithms.\n"
    )


def _signed(interval: Interval, scale: float = 1.0) -> str:
    values = (scale * interval.estimate, scale * interval.low, scale * interval.high)
    estimate, low, high = (f"{value:+.3g}" for value in values)
    return f"{estimate} ({low} to {high})"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
