"""The section on what a study cannot show stays short however many arms and corpora there are."""

from types import SimpleNamespace as Made

from optaware.report._claims import _at_majority, _mixtures


def cell(task, method, variant, low, high):
    key = Made(task=task, model="m", method=method, variant=variant)
    return Made(arm=Made(key=key), accuracy=Made(low=low, high=high))


def test_arms_at_the_most_frequent_label_are_named_by_place():
    cells = [
        cell("copa", "ZO", "original", 0.4, 0.6),
        cell("copa", "ZO", "oat", 0.5, 0.7),
        cell("cb", "ZO", "original", 0.3, 0.6),
        cell("cb", "FO", "original", 0.6, 0.8),
        cell("rte", "FO", "original", 0.6, 0.8),
    ]
    collected = Made(majority={"copa": 0.55, "cb": 0.5, "rte": 0.5})
    assert _at_majority(cells, collected) == "copa, m: all 2 arms; cb, m: ZO on original"
    assert _at_majority(cells[3:], collected) == ""


def test_many_corpora_with_few_accepted_rows_take_one_sentence():
    corpora = [Made(title=f"t{i}", verdict="v", corpus=Made(card=Made(rewriter_accuracy=0.1 * i))) for i in range(1, 4)]
    assert _mixtures(corpora[:2]) == ["t1: v", "t2: v"]
    (said,) = _mixtures(corpora)
    assert said.startswith("In 3 corpora")
    assert "(t1 10.0 %; t2 20.0 %; t3 30.0 %)" in said
