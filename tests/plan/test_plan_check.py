"""What a check tells about a plan before anything is spent on it."""

import pytest

from optaware.errors import InputError
from optaware.plan import METRICS, check_plan, name_metric
from optaware.records import AblationPlan, PlanValue


def codes(report):
    return [finding.code for finding in report.findings]


@pytest.fixture
def check(entry):
    def checked(*entries, **options):
        made = tuple(entry(**{"name": f"About {index}", **fields}) for index, fields in enumerate(entries))
        return check_plan(AblationPlan(entries=made), **options)

    return checked


SAMPLES = {"part": "Number of SPSA samples (n) used for gradient estimation", "values": [1, 4, 8]}
SCALE = {"part": "Perturbation scale (epsilon) in the SPSA gradient approximation", "values": ["1e-3", "1e-4"]}
TRICK = {"part": "In-place update mechanism", "action": "REMOVE"}


def test_a_sound_plan_has_no_findings(check):
    report = check({**SAMPLES, "values": [4, 8]}, TRICK)
    assert (report.findings, report.has_errors) == ((), False)
    assert [e.runs for e in report.entries] == [2, 1]
    assert report.runs == 4


def test_the_method_tells_its_own_values_and_they_are_not_run_twice(check):
    report = check(
        SAMPLES, SCALE, {"part": "Gradient estimator", "values": ["SPSA", "one-point"]}, method="mezo", seeds=3
    )
    assert [[v.baseline for v in e.values] for e in report.entries] == [
        [True, False, False],
        [True, False],
        [True, False],
    ]
    assert [(e.component, e.sure, e.runs) for e in report.entries] == [
        ("queries", True, 2),
        ("eps", True, 1),
        ("estimator", True, 1),
    ]
    assert codes(report) == ["baseline-listed"] * 3
    assert not report.has_errors
    assert report.runs == 3 * (1 + 2 + 1 + 1)


@pytest.mark.parametrize(
    ("part", "field", "sure"),
    [
        ("learning rate", "lr", True),
        ("Step size of the update", "lr", True),
        ("ε", "eps", True),
        ("smoothing", "eps", True),
        ("weight_decay", "weight_decay", True),
        ("the rank (r) of the noise", "rank", True),
        ("seed-based noise regeneration", "noise", True),
        ("tokenizer", None, False),
        ("n-gram features", None, False),
    ],
)
def test_which_component_a_part_means(check, part, field, sure):
    report = check({"part": part, "values": ["x"]}, method="mezo")
    assert (report.entries[0].component, report.entries[0].sure) == (field, sure)
    assert ("part-not-covered" in codes(report)) == (field is None)


def test_percent_and_other_spellings_of_a_baseline(check):
    values = [
        v.baseline
        for v in check({"part": "LoRA rank", "values": ["8", "8.0", "16"]}, method="fo-lora").entries[0].values
    ]
    assert values == [True, True, False]
    values = (
        check({"part": "perturbation scale", "values": ["0.1%", "1.0e-3", "0.01"]}, method="mezo").entries[0].values
    )
    assert [v.baseline for v in values] == [True, True, False]


@pytest.mark.parametrize("value", ["default", "cosine annealing", "the original schedule", "as proposed"])
def test_a_baseline_is_also_known_by_its_words(check, value):
    report = check({"part": "Cosine annealing schedule", "values": [value, "linear schedule"]})
    assert codes(report) == ["baseline-listed"]
    assert report.entries[0].runs == 1


def test_k_is_enforced_by_rank(check):
    report = check(SAMPLES, SCALE, TRICK, k=2)
    assert [e.rank for e in report.entries] == [1, 2]
    assert report.left_out == ("About 2",)
    assert [(f.code, f.rank, f.level) for f in report.findings if f.rank == 3] == [("beyond-k", 3, "error")]
    assert check(SAMPLES, SCALE, k=2).findings == check(SAMPLES, SCALE).findings


@pytest.mark.parametrize("options", [{"k": 0}, {"seeds": 0}, {"method": "sgd"}])
def test_senseless_options_are_refused(check, options):
    with pytest.raises(InputError):
        check(SAMPLES, **options)


@pytest.mark.parametrize(
    ("name", "generic"),
    [
        ("Ablation 1", True),
        ("Ablation Study A", True),
        ("Experiment #2b", True),
        ("ablation III.", True),
        ("Ablation A: SPSA Sample Size", False),
        ("LoRA", False),
        ("Study of noise", False),
    ],
)
def test_names_that_tell_nothing_get_a_suggestion(check, name, generic):
    report = check({"name": name, "part": "LLM model size", "values": ["GPT-3", "GPT-2"]})
    assert codes(report) == (["name-generic"] if generic else [])
    if generic:
        assert report.findings[0].suggestion == "LLM model size: GPT-3 / GPT-2"


def test_names_are_unique(check):
    report = check({**SAMPLES, "name": "Same"}, {**TRICK, "name": "same "[:-1]})
    assert codes(report) == ["name-twice", "name-twice"]
    assert report.findings[1].suggestion == "Without In-place update mechanism"
    assert report.has_errors


