from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from optaware.data import BLOCKING, run_checks
from optaware.records import Example, GateSpec
from optaware.tasks import Task, get_task

RowsOf = Callable[[str], tuple[Task, list[Example]]]


def failing(task: Task, example: Example, text: str, **more: str) -> set[str]:
    return {check.name for check in run_checks(task, example, text, GateSpec(), **more) if not check.passed}


def with_span(name: str, rows: RowsOf, text: str) -> tuple[Task, Example]:
    task, examples = rows(name)
    return task, task.with_span(examples[0], text)


def test_every_check_is_reported_once_and_blocks_as_documented(rows_of: RowsOf) -> None:
    task, examples = rows_of("copa")
    checks = run_checks(task, examples[0], "The baker shut the shop early.", GateSpec())
    assert {check.name: check.blocking for check in checks} == dict(BLOCKING)
    assert all(check.passed and check.detail == "" for check in checks)


@pytest.mark.parametrize(
    ("before", "text", "name"),
    [
        ("The dog ran home.", "?!", "empty"),
        ("The dog ran home.", "", "empty"),
        ("The dog  ran home. ", "The dog ran home.", "identical"),
        ("It cost 1,500 euros.", "It cost 1,600 euros.", "numbers"),
        ("It cost 1,500 euros.", "It was expensive.", "numbers"),
        ("He met two friends.", "He met three friends.", "numbers"),
        ("He met friends.", "He met 4 friends.", "numbers"),
        ("At 3:15 he left.", "At 3:50 he left.", "numbers"),
        ("They sold two million cars.", "They sold two billion cars.", "numbers"),
        ("In May the actor Tom Reed sang.", "In May the actor Tom Rood sang.", "names"),
        ("She met Ana in Rome.", "She met Ana.", "names"),
        ("She sang.", "She sang with Ana.", "names"),
        ("The bird could not fly.", "The bird could fly.", "negation"),
        ("The bird couldn't fly.", "The bird flew off.", "negation"),
        ("the plot does n't move", "the plot moves", "negation"),
        ("The bird flew.", "The bird never flew.", "negation"),
        ("The bird flew.", "The bird flew far and wide over all the hills and lakes.", "length-ratio"),
        ("The bird flew over all the hills.", "It flew.", "length-ratio"),
        ("The bird flew.", "Rewrite: the bird flew off.", "prompt-repeated"),
        ("The bird flew.", "<|im_end|> the bird", "prompt-repeated"),
        ("The bird flew.", "{{ span }} bird", "prompt-repeated"),
    ],
)
def test_faults_are_found(rows_of: RowsOf, before: str, text: str, name: str) -> None:
    task, example = with_span("copa", rows_of, before)
    assert name in failing(task, example, text)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("It cost 1,500 euros.", "The price was 1500 euros."),
        ("It cost 1500 euros.", "The price was 1 500 euros.".replace("1 500", "1,500")),
        ("He met two friends.", "He met both friends."),
        ("He met 2 friends.", "He met two friends."),
        ("They sold two million cars.", "They sold 2,000,000 cars."),
        ("They sold 2 million cars.", "They sold two million cars."),
        ("Twenty-five people came.", "25 people came."),
        ("One must eat.", "People must eat."),
        ("It rose 3.50 points.", "It went up 3.5 points."),
        ("The bird couldn't fly.", "The bird was unable to fly."),
        ("He was not happy.", "He was unhappy."),
        ("The bird was unable to fly.", "The bird could not fly."),
        ("She met Ana's brother.", "She met the brother of Ana."),
        ("No Weapons Found in Iraq Yet.", "So far no weapons have been found in Iraq."),
        ("Stop the car. Tom got out.", "Stop the car. Out got Tom."),
        ("他昨天去了商店。", "昨天他去商店了。"),
        ("{name} went {{home}}", "{name} walked {{home}}"),
    ],
)
def test_good_rewrites_raise_no_alarm(rows_of: RowsOf, before: str, text: str) -> None:
    task, example = with_span("copa", rows_of, before)
    assert failing(task, example, text) == set()


