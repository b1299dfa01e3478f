"""A manifest says what is run; no value of a plan reaches a shell, another option or a stranger's file."""

from __future__ import annotations

import pytest

from optaware.errors import InputError
from optaware.records import Manifest, parse_record


def manifest(**component):
    return parse_record(
        Manifest,
        {
            "name": "toy",
            "command": ["python3", "train.py"],
            "components": {"optimizer": {"words": "the optimizer", "flag": "--optim {value}", **component}},
            "metrics": {"accuracy": {"line": "acc"}},
        },
        "manifest.yaml",
    )


@pytest.mark.parametrize("value", ["--output=/etc/passwd", "-c", "--", "a\0b"])
def test_a_plans_value_cannot_become_an_option(value):
    assert manifest().components["optimizer"].fault_of(value)


@pytest.mark.parametrize("value", ["$(reboot)", "; reboot", "`id`", "a b", "'", '"', "&& x", "{flags}", "*"])
def test_a_value_stays_one_word_whatever_a_shell_would_make_of_it(value):
    component = manifest().components["optimizer"]
    assert component.fault_of(value) is None
    assert component.arguments(value) == ("--optim", value)


def test_where_the_flag_and_its_value_are_one_word_a_dash_is_harmless():
    component = manifest(flag="--optim={value}").components["optimizer"]
    assert component.fault_of("-adam") is None
    assert component.arguments("-adam") == ("--optim=-adam",)


def test_a_number_below_zero_is_no_option():
    assert manifest(type="number").components["optimizer"].fault_of(-1.5) is None


@pytest.mark.parametrize("file", ["/etc/passwd", "../other/m.json", "a/../../m.json", "a\0b"])
def test_a_metrics_file_lies_in_the_runs_own_folder(file):
    data = {**manifest().to_json(), "metrics": {"accuracy": {"file": file, "key": "a"}}}
    with pytest.raises(InputError, match="within the run's folder"):
        parse_record(Manifest, data, "manifest.yaml")
