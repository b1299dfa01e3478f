"""Scores against cases counted by hand."""

import math

import pytest

from optaware.errors import InputError
from optaware.plan import LexicalMatcher, MatchVerdict, render_plan, score_folders, score_plan
from optaware.records import AblationPlan, PlanDocument, PlanItem


@pytest.fixture
def plan(entry):
    def made(*parts, **fields):
        return AblationPlan(entries=tuple(entry(part, action="REMOVE", name=part, **fields) for part in parts))

    return made


def test_counted_by_hand(plan):
    # Ranks: miss, hit, hit of the same, hit; reference of four. M = 2, U = 1.
    score = score_plan(plan("tokenizer", "noise", "noise", "momentum"), plan("noise", "momentum", "dropout", "warmup"))
    assert (score.matched, score.unmatched, score.planned, score.reference) == (2, 1, 4, 4)
    assert score.precision == pytest.approx(2 / 3)
    assert score.recall == pytest.approx(2 / 4)
    assert score.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    ideal = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    assert score.ndcg == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert [(pair.planned, pair.reference) for pair in score.pairs] == [(2, 1), (3, 1), (4, 2)]


def test_k_cuts_the_plan_and_the_ideal(plan):
    score = score_plan(plan("tokenizer", "noise", "momentum"), plan("noise", "momentum", "dropout"), k=2)
    assert (score.planned, score.matched, score.unmatched, score.recall) == (2, 1, 1, pytest.approx(1 / 3))
    assert score.ndcg == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_order_counts_for_ndcg_only(plan):
    reference = plan("noise", "momentum", "dropout")
    first, last = (score_plan(plan(*p), reference) for p in (("noise", "tokenizer"), ("tokenizer", "noise")))
    assert (first.precision, first.recall, first.f1) == (last.precision, last.recall, last.f1)
    assert first.ndcg > last.ndcg


def test_the_reference_itself_is_perfect_and_an_empty_plan_is_zero(plan):
    reference = plan("noise", "momentum", "dropout")
    score = score_plan(reference, reference)
    assert (score.precision, score.recall, score.f1, score.ndcg) == (1, 1, 1, 1)
    score = score_plan(plan(), reference)
    assert (score.precision, score.recall, score.f1, score.ndcg) == (0, 0, 0, 0)
    with pytest.raises(InputError):
        score_plan(reference, plan())
    with pytest.raises(InputError):
        score_plan(reference, reference, k=0)


def test_many_to_many():
    # One planned entry that covers both of the reference: M = 2, U = 1, so P = 2/3 and R = 1.
    class First:
        identity = "first/1"

        def match(self, planned, reference):
            return MatchVerdict(planned.name == "a", True, "told so")

    from optaware.records import AblationEntry

    def of(*names):
        return AblationPlan(
            entries=tuple(AblationEntry(name=name, ablated_part=name, action="REMOVE") for name in names)
        )

    score = score_plan(of("a", "b"), of("c", "d"), matcher=First())
    assert (score.matcher, score.matched, score.unmatched) == ("first/1", 2, 1)
    assert (score.precision, score.recall) == (pytest.approx(2 / 3), 1)


SAMPLES = "Number of SPSA samples (n) used for gradient estimation"