@pytest.mark.parametrize(
    ("task_name", "text", "leaked"),
    [
        ("sst2", "a great and funny little picture", True),
        ("sst2", "a TERRIBLE , funny picture", True),
        ("sst2", "a positive little picture", True),
        ("sst2", "a greatly funny picture", False),
        ("cb", "Ann frowned. Maybe she did not think that Leo had lied.", True),
        ("boolq", "Kestrel -- Yes, the kestrel is a small falcon. It can hover and nest in walls.", True),
        ("boolq", "Kestrel -- The kestrel is a small falcon. It can hover and nest in walls.", False),
    ],
)
def test_new_label_words_are_leaks(rows_of: RowsOf, task_name: str, text: str, leaked: bool) -> None:
    task, examples = rows_of(task_name)
    assert ("label-leaked" in failing(task, examples[0], text)) == leaked


def test_a_label_word_of_the_original_may_stay(rows_of: RowsOf) -> None:
    task, example = with_span("sst2", rows_of, "a great little picture")
    assert failing(task, example, "a great small picture") == set()


@pytest.mark.parametrize(
    ("text", "leaked"),
    [
        ("The baker closed the shop early; the bread was sold out.", True),
        ("The baker closed the shop early, his bread sold.", True),
        ("The baker shut the shop before time.", False),
        ("The baker with the new oven closed the shop early.", True),
    ],
)
def test_options_of_the_row_are_leaks_whichever_is_right(rows_of: RowsOf, text: str, leaked: bool) -> None:
    task, examples = rows_of("copa")
    assert ("answer-leaked" in failing(task, examples[0], text)) == leaked


def test_short_options_of_arc(rows_of: RowsOf) -> None:
    for name in ("arc-c-cloze", "arc-c-mc"):
        task, examples = rows_of(name)
        assert "answer-leaked" in failing(task, examples[0], "How does a sieve separate sand and gravel?")
        assert failing(task, examples[0], "Which tool parts sand and a lot of gravel?") == set()


def test_no_check_depends_on_the_right_answer(every_task: tuple[Task, list[Example]]) -> None:
    task, examples = every_task
    words = "yes no maybe great terrible a sieve a magnet the bread was sold out 7 not Leo"
    for example in examples:
        other = {
            "label": 1 - example.label if example.label < 2 else 0,
            "answerKey": "C" if example.fields.get("answerKey") != "C" else "A",
        }
        fields = {name: other.get(name, value) for name, value in example.fields.items()}
        swapped = task.example(fields, "train", example.row, "swapped")
        assert swapped.label != example.label
        for text in (words, task.span_text(example)):
            assert run_checks(task, example, text, GateSpec()) == run_checks(task, swapped, text, GateSpec())


def test_text_parroted_from_the_prompt() -> None:
    task = get_task("copa")
    row = {"premise": "A cat sat.", "choice1": "x y", "choice2": "z w", "question": "cause", "label": 0}
    example = task.example(row, "train", 0, "row")
    told = "Example: the gardener put a cover over all the roses."
    text = "The gardener put a cover over all the roses."
    assert "prompt-repeated" in failing(task, example, text, prompt=told)
    own = task.with_span(example, "Look, the gardener put a cover over all the roses!")
    assert "prompt-repeated" not in failing(task, own, text, prompt=told)


def test_gate_bounds_are_taken_from_the_gate(rows_of: RowsOf) -> None:
    task, example = with_span("copa", rows_of, "one short line here")
    wide = GateSpec(min_length_ratio=0.1, max_length_ratio=9)
    checks = {check.name: check for check in run_checks(task, example, "line", wide)}
    assert checks["length-ratio"].passed
    assert not {c.name: c for c in run_checks(task, example, "line", GateSpec())}["length-ratio"].passed


def test_a_label_in_words_is_no_option_of_the_row(tmp_path: Path) -> None:
    """Where the label's column holds the label itself, the checks must neither see it nor mistake it for a choice."""
    path = tmp_path / "mail.yaml"
    path.write_text(
        "name: mail\nversion: '1'\ndescription: A mail.\nrole: a mail\ncitation: none\nlicence: CC0\nspan: mail\n"
        "label: desk\nfields: {mail: text, desk: text}\noptions: [orders, repairs]\nprompt: '{{ mail }} It is for'\n"
    )
    task = get_task(str(path))
    for label in ("orders", "repairs"):
        row = task.example({"mail": "My lamp did not come.", "desk": label}, "train", 0, "row")
        checks = {check.name: check.passed for check in run_checks(task, row, "My orders did not come.", GateSpec())}
        assert not checks["label-leaked"]
        assert checks["answer-leaked"]
