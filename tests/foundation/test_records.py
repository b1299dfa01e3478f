import subprocess
import sys

import pytest

from optaware import records
from optaware.errors import InputError
from optaware.records import RunSpec, StudySpec, fingerprint, parse_record, short_id, surface

SPEC = {"model": {"name": "m"}, "data": {"task": "copa"}, "method": {"name": "mezo"}}


def test_every_fault_of_a_record_is_told_with_its_field():
    bad = {**SPEC, "method": {"name": "mezo", "eps": 0, "lr": "fast"}, "typo": 1}
    with pytest.raises(InputError) as caught:
        parse_record(RunSpec, bad, "run.yaml")
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    for part in ("method.mezo.eps", "method.mezo.lr", "typo", "run.yaml"):
        assert part in text


def test_the_fingerprint_is_stable_across_versions_of_the_code():
    # A change here makes every finished run look new: raise FINGERPRINT_VERSION deliberately, then correct the value.
    assert short_id(parse_record(RunSpec, SPEC, "")) == "341125366cf1"


def test_the_fingerprint_sees_what_matters_and_only_that():
    base = parse_record(RunSpec, SPEC, "")
    assert fingerprint(base) == fingerprint(base.model_copy(update={"keep_weights": False}))
    assert fingerprint(base) != fingerprint(base.model_copy(update={"seed": 1}))
    other = parse_record(RunSpec, {**SPEC, "method": {"name": "mezo", "eps": 1e-2}}, "")
    assert fingerprint(base) != fingerprint(other)
    later = parse_record(RunSpec, {**SPEC, "method": {"name": "mezo", "fused": "off"}}, "")
    assert fingerprint(base) != fingerprint(later)


def test_how_a_chat_model_is_reached_makes_no_other_corpus_or_study():
    study = {
        "name": "s",
        "models": [{"name": "m"}],
        "tasks": ["copa"],
        "variants": [{"name": "original"}, {"name": "oat", "template": "oat"}],
        "methods": [{"config": {"name": "mezo"}}],
        "rewriter": {"model": "m", "max_tokens": 99},
    }
    plain = parse_record(StudySpec, study, "")
    reached = {"concurrency": 64, "timeout_s": 5.0, "max_retries": 1, "budget_usd": 2.0, "budget_tokens": 9}
    faster = {**study, "rewriter": {"model": "m", "max_tokens": 99, **reached}}
    assert fingerprint(parse_record(StudySpec, faster, "")) == fingerprint(plain)
    for change in ({"max_tokens": 98}, {"temperature": 0.5}, {"provider": "openai"}, {"seed": 1}):
        other = {**study, "rewriter": {"model": "m", "max_tokens": 99, **change}}
        assert fingerprint(parse_record(StudySpec, other, "")) != fingerprint(plain)


def test_records_are_frozen_and_strict():
    spec = parse_record(RunSpec, SPEC, "")
    with pytest.raises(Exception, match="frozen"):
        spec.seed = 2  # type: ignore[misc]


def test_every_method_names_its_knobs():
    for config in (records.MeZO, records.FOFull, records.FOLoRA):
        knobs = surface(config)
        assert "lr" in knobs
        assert all(knob.words for knob in knobs.values())


def test_a_study_tells_all_that_does_not_fit_together():
    study = {
        "name": "s",
        "models": [{"name": "m"}],
        "tasks": ["copa"],
        "variants": [{"name": "original"}, {"name": "oat", "template": "oat"}],
        "baseline": "none",
        "methods": [{"config": {"name": "mezo"}, "variants": ["nope"]}, {"config": {"name": "mezo"}}],
        "seeds": [0, 0],
    }
    with pytest.raises(InputError) as caught:
        parse_record(StudySpec, study, "study.yaml")
    for part in ("baseline", "nope", "seeds", "rewriter", "method labels"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "module", ["optaware.records", "optaware.store", "optaware.tasks", "optaware.cli", "optaware.study"]
)
def test_configs_are_read_without_heavy_imports(module):
    heavy = ["torch", "transformers", "scipy", "matplotlib", "openai", "datasets", "pandas"]
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
