"""A binding and a manifest as files: what is written is read again with its types, and all faults come at once."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware._io import dump_yaml, read_yaml
from optaware.errors import InputError
from optaware.plan import read_binding, read_binding_file, read_manifest, write_binding
from optaware.records import Binding, parse_record

PLAN = {"source": "plan.txt", "sha256": "0" * 64, "paper": "mezo"}
ENTRY = {
    "name": "Scale",
    "part": "perturbation scale (epsilon)",
    "action": "REPLACE",
    "status": "partly",
    "metrics": [{"text": "F1 score", "name": "F1"}],
    "arms": [
        {"label": "1e-3", "is_baseline": True},
        {"label": "1e-05", "changes": {"eps": 1e-05, "clip": None, "queries": 0, "normalise": False, "mask": "no"}},
    ],
    "why": {"by": "rule", "how": "words: yes"},
    "unbound": [{"label": "a tenth", "why": "no number", "needed": "a number", "nearest": []}],
}
WHOLE = {"plan": PLAN, "method": "mezo", "baseline": {"eps": 1e-3}, "entries": [ENTRY], "run": {"seeds": [0, 1]}}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["no", "yes", "1e-3", "0x1f", "1_000", "null", "~", "2020-01-01", "1:30", "=", "<<", "- a", "a: b", ""]
    )
    | st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=3),
    max_leaves=8,
)


def alike(a, b):
    return type(a) is type(b) and (
        all(map(alike, a.values(), b.values())) and list(a) == list(b)
        if isinstance(a, dict)
        else len(a) == len(b) and all(map(alike, a, b))
        if isinstance(a, list)
        else a == b
    )


@given(json_values)
def test_yaml_keeps_values_and_their_types(value):
    assert alike(read_yaml(dump_yaml(value, header="a\nb")), value)


def test_a_binding_is_read_as_it_was_written(tmp_path):
    binding = parse_record(Binding, WHOLE, "")
    path = tmp_path / "binding.yaml"
    write_binding(path, binding)
    read = read_binding_file(path)
    assert read == binding
    assert alike(read.entries[0].arms[1].changes, ENTRY["arms"][1]["changes"])
    text = path.read_text("utf-8")
    assert text.startswith("# How the entries")
    assert "failures" not in text
    assert "1e-05" in text
    assert read.fields == ("eps", "clip", "queries", "normalise", "mask")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": None}, "exactly one of method and manifest"),
        ({"manifest": "m.yaml"}, "exactly one of method and manifest"),
        ({"entries": [ENTRY, ENTRY]}, "given twice"),
        ({"entries": [{**ENTRY, "status": "bound"}]}, "lists values"),
        ({"entries": [{**ENTRY, "status": "unbound"}]}, "has arms that change something"),
        ({"entries": [{**ENTRY, "arms": []}]}, "no arm changes anything"),
        ({"entries": [{**ENTRY, "why": None}]}, "who decided"),
        ({"entries": [{**ENTRY, "arms": [*ENTRY["arms"], {"label": "x"}]}]}, "changes at least one field"),
        ({"entries": [{**ENTRY, "arms": ENTRY["arms"] * 2}]}, "labels of their own"),
        ({"run": {"seeds": [0, 0]}}, "seeds must differ"),
        ({"version": 2}, "1"),
        ({"plan": {**PLAN, "sha256": "abc"}}, "pattern"),
    ],
)
def test_each_fault_of_a_binding_is_told(tmp_path, change, said):
    path = tmp_path / "binding.yaml"
    path.write_text(dump_yaml({**WHOLE, **change}))
    with pytest.raises(InputError, match=said):
        read_binding_file(path)


def test_all_faults_come_at_once(tmp_path):
    path = tmp_path / "binding.yaml"
    path.write_text(dump_yaml({**WHOLE, "entries": [{**ENTRY, "arms": []}], "run": {"sees": 1}, "extra": 1}))
    with pytest.raises(InputError) as caught:
        read_binding_file(path)
    assert len(caught.value.problems) == 3
    path.write_text("- a\n")
    with pytest.raises(InputError, match="a binding is a mapping"):
        read_binding_file(path)


MANIFEST = """
name: sgd
command: [python, train.py, "{flags}"]
seed: {flag: "--seed={value}"}
components:
  rate: {words: learning rate, aliases: [eta0], type: number, baseline: 0.01, flag: "--lr {value}", remove: 1e-9}
  penalty: {words: penalty, baseline: l2, choices: {l2: [ridge], none: []}, remove: none, flag: "--penalty {value}"}
  shuffle: {words: shuffling, type: bool, baseline: true, remove: false, flag: --shuffle, flag_off: --no-shuffle}
  depth: {words: depth, type: integer, env: DEPTH}
metrics:
  accuracy: {file: metrics.json, key: test.accuracy}
  loss: {line: loss, better: lower}
"""


def test_a_manifest_says_how_values_reach_the_script(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    parts = read_manifest(path).components
    assert parts["rate"].arguments_for(1e-3) == ("--lr", "0.001")
    assert parts["shuffle"].arguments_for(False) == ("--no-shuffle",)
    assert parts["shuffle"].arguments_for(True) == ("--shuffle",)
    assert (parts["depth"].arguments_for(3), parts["depth"].environment_for(3)) == ((), {"DEPTH": "3"})
    assert parts["penalty"].arguments_for("a b; rm {x}") == ("--penalty", "a b; rm {x}")
    assert read_manifest(path).seed.arguments("7") == ("--seed=7",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"--lr {value}"', '"--lr"', "exactly once"),
        ('"--lr {value}"', '"--lr {lr}"', "exactly once"),
        ('"--lr {value}"', '"--penalty {value}"', "have the same flag --penalty"),
        ("env: DEPTH", "env: 1DEPTH", "no name of an environment variable"),
        (", env: DEPTH", "", "never sees the value"),
        ("baseline: 0.01", "baseline: high", "is no number"),
        ("baseline: l2", "baseline: l3", "is none of l2, none"),
        ("flag_off: --no-shuffle", "flag_off: '{value}'", "flag_off"),
        ("remove: false", "remove: 0", "is no bool"),
        ("key: test.accuracy", "line: x", "either line, or file and key"),
        ("words: depth,", "word: depth,", "word"),
        ("type: integer", "type: int", "integer"),
    ],
)
def test_each_fault_of_a_manifest_is_told(tmp_path, old, new, said):
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST.replace(old, new))
    assert old in MANIFEST
    with pytest.raises(InputError, match=said):
        read_manifest(path)


def test_all_faults_of_a_manifest_come_at_once(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST.replace("baseline: 0.01", "baseline: x").replace("env: DEPTH", "flagg: x") + "seeds: 1\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert len(caught.value.problems) == 3


def test_the_examples_of_the_page_are_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text("utf-8")
    entries, manifest = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    (tmp_path / "b.yaml").write_text(dump_yaml({"plan": PLAN, "method": "mezo"}) + entries)
    (tmp_path / "m.yaml").write_text(manifest)
    assert read_binding(tmp_path / "b.yaml").entries[0].runs[0].changes == {"eps": 1e-4}
    assert set(read_manifest(tmp_path / "m.yaml").components) == {"rate", "penalty", "shuffle", "depth"}
