"""Binding a plan to configuration: what rules can tell, what they leave open and say so."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaware.cli._app import invoke
from optaware.errors import InputError
from optaware.plan import (
    bind_plan,
    check_plan,
    method_names,
    read_binding,
    read_manifest,
    read_plan,
    surface_of_manifest,
    surface_of_method,
)
from optaware.plan._reading import read_value
from optaware.records import AblationEntry, AblationPlan, MeZO, PlanValue, surface

MEZO = surface_of_method("mezo")


def entry(part, values=(), action="REPLACE", name=None, metrics=("accuracy",)):
    return AblationEntry(
        name=name or f"About {part}",
        ablated_part=part,
        action=action,
        replacement=tuple(map(PlanValue.read, values)) if values else None,
        metrics=metrics,
    )


def bound(*entries, on=MEZO, **options):
    return bind_plan(AblationPlan(entries=entries), on, source="test", **options)


def changes(one):
    return [arm.changes for arm in one.runs]


MEZO_PLAN = (
    entry("Number of SPSA samples (n) used for gradient estimation", ["1", "4", "8"]),
    entry("Perturbation scale (epsilon) in the SPSA gradient approximation", ["1e-3", "1e-4", "1e-5"]),
    entry("In-place parameter perturbation mechanism (seed-based noise regeneration)", action="REMOVE"),
    entry(
        "Tuning strategy by replacing full-parameter updates with parameter-efficient methods",
        ["LoRA", "Prefix Tuning"],
    ),
    entry("Gradient estimation method used in MeZO", ["SPSA", "One-point estimator"]),
)
MEZO_CHANGES = [
    [{"queries": 4}, {"queries": 8}],
    [{"eps": 1e-4}, {"eps": 1e-5}],
    [{"noise": "store"}],
    [{"parameters": "lora"}, {"parameters": "prefix"}],
    [{"estimator": "one-point"}],
]


def test_the_plan_for_mezo_binds_wholly():
    binding = bound(*MEZO_PLAN)
    assert [one.status for one in binding.entries] == ["bound"] * 5
    assert list(map(changes, binding.entries)) == MEZO_CHANGES
    assert [[a.label for a in e.arms if a.is_baseline] for e in binding.entries] == [["1"], ["1e-3"], [], [], ["SPSA"]]
    assert binding.baseline == {
        "queries": 1,
        "eps": 1e-3,
        "noise": "regenerate",
        "parameters": "all",
        "estimator": "two-point",
    }
    assert binding.contradictions == ()
    for one in binding.entries:
        for arm in one.runs:
            MeZO.model_validate({**binding.baseline, **arm.changes})


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("eps", "1e-4", 1e-4),
        ("eps", "10^-4", 1e-4),
        ("eps", "2 × 10⁻⁴", 2e-4),
        ("eps", "10x smaller", 1e-4),
        ("eps", "half", 5e-4),
        ("eps", "ε = 1e-2", 1e-2),
        ("eps", "1e-4 (default)", 1e-4),
        ("queries", "n=4", 4),
        ("queries", "4 samples", 4),
        ("queries", "4.0", 4),
        ("queries", "eight", 8),
        ("queries", "2x", 2),
        ("density", "5%", 0.05),
        ("density", "5 percent", 0.05),
        ("density", "1/8", 0.125),
        ("parameters", "LoRA", "lora"),
        ("parameters", "Prefix-Tuning", "prefix"),
        ("parameters", "soft prompts", "prompt"),
        ("estimator", "One-point estimator", "one-point"),
        ("estimator", "one-point residual feedback", "one-point-residual"),
        ("normalise", "with normalisation", True),
        ("normalise", "on", True),
        ("mask", "random mask", "random"),
        ("precision", "no remedy", "none"),
        ("clip", "1.0", 1.0),
    ],
)
def test_forms_and_units(field, text, value):
    read = read_value(PlanValue.read(text), MEZO.parts[field], MEZO, "")
    assert read.why_not is None
    assert read.changes == {field: pytest.approx(value) if isinstance(value, float) else value}
    assert type(read.changes[field]) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("eps", "5%", "a percentage of what"),
        ("eps", "between 1e-3 and 1e-2", "more than one number"),
        ("eps", "<1e-3", "a range"),
        ("eps", "-1", "greater than 0"),
        ("eps", "large", "no number"),
        ("eps", "none", "always has some value"),
        ("eps", "flux=1e-3", "no component is called 'flux'"),
        ("queries", "2.5", "whole number"),
        ("queries", "0", "greater than or equal to 1"),
        ("queries", "4 random seeds", "say more than a number"),
        ("density", "50", "less than or equal to 1"),
        ("parameters", "Adapters", "none of the values"),
        ("parameters", "LoRA with dropout", "none of the values"),
        ("normalise", "5", "on or off"),
    ],
)
def test_what_a_value_cannot_mean_is_said(field, text, why):
    read = read_value(PlanValue.read(text), MEZO.parts[field], MEZO, "")
    assert why in read.why_not
    assert not read.changes


@pytest.mark.parametrize(("field", "text"), [("eps", "default"), ("eps", "1e-3"), ("mask", "none"), ("clip", "none")])
def test_the_baseline_is_known(field, text):
    assert read_value(PlanValue.read(text), MEZO.parts[field], MEZO, "").is_baseline


def test_several_fields_at_once():
    one = entry("tuning strategy", ["LoRA (r=16, alpha=32)", "prefix"])
    two = entry("optimizer", ["x"]).model_copy(
        update={"replacement": {"update": PlanValue.read("momentum"), "momentum": PlanValue.read("0.5")}}
    )
    three = entry("learning rate and scale", ["eps=1e-2, lr=1e-5"], name="Both")
    binding = bound(one, two, three)
    assert changes(binding.entries[0])[0] == {"parameters": "lora", "lora_rank": 16, "lora_alpha": 32.0}
    assert changes(binding.entries[1]) == [{"update": "momentum", "momentum": 0.5}]
    assert [one.status for one in binding.entries[:2]] == ["bound", "bound"]


def test_adding_and_removing():
    binding = bound(
        entry("loss-std normalisation", action="ADD"),
        entry("Adam optimizer", action="ADD"),
        entry("something new", action="ADD"),
        entry("weight decay", action="REMOVE"),
        entry("perturbation scale", action="REMOVE", name="No scale"),
        entry("momentum", action="REMOVE"),
    )
    assert list(map(changes, binding.entries)) == [
        [{"normalise": True}],
        [{"update": "adam"}],
        [],
        [],
        [],
        [{"momentum": 0.0}],
    ]
    assert "without it already" in binding.entries[3].unbound[0].why
    assert "always has some value" in binding.entries[4].unbound[0].why


def test_what_is_left_open_says_what_is_near_and_needed():
    binding = bound(
        entry("estimator", ["one-point", "Bayesian quadrature"]),
        entry("noise in the data", ["more"]),
        entry("tokenizer", ["BPE"]),
    )
    part, unclear, nothing = binding.entries
    assert part.status == "partly"
    assert (part.unbound[0].label, changes(part)) == ("Bayesian quadrature", [{"estimator": "one-point"}])
    assert "two-point, one-sided" in part.unbound[0].needed
    assert unclear.status == nothing.status == "unbound"
    assert "direction" in [near.component for near in unclear.unbound[0].nearest]
    assert nothing.unbound[0].nearest == ()
    assert "'tokenizer'" in nothing.unbound[0].needed


def test_a_baseline_of_ones_own():
    on = surface_of_method("mezo", {"eps": 1e-4})
    binding = bound(MEZO_PLAN[1], on=on, baseline={"eps": 1e-4})
    assert changes(binding.entries[0]) == [{"eps": 1e-3}, {"eps": 1e-5}]
    assert binding.baseline == {"eps": 1e-4}
    with pytest.raises(InputError, match="component-unknown"):
        bound(MEZO_PLAN[1], baseline={"epsilon": 1})
    with pytest.raises(InputError, match="baseline-refused"):
        surface_of_method("mezo", {"eps": -1})


def test_contradictions_are_found():
    binding = bound(entry("perturbation scale", ["1e-4 (default)", "1e-5"]))
    assert "the plan calls it the baseline" in binding.contradictions[0]
    binding = bound(entry("perturbation direction", ["low-rank"]), on=surface_of_method("sparse-mezo"))
    assert binding.entries[0].status == "unbound"
    assert "masked low-rank" in str(binding.entries[0].unbound)


@pytest.mark.parametrize("method", sorted(method_names()))
def test_every_component_of_every_method_is_found_by_its_own_words(method):
    on = surface_of_method(method)
    for name, knob in surface(method_names()[method]).items():
        part = on.parts[name]
        assert knob.words
        for choice, names in part.choices:
            for text in names:
                read = read_value(PlanValue.read(text), part, on, "")
                refused = read.why_not is not None and on.settle({name: choice})[1] is not None
                assert refused or read.is_baseline or read.changes == {name: choice}, (method, name, text)


@settings(max_examples=60)
@given(st.data())
def test_written_values_bind_to_themselves(data):
    part = data.draw(st.sampled_from([p for p in MEZO.parts.values() if p.kind in ("number", "integer", "choice")]))
    if part.kind == "choice":
        value = data.draw(st.sampled_from([choice for choice, _ in part.choices]))
    elif part.kind == "integer":
        value = data.draw(st.integers(0, 10**6))
    else:
        value = data.draw(st.floats(0, 2, allow_nan=False))
    read = read_value(PlanValue.read(str(value)), part, MEZO, part.words)
    settled, why_not = MEZO.settle({part.name: value})
    if why_not is None and value != part.baseline:
        assert read.changes == settled
    else:
        assert not read.changes


MANIFEST = """
name: sgd
components:
  rate: {words: learning rate, aliases: [eta0], type: number, baseline: 0.01, flag: "--lr {value}"}
  penalty: {words: penalty, baseline: l2, choices: {l2: [ridge], none: []}, remove: none, flag: "--penalty {value}"}