@pytest.mark.parametrize(
    ("one", "other", "matched", "clear"),
    [
        ((SAMPLES, "REPLACE", [1, 4]), ("SPSA sample count (n)", "REPLACE", [4, 16]), True, True),
        ((SAMPLES, "REPLACE", [1, 4]), ("SPSA sample count (n)", "REPLACE", [2, 16]), False, True),
        ((SAMPLES, "REPLACE", [1, 4]), ("learning rate", "REPLACE", [4]), False, True),
        ((SAMPLES, "REPLACE", [1, 4]), (SAMPLES, "REMOVE", None), False, True),
        ((SAMPLES, "REPLACE", [1, 4]), (SAMPLES, "REPLACE", None), False, False),
        ((SAMPLES, "REPLACE", [1, 4]), (SAMPLES, "ADD", [4]), False, False),
        (("momentum", "REPLACE", ["no momentum"]), ("momentum", "REMOVE", None), True, True),
        (("momentum", "REMOVE", None), ("momentum", "REMOVE", ["x"]), True, True),
        (("a warm-up phase", "ADD", None), ("warm-up phase", "ADD", None), True, True),
        (("scale", "REPLACE", ["1e-3"]), ("scale", "REPLACE", ["0.001"]), True, True),
        (("fraction", "REPLACE", ["10%"]), ("fraction", "REPLACE", ["10.0 %"]), True, True),
        (("fraction", "REPLACE", ["10%"]), ("fraction", "REPLACE", ["10"]), False, True),
        (("LLM", "REPLACE", ["GPT-3"]), ("LLM", "REPLACE", ["GPT-2"]), False, True),
        (("LLM", "REPLACE", ["GPT-3"]), ("LLM", "REPLACE", ["GPT 3"]), True, True),
        (("LLM", "REPLACE", ["Llama chat 7B"]), ("LLM", "REPLACE", ["Llama chat 13B"]), False, True),
        (("schedule", "REPLACE", ["linear schedule"]), ("schedule", "REPLACE", ["cosine schedule"]), False, True),
        (("schedule", "REPLACE", ["linear schedule"]), ("schedule", "REPLACE", ["linear"]), True, True),
        (("attention heads in layer 3", "REMOVE", None), ("attention heads in layer 4", "REMOVE", None), False, True),
        (("gradient noise in the update", "REMOVE", None), ("gradient clipping", "REMOVE", None), False, False),
    ],
)
def test_what_the_lexical_matcher_takes_for_the_same(entry, one, other, matched, clear):
    left, right = (entry(part, action=action, values=values) for part, action, values in (one, other))
    for pair in ((left, right), (right, left)):
        verdict = LexicalMatcher().match(*pair)
        assert (verdict.matched, verdict.clear) == (matched, clear), verdict.why


def write(folder, name, plan):
    folder.mkdir(exist_ok=True)
    items = tuple(PlanItem(entry=entry) for entry in plan.entries)
    (folder / name).write_text(render_plan(PlanDocument(read_from="jsonl", items=items), "jsonl"), "utf-8")


def test_folders_are_averaged_over_papers_and_failures_count_as_zero(tmp_path, plan):
    plans, references = tmp_path / "plans", tmp_path / "references"
    for paper in ("a", "b", "c"):
        write(references, f"{paper}.jsonl", plan("noise", "momentum"))
    write(plans, "a.txt", plan("noise", "momentum"))
    write(plans, "b.jsonl", plan("noise"))
    write(plans, "z.jsonl", plan("noise"))
    (plans / "c.jsonl").write_text("no plan at all")
    found = score_folders(plans, references)
    assert [(paper.paper, paper.score.recall) for paper in found.papers] == [("a", 1.0), ("b", 0.5), ("c", 0.0)]
    assert [paper.paper for paper in found.faults] == ["c"]
    assert found.without_reference == ("z",)
    means = {mean.measure: mean for mean in found.means}
    assert means["recall"].mean == pytest.approx(0.5)
    assert means["precision"].mean == pytest.approx(2 / 3)
    # Student's t with 2 degrees of freedom: 4.302653 * 0.5 / sqrt(3) = 1.242, cut to [0, 1].
    assert (means["recall"].interval.low, means["recall"].interval.high) == (0.0, 1.0)
    (plans / "c.jsonl").unlink()
    assert score_folders(plans, references).means == found.means


def test_one_paper_has_no_interval_and_a_damaged_reference_is_refused(tmp_path, plan):
    plans, references = tmp_path / "plans", tmp_path / "references"
    write(plans, "a.jsonl", plan("noise"))
    write(references, "a.jsonl", plan("noise"))
    assert score_folders(plans, references).means[0].interval is None
    with (references / "a.jsonl").open("a") as file:
        file.write('{"name": ')
    with pytest.raises(InputError, match="reference-damaged"):
        score_folders(plans, references)
    write(references, "a.txt", plan("noise"))
    with pytest.raises(InputError, match="paper-twice"):
        score_folders(plans, references)
