"""What the report says of searches and evidence: only what was done, in sentences."""

from dataclasses import replace

import pytest

from optaware.records import CorpusEvidence, Drift, HeldOutCount, Interval, Leakage, ModelRef, RowProbes, SearchSpec
from optaware.report import load_report_corpus
from optaware.report._corpora import corpus_view
from optaware.report._corpus_facts import corpus_facts, equal_cost
from optaware.report._tables import _corpus


def interval(estimate, low, high):
    return Interval(estimate=estimate, low=low, high=high, method="test")


def evidence(corpus_id, leak, steadiness):
    drift = Drift(name="signal to noise of a batch", before=1.0, after=2.0, difference=interval(*steadiness))
    return CorpusEvidence(
        corpus_id=corpus_id,
        rows=100,
        changed=80,
        leakage=Leakage(scorer="s", rows=80, chance=0.5, before=0.5, after=0.6, difference=interval(*leak)),
        drift=(),
        gained_words=(),
        lost_words=(),
        names_kept=None,
        numbers_kept=None,
        negation_kept=None,
        by_label=(),
        held_out=HeldOutCount(texts=10, near_before=0, near_after=2, refused=1),
        probes=RowProbes(
            model="m", dtype="fp32", directions=8, eps=1e-3, batch_size=16, rows=80, figures=(), signal_to_noise=drift
        ),
    )


@pytest.fixture
def corpora(disk):
    return [load_report_corpus(path) for path in disk.corpora]


def with_search(corpus, prefer, calls):
    model = None if prefer == "first" else ModelRef(name="SmolLM2")
    search = SearchSpec(candidates=4, prefer=prefer, model=model)
    return replace(
        corpus,
        spec=corpus.spec.model_copy(update={"search": search, "retries": 1}),
        card=corpus.card.model_copy(
            update={"calls": calls, "measured_forwards": 1800 if model else 0, "attempts": {"4": 90, "5": 10}}
        ),
    )


def test_facts_of_a_corpus(corpora):
    from dataclasses import replace

    plain = corpora[0]
    assert corpus_facts(plain) == ()
    searched = with_search(plain, "gradient-noise", 5000)
    said = " ".join(corpus_facts(searched))
    assert "of 4 rewrites the one with the lowest gradient-noise under SmolLM2, with 1,800 forward passes" in said
    assert "10 rows were tried again" in said
    leaky = replace(plain, evidence=evidence(plain.corpus_id, (0.1, 0.02, 0.2), (0.5, 0.1, 0.9)))
    said = " ".join(corpus_facts(leaky))
    assert "labels leak" in said
    assert "+10.0 (+2.0 to +20.0)" in said
    assert "2 training spans are near-duplicates" in said
    assert "are steadier than" in said
    clean = replace(plain, evidence=evidence(plain.corpus_id, (0.0, -0.1, 0.1), (0.1, -0.1, 0.3)))
    said = " ".join(corpus_facts(clean))
    assert "no leak was found" in said
    assert "not told apart" in said


def test_equal_cost_names_what_may_be_compared(corpora):
    assert equal_cost(corpora) == ()
    one = next(each for each in corpora if each.card.task == "sst2")
    others = [with_search(one, "gradient-noise", 5000), with_search(one, "first", 4990), one]
    (line,) = equal_cost(others)
    assert line.count("4 rewrites a row") == 1
    assert "(5,000 calls)" in line
    assert "1 rewrite a row" in line


def test_evidence_of_another_corpus_is_left_out(disk):
    path = disk.corpora[0]
    own = load_report_corpus(path).corpus_id
    from optaware._io import write_json

    write_json(path / "evidence.json", evidence(own, (0.0, -0.1, 0.1), (0.1, -0.1, 0.3)).to_json())
    assert load_report_corpus(path).evidence is not None
    write_json(path / "evidence.json", evidence("another", (0.0, -0.1, 0.1), (0.1, -0.1, 0.3)).to_json())
    assert load_report_corpus(path).evidence is None
    (path / "evidence.json").unlink()


def test_rows_that_were_given_claim_no_rewriter_accuracy(corpora):
    judged = corpora[0]
    given = replace(judged, spec=judged.spec.model_copy(update={"given": "/rows/sst2.jsonl"}))
    assert corpus_view(judged).accuracy is not None
    view = corpus_view(given)
    assert view.accuracy is None
    assert "nobody judged" in view.verdict
    row = _corpus(view)
    assert row["rewriter_accuracy"] is None
    assert row["reaches_accept_at"] is None
