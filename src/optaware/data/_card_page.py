"""The data set card as a page: Markdown with the front matter that hubs read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from optaware._io import dump_yaml
from optaware.records import CorpusSpec, DatasetCard, Decision
from optaware.tasks import Task

__all__ = ["card_page", "last_part"]


def card_page(
    card: DatasetCard,
    spec: CorpusSpec,
    task: Task,
    samples: Sequence[Decision],
    *,
    data_file: str = "train.jsonl",
    files: str | None = None,
) -> str:
    """The page `README.md` of a corpus: what it is, whether it counts as accepted, where it came from, what it cost.

    Args:
        card: The counts.
        spec: What was asked for.
        task: The task.
        samples: Rewrites to show.
        data_file: The file that holds the rows.
        files: The last section; None: the files of a corpus folder.
    """
    title = f"{task.title}: training rows rewritten ({card.variant})"
    front = dump_yaml(
        {
            "pretty_name": title,
            "license": "other",
            "license_name": card.licence,
            "language": ["en"],
            "task_categories": ["text-classification"],
            "size_categories": [_size(card.rows)],
            "tags": ["optaware", "zeroth-order-optimization", "rewritten", "synthetic"],
            "configs": [{"config_name": "default", "data_files": data_file}],
        }
    )
    parts = [
        f"---\n{front}---\n\n# {title}\n",
        _verdict(card),
        _counts(card),
        _origin(card, spec),
        _cost(card),
        _shown(samples),
        _files(card) if files is None else files,
    ]
    return "\n".join(part for part in parts if part)


def _size(rows: int) -> str:
    edges = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for edge, name in edges if rows < edge), "n>1M")


def _verdict(card: DatasetCard) -> str:
    wanted = 100 * (card.accept_at or 0.9)
    share = f"{card.accepted} of {card.rows} rewrites passed the gate: {100 * card.rewriter_accuracy:.1f} %"
    if card.accuracy_low is not None and card.accuracy_high is not None:
        share += f" (95 % interval {100 * card.accuracy_low:.1f} to {100 * card.accuracy_high:.1f})"
    if card.is_accepted:
        proven = card.accuracy_low is not None and 100 * card.accuracy_low >= wanted
        doubt = "" if proven else f" The interval reaches below {wanted:.0f} %, so this many rows do not prove it."
        return f"**Accepted.** {share}, at or above the {wanted:.0f} % asked for.{doubt}\n"
    kept = card.rows - card.accepted
    return (
        f"**Not accepted.** {share}, below the {wanted:.0f} % asked for. {kept} rows are the original ones, so what is "
        "trained on this corpus is trained on a mixture.\n"
    )


def _counts(card: DatasetCard) -> str:
    lines = ["## Rows\n", "| outcome | rows |", "|---|---|"]
    lines.append(f"| rewritten | {card.accepted - card.identical} |")
    lines.append(f"| accepted, but the same as before | {card.identical} |")
    lines.append(f"| rejected: original kept | {card.rejected} |")
    lines.append(f"| no usable answer: original kept | {card.failed} |")
    lines += ["", "| reason | rows |", "|---|---|"]
    lines += [f"| `{reason}` | {count} |" for reason, count in card.reasons.items()]
    if card.attempts is not None and set(card.attempts) != {"1"}:
        lines += ["", "| tries | rows |", "|---|---|"]
        lines += [f"| {tries} | {count} |" for tries, count in card.attempts.items()]
    if card.lengths_before is not None and card.lengths_after is not None:
        lines += ["", "| words of the span | mean | 10 % | median | 90 % |", "|---|---|---|---|---|"]
        for name, item in (("original", card.lengths_before), ("in this corpus", card.lengths_after)):
            lines.append(f"| {name} | {item.mean:.1f} | {item.p10:.0f} | {item.median:.0f} | {item.p90:.0f} |")
    return "\n".join(lines) + "\n"


def _origin(card: DatasetCard, spec: CorpusSpec) -> str:
    lines = [
        "## Where it comes from\n",
        f"- Rows: task `{last_part(card.task)}`, protocol `{spec.protocol.name}`, from {card.source.kind} "
        f"({last_part(card.source.location)}).",
        f"- Licence of the rows: {card.licence}. The rewrites are a model's output, under its provider's terms.",
        f"- Rewriter: {card.rewriter}, template `{last_part(spec.template)}` (prompt {card.rewriter_prompt_id[:12]}), "
        f"temperature {spec.rewriter.temperature:g}.",
        f"- Judge: {card.judge}, prompts "
        + ", ".join(f"{name} {prompt[:12]}" for name, prompt in card.judge_prompt_ids.items())
        + ".",
        f"- Tries: one rewrite, {card.retries} further ones after a rejection."
        if card.search is None
        else f"- Search: {card.search}; {card.retries} further tries after a rejection.",
        "- Rewrites near a dev or test row were refused."
        if spec.held_out_sha256
        else "- Nearness to dev and test rows was not looked at.",
        f"- Corpus id: {card.corpus_id}.",
    ]
    if card.citation:
        lines.append(f"- Cite: {' '.join(card.citation.split())}")
    return "\n".join(lines) + "\n"


def last_part(path: str) -> str:
    """The last part of a path: a card that is passed on names no folders of the machine that made it."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


def _cost(card: DatasetCard) -> str:
    price = "not known (no prices were given)" if card.cost_usd is None else f"{card.cost_usd:.4f} US dollars"
    if card.cost_usd is not None and card.unpriced_calls:
        price += f", without {card.unpriced_calls} calls of unknown price"
    measured = f" The search spent {card.measured_forwards:,} forward passes." if card.measured_forwards else ""
    return (
        f"## What it cost\n\n{card.calls} calls, {card.cached_calls} of them answered by the cache; "
        f"{card.prompt_tokens:,} prompt and {card.completion_tokens:,} new tokens; {card.wall_s:.0f} s; "
        f"price {price}.{measured}\n"
    )


def _shown(samples: Sequence[Decision]) -> str:
    if not samples:
        return ""
    lines = ["## Examples\n"]
    for item in samples:
        lines += [
            f"`{item.example_id}`",
            "",
            f"- original: {_cell(item.original)}",
            f"- here: {_cell(item.rewritten)}",
            "",
        ]
    return "\n".join(lines)


def _cell(text: str | None) -> str:
    line = " ".join((text or "").split())
    line = line if len(line) <= 400 else line[:399] + "…"
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", line)


def _files(card: DatasetCard) -> str:
    return (
        "## Files\n\n"
        "- `train.jsonl`: the training rows in the task's own columns, one for each original row, in its order.\n"
        "- `decisions.jsonl`: original, rewrite, checks and reason of every row.\n"
        "- `candidates.jsonl`, `verdicts.jsonl`: every reply as it came. `card.json`: these figures.\n"
        + ("- `measures.jsonl`: what the search measured.\n" if card.search and card.measured_forwards else "")
        + ("- `reasons.jsonl`: why the judge rejected what was tried again.\n" if card.retries else "")
    )
