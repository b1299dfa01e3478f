"""Every task keeps the same contract, on its full data where that lies at hand and on inline rows otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from optaware.errors import InputError
from optaware.records import Example, Protocol
from optaware.tasks import Task, get_task, list_tasks, load_splits

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tasks" / "ticket_routing.yaml"
NAMES = ["arc-c-cloze", "arc-c-mc", "boolq", "cb", "copa", "rte", "sst2"]
INLINE = {
    "copa": [
        {"premise": "The vase fell.", "choice1": "It broke.", "choice2": "I sang.", "question": "effect", "label": 0},
        {"premise": "I ran.", "choice1": "I sat.", "choice2": "The bus left.", "question": "cause", "label": 1},
    ],
    "cb": [{"premise": "Do you think it rains?", "hypothesis": "it rains", "label": 2}],
    "rte": [{"premise": "Ann lives in Rome.", "hypothesis": "Ann lives in Italy.", "label": 0}],
    "boolq": [
        {"question": "is ice cold", "passage": "Ice -- Ice is frozen water.", "label": 1},
        {"question": "is ice hot", "passage": "Ice is frozen water.", "answer": False, "title": "Ice"},
    ],
    "arc_challenge": [
        {
            "question": "What is wet?",
            "choices": {"text": ["sand", "water", "iron"], "label": ["1", "2", "3"]},
            "answerKey": "2",
        },
        {
            "question": "Which is largest?",
            "choices": {"text": ["a cat", "a cow", "an ant", "a whale", "a dog"], "label": list("ABCDE")},
            "answerKey": "D",
        },
    ],
    "sst2": [{"sentence": "a lovely film . ", "label": 1}, {"sentence": "dull ", "label": 0}],
}


def rows_of(name: str, folder: Path | None) -> tuple[Task, list[Example]]:
    if name.endswith(".yaml"):
        task = get_task(name)
        splits = load_splits(task, Protocol())
    elif folder is not None:
        task = get_task(name)
        splits = load_splits(task, Protocol(), data_dir=folder)
    else:
        task = get_task(name)
        return task, [task.example(row, "train", i, "inline") for i, row in enumerate(INLINE[task.data_folder])]
    return task, [*splits.train[:100], *splits.dev[:20], *splits.test[:100]]


@pytest.fixture(scope="module", params=[*NAMES, str(EXAMPLE)], ids=[*NAMES, "file"])
def task_rows(request: pytest.FixtureRequest, shared_data: Path | None) -> tuple[Task, list[Example]]:
    return rows_of(request.param, shared_data)


def test_the_list_is_what_get_task_knows() -> None:
    assert list_tasks() == NAMES
    assert [get_task(name).name for name in NAMES] == NAMES


def test_a_task_says_what_it_is(task_rows: tuple[Task, list[Example]]) -> None:
    task, _ = task_rows
    for attribute in ("version", "title", "description", "role", "citation", "licence"):
        text = getattr(task, attribute)
        assert text, attribute
        assert text.strip() == text, attribute
        assert "  " not in text, attribute
    assert task.span in task.fields
    assert task.label_field in task.fields
    assert task.prompt_styles[0] == "default"
    assert task.metric == "accuracy"
    assert task.loss == ("language-model" if task.name == "copa" else "options")
    assert len(task.sha256) == 64


def test_ids_name_the_source_row(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    assert all(row.id == f"{task.name}/{row.split}/{row.row}" for row in rows)
    assert len({row.id for row in rows}) == len(rows)


def test_rendering(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    for style in task.prompt_styles:
        for row in rows:
            shown = task.render(row, style)
            assert shown.id == row.id
            assert shown.label == row.label
            assert 0 <= shown.label < len(shown.options)
            assert len(set(shown.options)) == len(shown.options) >= 2
            assert not shown.prompt.endswith(" ")
            for option in shown.options:
                assert option[0] in " \n" or shown.prompt.endswith("\n")
                assert not option.startswith("  ")
                assert option.strip()
            assert task.span_text(row).strip().rstrip(".") in shown.prompt
    with pytest.raises(InputError, match="prompt-style-unknown"):
        task.render(rows[0], "no-such-style")


def test_span_round_trip(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    for row in rows:
        assert task.with_span(row, task.span_text(row)) == row
        changed = task.with_span(row, "Quite another text.")
        assert task.span_text(changed) == "Quite another text."
        assert (changed.id, changed.label) == (row.id, row.label)
        assert {k: v for k, v in changed.fields.items() if k != task.span} == {
            k: v for k, v in row.fields.items() if k != task.span
        }
        assert "Quite another text" in task.render(changed).prompt
        assert task.render(changed).options == task.render(row).options
    with pytest.raises(InputError, match="span-empty"):
        task.with_span(rows[0], " \n")


def test_with_span_leaves_the_original_alone(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    before = rows[0].model_dump()
    task.with_span(rows[0], "Quite another text.")
    assert rows[0].model_dump() == before


def test_context(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    for row in rows:
        context = task.context(row)
        assert context["span"] == task.span_text(row)
        assert context["span_name"] == task.span
        assert context["fields"] == row.fields
        options = context["options"]
        assert isinstance(options, list)
        assert context["answer"] == options[row.label]
        assert len(options) == len(task.render(row).options)
        assert context["label_word"] == task.render(row).options[row.label].strip()
        assert (context["description"], context["role"], context["task"]) == (task.description, task.role, task.name)
        assert set(row.fields) <= set(context)


def test_an_example_survives_its_own_fields(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    for row in rows[:20]:
        assert task.example(row.fields, row.split, row.row, "again") == row


def test_every_field_is_needed(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    for name in task.fields:
        row = {key: value for key, value in rows[0].fields.items() if key != name}
        with pytest.raises(InputError, match=rf"field-missing|{name}"):
            task.example(row, "train", 0, "file.jsonl:1")


def test_wrong_types_are_told_together(task_rows: tuple[Task, list[Example]]) -> None:
    task, rows = task_rows
    with pytest.raises(InputError) as caught:
        task.example(dict.fromkeys(rows[0].fields, 1.5), "train", 0, "file.jsonl:7")
    assert len(caught.value.problems) == len(task.fields)
    assert {problem.where for problem in caught.value.problems} == {"file.jsonl:7"}


@pytest.mark.parametrize("label", [-1, 5, True, "0", None])
def test_labels_out_of_range(label: object) -> None:
    for name in ("copa", "cb", "rte", "boolq", "sst2"):
        task = get_task(name)
        row = {**INLINE[name][0], "label": label}
        with pytest.raises(InputError, match="label"):
            task.example(row, "train", 0, "file.jsonl:1")


def test_arc_answer_key_must_be_a_choice() -> None:
    with pytest.raises(InputError, match="label-out-of-range"):
        get_task("arc-c-mc").example({**INLINE["arc_challenge"][0], "answerKey": "D"}, "train", 0, "file.jsonl:1")


@pytest.mark.parametrize(
    "choices",
    [
        [],
        {"text": ["a", "b"]},
        {"text": ["a", "b"], "label": ["A"]},
        {"text": ["a", "b"], "label": ["A", "A"]},
        {"text": ["a", 2], "label": ["A", "B"]},
        {"text": ["a", ""], "label": ["A", "B"]},
        {"text": ["a", "a"], "label": ["A", "B"]},
        {"text": ["a"], "label": ["A"]},
    ],
)
def test_arc_choices_that_cannot_be_used(choices: object) -> None:
    row = {"question": "What?", "choices": choices, "answerKey": "A"}
    with pytest.raises(InputError, match=r"field-invalid|options-identical|too-few-options"):
        get_task("arc-c-cloze").example(row, "train", 0, "file.jsonl:1")


@pytest.mark.parametrize("name", ["coppa", "COPA", "arc", "SST-2", "bool", "xyz", ""])
def test_unknown_tasks_name_the_nearest(name: str) -> None:
    with pytest.raises(InputError) as caught:
        get_task(name)
    assert caught.value.code == "task-unknown"
    meant = {"coppa": "copa", "COPA": "copa", "arc": "arc-c-mc", "SST-2": "sst2", "bool": "boolq"}.get(name)
    assert (
        meant is None or f"Did you mean {meant}" in str(caught.value) or meant in str(caught.value).split("Tasks:")[0]
    )


def test_no_heavy_imports() -> None:
    code = (
        "import sys\nfrom optaware.tasks import get_task\nimport optaware.evaluate\n"
        "task = get_task('copa')\n"
        "heavy = {'torch', 'transformers', 'jinja2', 'datasets', 'scipy', 'numpy', 'pyarrow', 'openai'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