metrics:
  accuracy: {line: accuracy}
"""


def test_a_strangers_script(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    on = surface_of_manifest(read_manifest(path))
    binding = bound(
        entry("learning rate", ["0.01", "0.1"]),
        entry("penalty", action="REMOVE"),
        on=on,
        manifest="m.yaml",
        manifest_sha256="0" * 64,
    )
    assert list(map(changes, binding.entries)) == [[{"rate": 0.1}], [{"penalty": "none"}]]
    assert (binding.method, binding.baseline) == (None, {"rate": 0.01, "penalty": "l2"})


def rows(*entries):
    from optaware.plan import entry_json

    return "".join(entry_json(one) + "\n" for one in entries)


def test_the_command(tmp_path, capsys):
    plan, out = tmp_path / "plan.jsonl", tmp_path / "sub" / "binding.yaml"
    plan.write_text(rows(*MEZO_PLAN))
    assert invoke(["plan", "bind", str(plan), "--method", "mezo", "-o", str(out)]) == 0
    assert "8 settings beside the baseline" in capsys.readouterr().out
    assert list(map(changes, read_binding(out).entries)) == MEZO_CHANGES
    assert invoke(["plan", "bind", str(out), "--check"]) == 0
    capsys.readouterr()
    assert invoke(["plan", "bind", str(plan), "--method", "mezo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "mezo"
    (tmp_path / "m.yaml").write_text(MANIFEST)
    plan.write_text(rows(entry("learning rate", ["0.1", "lots"])))
    assert invoke(["plan", "bind", str(plan), "--manifest", str(tmp_path / "m.yaml"), "-o", str(out)]) == 1
    assert "unbound: About learning rate, lots: it holds no number" in capsys.readouterr().err
    assert invoke(["plan", "bind", str(out), "--check"]) == 1
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("0.01", "0.1"))
    with pytest.raises(InputError) as caught:
        invoke(["plan", "bind", str(out), "--check"])
    assert [problem.code for problem in caught.value.problems] == ["manifest-changed"]


def test_a_plan_for_another_method_says_what_does_not_fit(tmp_path):
    plan, out = tmp_path / "plan.jsonl", tmp_path / "binding.yaml"
    plan.write_text(rows(*MEZO_PLAN[:2]))
    with pytest.raises(InputError) as caught:
        invoke(["plan", "bind", str(plan), "--method", "fo-lora", "-o", str(out)])
    assert [problem.code for problem in caught.value.problems] == ["plan-does-not-fit"] * 2
    assert "2 of its 2 entries would fit" in caught.value.problems[0].next
    assert "mezo" in caught.value.problems[0].next
    assert out.exists()
    for options in ([], ["--method", "mezo", "--manifest", "m"], ["--method", "mezo", "--set", "eps"]):
        with pytest.raises(InputError):
            invoke(["plan", "bind", str(plan), *options])


def test_an_edited_binding_is_checked_whole(tmp_path):
    plan, out = tmp_path / "plan.jsonl", tmp_path / "binding.yaml"
    plan.write_text(rows(*MEZO_PLAN))
    invoke(["plan", "bind", str(plan), "--method", "mezo", "-o", str(out)])
    text = out.read_text()
    edits = [
        ("queries: 8", "queries: 4"),
        ("eps: 0.0001", "eps: 0.001"),
        ("noise: store", "nois: store"),
        ("parameters: lora", "parameters: adapters"),
    ]
    for old, new in edits:
        assert text.count(old) == 1
        text = text.replace(old, new)
    out.write_text(text)
    with pytest.raises(InputError) as caught:
        read_binding(out)
    told = "\n".join(map(str, caught.value.problems))
    assert len(caught.value.problems) == 4
    for said in ("the same change as 4", "it changes nothing", "has no nois", "Input should be"):
        assert said in told


SEEDS = Path(__file__).parents[3] / "shared" / "seeds"


PUBLISHED_SEEDS = {
    "000_ab292a0780039fdb": (
        "mezo",
        [
            [{"queries": 4}, {"queries": 8}],
            [{"eps": 1e-4}, {"eps": 1e-5}],
            [{"noise": "store"}],
            [{"parameters": "lora"}, {"parameters": "prefix"}],
            [{"estimator": "one-point"}],
        ],
    ),
    "001_e50bcc3de284dc5e": (
        "complementary-prompt-tuning",
        [[{"llm": "GPT-3"}, {"llm": "GPT-2"}], [{"proposer": "evolutionary"}, {"proposer": "bayesian"}]],
    ),
    "002_8c41b345e5093956": (
        "gradient-harmonization",
        [[{"attention": "uniform"}], [{"explore": "linear"}, {"explore": "exponential"}]],
    ),
    "003_1c358cbca0199969": (
        "seeded-lora",
        [[{"seed_fraction": 0.05}, {"seed_fraction": 0.2}], [{"merge": "learned"}, {"merge": "validation"}]],
    ),
}


@pytest.mark.parametrize("seed", PUBLISHED_SEEDS)
def test_the_published_plans_bind_wholly_and_are_checked_the_same(seed):
    path = SEEDS / f"{seed}.txt"
    if not path.exists():
        pytest.skip("needs the published plan")
    method, wanted = PUBLISHED_SEEDS[seed]
    plan = read_plan(path).plan
    binding = bound(*plan.entries, on=surface_of_method(method))
    assert list(map(changes, binding.entries)) == wanted
    assert {one.status for one in binding.entries} == {"bound"}
    assert not binding.contradictions
    checked = check_plan(plan, method=method)
    assert not checked.has_errors
    assert [entry.runs for entry in checked.entries] == [len(arms) for arms in wanted]
    for one, entry in zip(binding.entries, checked.entries, strict=True):
        own = [arm.label for arm in one.arms if arm.is_baseline]
        assert [value.text for value in entry.values if value.baseline] == own


OPEN = (entry("how loud the noise is", ["1e-2"]), entry("estimator", ["one-point", "Gaussian smoothing"]))


def answers(component, value):
    from optaware.llm import scripted_chat

    return scripted_chat({OPEN[0].name: component, f"{OPEN[1].name}: Gaussian smoothing": value})


def test_a_chat_model_chooses_among_what_is_listed():
    binding = bound(*OPEN, chat=answers("`eps`.", "one-sided"))
    assert list(map(changes, binding.entries)) == [
        [{"eps": 1e-2}],
        [{"estimator": "one-point"}, {"estimator": "one-sided"}],
    ]
    assert [one.why.by for one in binding.entries] == ["chat", "chat"]
    assert not any(one.failures for one in binding.entries)


@pytest.mark.parametrize("reply", ["I think eps", "volume", "", None])
def test_a_reply_that_is_not_listed_is_a_recorded_failure(reply):
    binding = bound(*OPEN, chat=answers(reply, reply))
    assert [one.status for one in binding.entries] == ["unbound", "partly"]
    assert all(len(one.failures) == 1 for one in binding.entries)
    assert reply is None or reply in binding.entries[0].failures[0]
    assert changes(binding.entries[1]) == [{"estimator": "one-point"}]


def test_none_is_an_answer():
    binding = bound(*OPEN, chat=answers("none", "none"))
    assert [one.status for one in binding.entries] == ["unbound", "partly"]
    assert not any(one.failures for one in binding.entries)
    assert "no component is meant" in binding.entries[0].unbound[0].why


def test_nothing_is_asked_that_rules_can_tell():
    def asked(request):
        raise AssertionError(request.key)

    from optaware.llm import scripted_chat

    assert bound(*MEZO_PLAN, chat=scripted_chat(asked)) == bound(*MEZO_PLAN)


PUBLISHED = {
    "complementary-prompt-tuning": [
        ("LLM model size", ["GPT-3", "GPT-2"], "REPLACE"),
        ("optimization method", ["evolutionary algorithms", "Bayesian optimization"], "REPLACE"),
    ],
    "gradient-harmonization": [
        ("Attention operator in layer-wise dynamic gradient harmonization", [], "REMOVE"),
        (
            "Cosine annealing schedule in explore-exploit mechanism",
            ["linear schedule", "exponential schedule"],
            "REPLACE",
        ),
    ],
    "seeded-lora": [
        ("The fraction of training data used for the seed adapter", ["5%", "10%", "20%"], "REPLACE"),
        (
            "The method for merging adapter outputs (aggregation strategy)",
            ["simple averaging", "learned weighted averaging", "validation-based weighted averaging"],
            "REPLACE",
        ),
    ],
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_other_published_plans_bind_wholly(method):
    if method not in method_names():
        pytest.skip(f"{method} is not there yet")
    entries = [entry(part, values, action) for part, values, action in PUBLISHED[method]]
    binding = bound(*entries, on=surface_of_method(method))
    wanted = [1, 2] if method == "gradient-harmonization" else [2, 2]
    assert [one.status for one in binding.entries] == ["bound", "bound"]
    assert [len(one.runs) for one in binding.entries] == wanted
    assert not binding.contradictions
