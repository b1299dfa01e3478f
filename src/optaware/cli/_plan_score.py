from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from optaware.cli._options import chat_ref, print_json, print_table

if TYPE_CHECKING:
    from optaware.plan import FolderScore, JudgeQuality, Matcher, PlanScore
    from optaware.records import AblationPlan

__all__ = ["measure_matcher", "open_matcher", "score_file", "score_two_folders"]


def open_matcher(judges: tuple[str, ...], base_url: str | None, votes: int, seed: int, cache: Path) -> Matcher:
    """Chat models that vote, or the offline matcher when none is named."""
    from optaware.plan import ChatMatcher, LexicalMatcher

    if not judges:
        return LexicalMatcher()
    from optaware.llm import open_chat

    chats = [open_chat(chat_ref(name, base_url), cache=cache) for name in judges]
    return ChatMatcher(chats, votes=votes, seed=seed)


def score_file(plan: AblationPlan, reference: AblationPlan, k: int | None, matcher: Matcher, json: bool) -> int:
    """Score one plan."""
    from optaware.plan import score_plan

    found = score_plan(plan, reference, k=k, matcher=matcher)
    if json:
        print_json(found.to_json())
    else:
        _print_score(found)
    return _tell_failures([found])


def score_two_folders(plans: Path, references: Path, k: int | None, matcher: Matcher, json: bool) -> int:
    """Score every plan of a folder."""
    from optaware.plan import score_folders

    folder = score_folders(plans, references, k=k, matcher=matcher)
    if json:
        print_json(folder.to_json())
    else:
        _print_folder(folder)
    for paper in folder.faults:
        print(f"warning: {paper.paper}: {paper.fault}", file=sys.stderr)
    for name in folder.without_reference:
        print(f"warning: {name}: no reference for this paper; it is not counted", file=sys.stderr)
    code = _tell_failures([paper.score for paper in folder.papers])
    return 1 if folder.faults else code


def measure_matcher(labels: Path, matcher: Matcher, json: bool) -> int:
    """Compare a matcher with labelled pairs."""
    from optaware.plan import judge_quality, read_labels

    found = judge_quality(read_labels(labels), matcher)
    if json:
        print_json(found.to_json())
    else:
        _print_quality(found)
    if found.failures:
        print(f"warning: {found.failures} replies could not be read; they are no votes", file=sys.stderr)
    return 1 if found.failures else 0


def _tell_failures(scores: list[PlanScore]) -> int:
    failed = [(pair, vote) for score in scores for pair in score.judged for vote in pair.votes if vote.said is None]
    for pair, vote in failed[:20]:
        print(f"warning: {pair.planned} / {pair.reference}: not a vote: {vote.failure!r}", file=sys.stderr)
    if len(failed) > 20:
        print(f"warning: {len(failed) - 20} further replies could not be read", file=sys.stderr)
    return 1 if failed else 0


def _print_quality(found: JudgeQuality) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    said = f"precision {shown(found.precision)}  recall {shown(found.recall)}  F1 {shown(found.f1)}"
    low, high = found.accuracy.low, found.accuracy.high
    print(
        f"{said}\naccuracy {found.accuracy.estimate:.3f} [{low:.3f}, {high:.3f}] (95 %) on "
        f"{found.pairs} pairs, {found.positives} of them the same; {found.unclear} unclear; matcher {found.matcher}"
    )


def _print_score(found: PlanScore) -> None:
    print_table(["planned", "reference", "why"], [[pair.planned, pair.reference, pair.why] for pair in found.pairs])
    print(
        f"precision {found.precision:.3f}  recall {found.recall:.3f}  F1 {found.f1:.3f}  nDCG {found.ndcg:.3f}\n"
        f"{found.matched} of {found.reference} reference ablations matched, {found.unmatched} of {found.planned} "
        f"planned ones match none, {found.unclear} pairs unclear (counted as no match); matcher {found.matcher}"
    )


def _print_folder(folder: FolderScore) -> None:
    rows = [
        [paper.paper, *(f"{getattr(paper.score, mean.measure):.3f}" for mean in folder.means)]
        for paper in folder.papers
    ]
    print_table(["paper", *(mean.measure for mean in folder.means)], rows)
    for mean in folder.means:
        bounds = f" [{mean.interval.low:.3f}, {mean.interval.high:.3f}] (95 %)" if mean.interval else ""
        print(f"{mean.measure}: {mean.mean:.3f}{bounds}")
    print(f"{len(folder.papers)} papers, matcher {folder.matcher}")
