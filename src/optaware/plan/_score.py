from __future__ import annotations

import math
from collections.abc import Sequence

from optaware.errors import InputError
from optaware.plan._judge import ChatMatcher, JudgedPair
from optaware.plan._match import LexicalMatcher, Matcher
from optaware.records import AblationPlan, Record

__all__ = ["MatchedPair", "PlanScore", "ndcg", "score_plan"]


class MatchedPair(Record):
    """A planned ablation and one of the reference that the matcher took for the same, by rank from 1."""

    planned: int
    reference: int
    why: str


class PlanScore(Record):
    """How well a plan finds the ablations of a reference.

    Attributes:
        matcher: Identity of the matcher; scores of different matchers cannot be compared.
        k: How many planned ablations were counted; None for all.
        planned: How many there were among the first k.
        reference: How many the reference has.
        matched: M, reference ablations that some planned one matches.
        unmatched: U, planned ones that match none.
        unclear: Pairs that the matcher could not tell; they count as no match.
        precision: `M / (M + U)`.
        recall: `M / reference`.
        f1: Their harmonic mean.
        ndcg: See `ndcg`.
    """

    matcher: str
    k: int | None
    planned: int
    reference: int
    matched: int
    unmatched: int
    unclear: int
    precision: float
    recall: float
    f1: float
    ndcg: float
    pairs: tuple[MatchedPair, ...]
    judged: tuple[JudgedPair, ...] = ()
    """Every pair with its votes, when chat models matched."""

    @property
    def failures(self) -> int:
        """Replies of chat models that could not be read."""
        return sum(pair.failures for pair in self.judged)


def score_plan(
    plan: AblationPlan, reference: AblationPlan, *, k: int | None = None, matcher: Matcher | None = None
) -> PlanScore:
    """Score a plan against a reference, many-to-many: precision, recall, F1 at k, and a rank-based nDCG.

    Args:
        plan: The plan; its order is its ranking.
        reference: What should be found.
        k: Count only the first k planned ablations.
        matcher: Decides what is the same; default: `LexicalMatcher`.

    Raises:
        InputError: k below 1, or a reference without entries.

    Source: precision, recall and F1 as in AblationBench (M matched of the reference, U planned and never matched).
    """
    if k is not None and k < 1:
        raise InputError.of("count-below-one", f"k = {k}", "it counts ablations", "Give 1 or more.")
    if not reference.entries:
        raise InputError.of("reference-empty", "no entries", "nothing can be found in it", "Give another reference.")
    judge = matcher or LexicalMatcher()
    planned = plan.entries[:k]
    pairs: list[MatchedPair] = []
    unclear = 0
    judged: list[JudgedPair] = []
    if isinstance(judge, ChatMatcher):
        both = [(entry, wanted) for entry in planned for wanted in reference.entries]
        judge.prepare(both)
        judged = [judge.judged(*pair) for pair in both]
    for rank, entry in enumerate(planned, start=1):
        for place, wanted in enumerate(reference.entries, start=1):
            verdict = judge.match(entry, wanted)
            unclear += not verdict.clear
            if verdict.matched and verdict.clear:
                pairs.append(MatchedPair(planned=rank, reference=place, why=verdict.why))
    matched = len({pair.reference for pair in pairs})
    unmatched = len(planned) - len({pair.planned for pair in pairs})
    precision = matched / (matched + unmatched) if matched + unmatched else 0.0
    recall = matched / len(reference.entries)
    return PlanScore(
        matcher=judge.identity,
        k=k,
        planned=len(planned),
        reference=len(reference.entries),
        matched=matched,
        unmatched=unmatched,
        unclear=unclear,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if matched else 0.0,
        ndcg=ndcg(pairs, len(reference.entries), k),
        pairs=tuple(pairs),
        judged=tuple(judged),
    )


def ndcg(pairs: Sequence[MatchedPair], reference: int, k: int | None) -> float:
    """Normalised discounted cumulative gain over the plan's own ranks.

    `DCG = Σ_i g_i / log2(i + 1)` over ranks i = 1, 2, …; `g_i` is 1 when the entry at rank i matches a reference
    ablation that no entry before it matched, else 0. `nDCG = DCG / Σ_{i=1..n} 1 / log2(i + 1)` with
    `n = min(k, reference)`: the ideal plan names a further reference ablation at each rank until all are named.
    It is in [0, 1]; good entries placed late, repeats and missing ones all cost.

    Args:
        pairs: The matches.
        reference: Number of reference ablations, at least 1.
        k: How many planned ablations count; None for all.

    Differs from AblationBench: its nDCG goes by the reference's order, so a plan's ranking does not enter.
    """
    seen: set[int] = set()
    gain = 0.0
    for rank in sorted({pair.planned for pair in pairs}):
        new = {pair.reference for pair in pairs if pair.planned == rank} - seen
        gain += bool(new) / math.log2(rank + 1)
        seen |= new
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k or reference, reference) + 1))
    return gain / ideal