@pytest.mark.parametrize(
    ("fields", "level", "code"),
    [
        ({"values": None}, "error", "replace-without-values"),
        ({"values": []}, "error", "replace-without-values"),
        ({"action": "ADD"}, "warning", "add-without-values"),
        ({"action": "REMOVE", "values": ["x"]}, "warning", "remove-with-values"),
        ({"values": ["None", "x"]}, "warning", "removal-in-replace"),
        ({"values": ["no momentum"]}, "warning", "removal-in-replace"),
        ({"values": ["Without warm-up", "x"]}, "warning", "removal-in-replace"),
        ({"values": ["x", "X"]}, "warning", "value-twice"),
        ({"values": ["x", ""]}, "error", "value-empty"),
        ({"values": ["x"], "metrics": ()}, "error", "metrics-missing"),
        ({"values": ["x"], "metrics": ("vibes",)}, "warning", "metric-unknown"),
        ({"values": ["x"], "metrics": ("memory footprint", "peak memory")}, "warning", "metric-twice"),
    ],
)
def test_each_fault_is_found(check, fields, level, code):
    report = check({"part": "momentum of the update rule", **fields})
    assert [(f.level, f.code) for f in report.findings] == [(level, code)]
    assert report.has_errors == (level == "error")


@pytest.mark.parametrize("value", ["normalization", "nonlinear", "offset", "noise", "number 3"])
def test_what_only_begins_like_a_removal_is_none(check, value):
    assert not check({"values": [value]}).entries[0].values[0].removal


def test_the_same_ablation_twice(check):
    report = check(SAMPLES, {**SAMPLES, "part": "number of SPSA samples (n) used for the gradient estimation"})
    assert codes(report) == ["entry-twice"]
    assert [e.runs for e in report.entries] == [3, 0]
    report = check(SAMPLES, {**SAMPLES, "values": [8, 16]})
    assert codes(report) == []
    assert [e.runs for e in report.entries] == [3, 1]


def test_a_dict_is_one_joint_setting(entry):
    one = entry("optimizer", values=["x"])
    joint = one.model_copy(update={"replacement": {"lr": PlanValue.read("1e-3"), "beta": PlanValue.read("0.9")}})
    assert check_plan(AblationPlan(entries=(joint,))).entries[0].runs == 1


@pytest.mark.parametrize(
    ("text", "name", "rest"),
    [
        ("Accuracy", "accuracy", ""),
        ("5-way-1-shot accuracy", "5-way-1-shot accuracy", ""),
        ("F1 score", "F1", ""),
        ("convergence rate", "convergence", ""),
        ("GPU-hours", "GPU-hours", ""),
        ("memory footprint", "peak memory", ""),
        ("memory reduction", "memory reduction", ""),
        ("training speed", "training speed", ""),
        ("forward pass count", "forward passes", ""),
        ("wall-clock time", "wall time", ""),
        ("Gradient Conflict Index (GCI)", "GCI", ""),
        ("Zero-shot accuracy", "zero-shot accuracy", ""),
        ("Mean task accuracy", "mean task accuracy", ""),
        ("Task interference measure", "interference", ""),
        ("Robustness to ineffective experts", "robustness", "to ineffective expert"),
        ("validation loss", "loss", "validation"),
        ("happiness", None, ""),
    ],
)
def test_metrics_get_one_name_each(text, name, rest):
    found = name_metric(text)
    assert (found.name, found.narrowed_by, found.text) == (name, rest, text)


def test_every_canonical_name_is_its_own():
    assert {name_metric(name).name for name in METRICS} == set(METRICS)
    for name, others in METRICS.items():
        assert {name_metric(other).name for other in others} <= {name}


def test_the_cost_in_forward_passes_counted_by_hand(check):
    report = check(
        SAMPLES,
        SCALE,
        {"part": "Gradient estimator", "values": ["SPSA", "one-point"]},
        method="mezo",
        seeds=3,
        steps=10,
    )
    # baseline 2; n = 4: 8; n = 8: 16; eps 1e-4: 2; one-point 1
    assert report.forwards == 3 * 10 * (2 + 8 + 16 + 2 + 1)
    assert check(SAMPLES).forwards is None
    assert check({"part": "LoRA rank", "values": [4]}, method="fo-lora", steps=10).forwards == 10 * (3 + 3)


def test_values_that_the_component_cannot_have(check):
    report = check({"part": "momentum", "values": [0.5, 7]}, method="mezo")
    assert codes(report) == ["value-not-bound"]
    assert "less than 1" in report.findings[0].why


def test_a_manifest_says_the_parts_too(check):
    from optaware.records import Manifest, parse_record

    rate = {"words": "learning rate", "type": "number", "baseline": 0.01, "flag": "--lr {value}"}
    data = {"name": "sgd", "components": {"rate": rate}, "metrics": {"loss": {"line": "loss"}}}
    manifest = parse_record(Manifest, data, "")
    report = check(
        {"part": "learning rate", "values": [0.01, 0.1]}, {"part": "depth", "values": [1]}, manifest=manifest
    )
    assert [(one.component, one.sure, one.runs) for one in report.entries] == [("rate", True, 1), (None, False, 1)]
    assert codes(report) == ["baseline-listed", "part-not-covered"]
    assert report.forwards is None
    with pytest.raises(InputError, match="bind-what"):
        check({}, method="mezo", manifest=manifest)
