"""Tasks from YAML files: the shipped example, and what happens to files that are wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optaware.errors import InputError, ProblemList
from optaware.records import Protocol
from optaware.tasks import FileTask, get_task, load_splits

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
SPEC: dict[str, Any] = {
    "name": "greetings",
    "version": "1",
    "description": "A greeting and whether it is polite.",
    "citation": "none",
    "licence": "CC0-1.0",
    "fields": {"text": "text", "polite": "text"},
    "span": "text",
    "label": "polite",
    "options": ["yes", "no"],
    "prompt": "{{ text }} Polite?",
}
ROWS = [{"text": f"greeting number {n}", "polite": "yes" if n % 3 else "no"} for n in range(20)]


def write(folder: Path, rows: object = ROWS, **changes: Any) -> str:
    spec = {**SPEC, **changes}
    spec = {key: value for key, value in spec.items() if value is not None}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    if isinstance(rows, list):
        for split in ("train", "test"):
            shift = 0 if split == "train" else 1000
            text = "".join(json.dumps({**row, "text": f"{row['text']} {shift}"}) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text)
    return str(path)


def codes(caught: pytest.ExceptionInfo[InputError]) -> list[str]:
    return [problem.code for problem in caught.value.problems]


def test_the_example_runs() -> None:
    task = get_task(str(EXAMPLES / "ticket_routing.yaml"))
    assert isinstance(task, FileTask)
    splits = load_splits(task, Protocol())
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (36, 12, 24)
    assert splits.majority_share("test") == 1 / 3
    assert set(splits.overlap.values()) | set(splits.duplicates.values()) == {0}
    assert (splits.notes, splits.source.kind) == ((), "local")
    shown = task.render(splits.train[0])
    assert shown.prompt == (
        "Ticket: Charged twice in March\n"
        "My card statement shows two charges of 19.90 on the same day. I only have one subscription.\nQueue:"
    )
    assert shown.options == (" billing", " technical", " account")
    lines = [line for file in EXAMPLES.glob("*.jsonl") for line in file.read_text("utf-8").splitlines()]
    tickets = {json.loads(line)["ticket"] for line in lines}
    assert len(tickets) == 72


def test_the_example_does_not_name_its_answers() -> None:
    task = get_task(str(EXAMPLES / "ticket_routing.yaml"))
    splits = load_splits(task, Protocol())
    for row in (*splits.train, *splits.dev, *splits.test):
        assert row.fields["queue"] not in f"{row.fields['subject']} {row.fields['body']}".lower(), row.id


def test_identity_follows_file_and_data(tmp_path: Path) -> None:
    for file in EXAMPLES.iterdir():
        shutil.copy(file, tmp_path)
    path = str(tmp_path / "ticket_routing.yaml")
    first = get_task(path).sha256
    assert first == get_task(str(EXAMPLES / "ticket_routing.yaml")).sha256
    with (tmp_path / "tickets_test.jsonl").open("a") as file:
        file.write('{"ticket": "T999", "subject": "a", "body": "b", "queue": "account"}\n')
    second = get_task(path).sha256
    with Path(path).open("a") as file:
        file.write("# changed\n")
    assert len({first, second, get_task(path).sha256}) == 3


def test_protocols_on_a_task_file(tmp_path: Path) -> None:
    task = get_task(write(tmp_path, splits={"train": "train.jsonl", "test": "test.jsonl"}))
    splits = load_splits(task, Protocol())
    assert [row.row for row in splits.train] == list(range(16))
    assert [row.id for row in splits.dev] == [f"greetings/train/{n}" for n in range(16, 20)]
    assert len(splits.test) == 20
    splits = load_splits(task, Protocol(name="mezo", seed=1))
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (14, 6, 20)
    assert not {row.id for row in splits.train} & {row.id for row in splits.dev}
    task = get_task(write(tmp_path, splits={"test": "test.jsonl"}))
    splits = load_splits(task, Protocol(name="free", train=8, dev=2, test=10))
    assert splits.drawn_from == {"train": "test", "dev": "test", "test": "test"}
    assert "cut out of the source's test split" in splits.notes[0]
    with pytest.raises(InputError, match="split-missing"):
        load_splits(task, Protocol())


def test_rows_from_a_data_directory(tmp_path: Path) -> None:
    path = write(tmp_path, rows=None)
    folder = tmp_path / "data" / "greetings"
    folder.mkdir(parents=True)
    write(folder)
    splits = load_splits(get_task(path), Protocol(), data_dir=tmp_path / "data")
    assert (splits.source.kind, len(splits.train)) == ("data-dir", 16)


@pytest.mark.parametrize(
    ("changes", "row", "label"),
    [
        ({}, {"polite": "no"}, 1),
        ({}, {"polite": " yes "}, 0),
        ({"fields": {"text": "text", "polite": "integer"}}, {"polite": 1}, 1),
        ({"fields": {"text": "text", "polite": "boolean"}, "labels": [True, False]}, {"polite": False}, 1),
        ({"labels": ["POS", "NEG"]}, {"polite": "NEG"}, 1),
        ({"fields": {"text": "text", "polite": "integer"}, "labels": [7, 9]}, {"polite": 7}, 0),
        ({}, {"polite": "maybe"}, None),
        ({"labels": ["POS", "NEG"]}, {"polite": "yes"}, None),
        ({"fields": {"text": "text", "polite": "integer"}}, {"polite": 2}, None),
        ({"fields": {"text": "text", "polite": "boolean"}}, {"polite": True}, None),
        ({"fields": {"text": "text", "polite": "integer"}, "labels": [True, False]}, {"polite": 1}, None),
    ],
)
def test_labels(tmp_path: Path, changes: dict[str, Any], row: dict[str, Any], label: int | None) -> None:
    task = get_task(write(tmp_path, rows=None, **changes))
    row = {"text": "Hello.", **row}
    if label is None:
        with pytest.raises(InputError, match="label-out-of-range"):
            task.example(row, "train", 0, "f:1")
    else:
        assert task.example(row, "train", 0, "f:1").label == label


def test_labels_that_are_words_are_what_a_person_reads(tmp_path: Path) -> None:
    task = get_task(write(tmp_path, rows=None, labels=["POS", "NEG"]))
    context = task.context(task.example({"text": "Hello.", "polite": "NEG"}, "train", 0, "f:1"))
    assert (context["answer"], context["label_word"]) == ("NEG", "no")


def test_options_from_templates_and_from_a_field(tmp_path: Path) -> None:
    fields = {"text": "text", "a": "text", "b": "text", "right": "integer"}
    task = get_task(write(tmp_path, rows=None, fields=fields, label="right", options=["{{ a }}", "\n{{ b | upper }}"]))
    row = {"text": "Hello.", "a": "x", "b": "y", "right": 1}
    assert task.render(task.example(row, "train", 0, "f:1")).options == (" x", "\nY")
    fields = {"text": "text", "choices": "text-list", "right": "text"}
    task = get_task(
        write(
            tmp_path, rows=None, fields=fields, label="right", options=None, options_from="choices", prompt="{{text}}\n"
        )
    )
    row = {"text": "Hello.", "choices": ["x", "y", "z"], "right": "z"}
    shown = task.render(task.example(row, "train", 0, "f:1"))
    assert (shown.prompt, shown.options, shown.label) == ("Hello.\n", ("x", "y", "z"), 2)
    for choices, code in ((["x", "x", "z"], "options-identical"), (["z"], "too-few-options"), ([], "label")):
        with pytest.raises(InputError, match=code):
            task.example({**row, "choices": choices}, "train", 0, "f:1")


def test_spaces_at_the_end_of_a_prompt_are_taken_off(tmp_path: Path) -> None:
    task = get_task(write(tmp_path, rows=None, prompt="{{ text }} Polite?  ", styles={"plain": "{{ text }}"}))
    row = task.example({"text": "Hello.", "polite": "no"}, "train", 0, "f:1")
    assert task.render(row).prompt == "Hello. Polite?"
    assert task.render(row, "plain").prompt == "Hello."
    assert task.prompt_styles == ("default", "plain")


FAULTS: list[tuple[dict[str, Any], str, int]] = [
    ({"name": "Bad Name"}, "field-string-pattern-mismatch", 1),
    ({"name": "copa"}, "task-name-taken", 1),
    ({"version": None}, "field-missing", 0),
    ({"fields": {}}, "field-too-short", 6),
    ({"fields": {"text": "txt", "polite": "text"}}, "field-literal-error", 7),
    ({"fields": {"text": {"type": "text", "typo": 1}, "polite": "text"}}, "field-extra-forbidden", 9),
    ({"span": "body"}, "task-inconsistent", 9),
    ({"span": "polite"}, "task-inconsistent", 9),
    ({"label": "nothing"}, "task-inconsistent", 10),
    ({"options": None}, "task-inconsistent", 0),
    ({"options": ["yes"]}, "field-too-short", 11),
    ({"options": ["yes", ""]}, "field-string-too-short", 13),
    ({"labels": ["a"]}, "task-inconsistent", 15),
    ({"labels": ["a", "a"]}, "task-inconsistent", 15),
    ({"options_from": "text"}, "task-inconsistent", 15),
    ({"prompt": "{{ text "}, "template-malformed", 14),
    ({"prompt": "{{ txt }}"}, "template-name-unknown", 14),
    ({"prompt": "   "}, "field-string-pattern-mismatch", 14),
    ({"styles": {"default": "x"}}, "task-inconsistent", 15),
    ({"loss": "mse"}, "field-literal-error", 15),
    ({"splits": {}}, "task-inconsistent", 15),
    ({"splits": {"train": "none.jsonl"}}, "file-missing", 16),
    ({"splits": {"train": "train.jsonl", "test": "train.jsonl"}}, "task-inconsistent", 15),
    ({"splits": {"valid": "train.jsonl"}}, "field-extra-forbidden", 16),
    ({"prompts": "x"}, "field-extra-forbidden", 15),
]


@pytest.mark.parametrize(("changes", "code", "line"), FAULTS, ids=[f"{n}-{f[1]}" for n, f in enumerate(FAULTS)])
def test_a_fault_is_told_with_its_line(tmp_path: Path, changes: dict[str, Any], code: str, line: int) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        get_task(path)
    found = [problem for problem in caught.value.problems if problem.code == code]
    assert found, codes(caught)
    assert found[0].where == (f"{path}:{line}" if line else path)


@given(
    st.sets(st.sampled_from(["version", "citation", "licence", "description", "span", "label", "prompt"]), min_size=1)
)
def test_all_missing_fields_at_once(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    path = write(tmp_path_factory.mktemp("faults"), rows=None, **dict.fromkeys(names))
    with pytest.raises(InputError) as caught:
        get_task(path)
    assert {problem.given for problem in caught.value.problems} == names
    assert set(codes(caught)) == {"field-missing"}


@given(
    st.dictionaries(
        st.sampled_from(list(SPEC)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_wrong_values_never_crash(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}, sort_keys=False), "utf-8")
    problems = ProblemList()
    with problems.collecting():
        assert get_task(str(path)).name
    assert all(problem.where.startswith(str(path)) for problem in problems.problems)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: b: c", "name: x\nname: y\n", "\xff"])
def test_files_that_are_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"not-a-mapping|malformed"):
        get_task(str(path))
    with pytest.raises(InputError, match="file-missing"):
        get_task(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "template",
    ["{{ text.__class__.__mro__ }}", "{{ ''.__class__ }}", "{{ text.append(1) }}", "{{ 1 / 0 }}", "{{ text.nothing }}"],
)
def test_templates_are_sandboxed(tmp_path: Path, template: str) -> None:
    task = get_task(write(tmp_path, rows=None, prompt=template))
    row = task.example({"text": "Hello.", "polite": "no"}, "train", 0, "f:1")
    with pytest.raises(InputError, match="template-failed"):
        task.render(row)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
        "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}",
        "{{ '%9999999d' % 1 }}",
        "{{ '{:9999999d}'.format(1) }}",
        "{{ 9 ** 99999999 }}",
        "{{ text.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ (text | attr('__class__')).mro() }}",
        "{{ text | replace('', 'x' * 9999) | replace('', 'x' * 9999) }}",
    ],
)
def test_templates_end_in_bounded_time_and_size(tmp_path: Path, template: str) -> None:
    """Found by attacking: task files rendered in Jinja's own sandbox, which knows no bounds."""
    task = get_task(write(tmp_path, rows=None, prompt=template))
    row = task.example({"text": "Hello.", "polite": "no"}, "train", 0, "f:1")
    with pytest.raises(InputError, match="template-failed"):
        task.render(row)


@pytest.mark.parametrize(
    "template", ["{% if 1 %}" * 120 + "{% endif %}" * 120, "{{ " + "(" * 400 + "1" + ")" * 400 + " }}", "x" * 200_001]
)
def test_templates_that_nest_too_deep_for_python_are_malformed(tmp_path: Path, template: str) -> None:
    with pytest.raises(InputError, match="template-malformed"):
        get_task(write(tmp_path, rows=None, prompt=template))


def test_all_faults_of_a_data_file_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, splits={"train": "train.jsonl", "test": "test.jsonl"}, id="key")
    train = tmp_path / "train.jsonl"
    train.write_bytes(
        b'\xef\xbb\xbf{"text": "fine", "polite": "no", "key": 1}\n'
        b"\n"
        b'{"text": "broken", \n'
        b'{"polite": "no"}\n'
        b'{"text": 3, "polite": "perhaps"}\n'
        b'{"text": "x", "polite": "perhaps"}\n'
        b"[1, 2]\n"
        b'{"text": "\xff", "polite": "no"}\n'
        b'{"text": NaN, "polite": "no"}\n'
        b'{"text": "again", "polite": "no", "key": 1}\n'
        b'{"text": "half \\ud800", "polite": "no"}\n'
        b'{"text": "  ", "polite": "no"}\n'
    )
    (tmp_path / "test.jsonl").write_text("\n")
    with pytest.raises(InputError) as caught:
        load_splits(get_task(path), Protocol())
    found = {(problem.where.removeprefix(f"{train}:"), problem.code) for problem in caught.value.problems}
    assert found == {
        ("3", "malformed"),
        ("4", "field-missing"),
        ("5", "field-invalid"),
        ("6", "label-out-of-range"),
        ("7", "not-a-row"),
        ("8", "malformed"),
        ("9", "malformed"),
        ("10", "row-id-twice"),
        ("11", "field-invalid"),
        ("12", "field-invalid"),
        (str(tmp_path / "test.jsonl"), "split-empty"),
    }


def test_shared_and_repeated_texts_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, splits={"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"})
    for split, texts in {"train": ["a b", "c", "c"], "dev": ["d"], "test": ["A  b", "c", "e", "d"]}.items():
        rows = [{"text": text, "polite": "yes" if split == "train" else "no"} for text in texts]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_splits(get_task(path), Protocol())
    assert splits.duplicates == {"train": 1, "dev": 0, "test": 0}
    assert splits.overlap == {"train/dev": 0, "train/test": 2, "dev/test": 1}
