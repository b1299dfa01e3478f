from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from designing import GUARD, REF, RULES, SOURCE, WHAT, WHO, Bench, Writer

from optaware.cli import main
from optaware.data import preview
from optaware.data.design import Designer, Document, foreign_words, make_design_spec, parse_template
from optaware.data.design._transfer import adapted
from optaware.llm import scripted_chat
from optaware.records import ChatRequest, DesignLimits, Example, TemplateCard
from optaware.tasks import Task, get_task

MAIL = """
name: mail
version: "1"
citation: none
licence: CC0
description: "A mail {{to}} a shop, to be sorted."
role: "The body has to fit the same folder."
span: body
fields: {subject: text, body: {type: text, description: What the customer writes}, label: text}
label: label
labels: [complaint, order]
options: ["a complaint", "an order"]
prompt: "{{ subject }}: {{ body }} This is"
"""


@pytest.fixture
def mail(tmp_path: Path) -> Task:
    (tmp_path / "mail.yaml").write_text(MAIL)
    return get_task(str(tmp_path / "mail.yaml"))


def mail_rows(task: Task) -> list[Example]:
    pairs = zip(WHO, WHAT, strict=True)
    rows = [
        {"subject": f"Number {n}", "body": f"The {a} sold the {b}.", "label": "order"} for n, (a, b) in enumerate(pairs)
    ]
    return [task.example(row, "train", number, "row") for number, row in enumerate(rows)]


def move(document: Document, task: Task, name: str, rows: list[Example], folder: Path, writer: Writer) -> TemplateCard:
    spec = make_design_spec(
        task=task,
        task_name=name,
        rows=rows,
        optimizer="Zig",
        paper="zig",
        paper_sha256=document.id,
        writer=REF,
        limits=DesignLimits(rows=4, shots=3),
        transferred_from=document.id,
    )
    chat = scripted_chat(writer)
    foreign = foreign_words(get_task("copa"), task)
    card = Designer(spec, task, rows, writer=chat, folder=folder, source=SOURCE).transfer(document, foreign)
    assert card is not None
    return card


def test_a_users_own_task_gets_the_template(bench: Bench, mail: Task, tmp_path: Path) -> None:
    leaky = "- Do not name the cause that the choices offer."

    def rewrite(request: ChatRequest) -> str:
        who = request.messages[-1].content.split()[3]
        good = "because he needed money" if leaky[2:] not in request.messages[0].content else "after a while"
        return f"{who} made a sale {good}."

    bench.designer(Writer({"fault": lambda r: leaky, "rewrite": rewrite})).build(bench.card, until=3)
    document = parse_template(bench.folder / "phase-3" / "template.jinja").adding("Faults to avoid", [GUARD, leaky[2:]])
    rows = mail_rows(mail)
    card = move(document, mail, str(tmp_path / "mail.yaml"), rows, tmp_path / "mail-build", Writer())
    assert not card.unreached
    assert card.final is not None
    assert (card.final.valid, card.shots) == (4, 3)
    text = (tmp_path / "mail-build" / "template.jinja").read_text()
    assert "- body:" not in text
    assert "- subject: subject." in text
    assert "The event that the question is about" not in text
    assert GUARD in text
    assert leaky[2:] not in text
    assert any(leaky[2:] in note for note in card.phases[0].notes)
    shown = preview(mail, rows, str(tmp_path / "mail-build" / "template.jinja"), 1)[0]["messages"]
    assert "A mail {{to}} a shop, to be sorted." in shown[0]["content"]
    assert RULES[0].replace("premise", "body") in shown[0]["content"], "the span's name is a slot"
    assert shown[-1]["content"] == "Original body: The farmer sold the horse.\nRewritten body:"
    module = yaml.safe_load((tmp_path / "mail-build" / "fewshot" / "mail.yaml").read_text())
    assert [shot["text"] for shot in module["rewriter"]] == [f"The {WHO[n]} sold the {WHAT[n]}." for n in (4, 5, 6)]


def test_foreign_words_are_those_that_only_the_other_task_has() -> None:
    copa, rte, boolq = map(get_task, ("copa", "rte", "boolq"))
    assert foreign_words(copa, rte) == (
        {"choice", "choices", "question", "questions"},
        {"cause", "causes", "effect", "effects"},
    )
    assert foreign_words(copa, boolq).fields == {"choice", "choices"}
    assert foreign_words(copa, get_task("arc-c-cloze")).fields == set()
    assert foreign_words(rte, copa).fields == {"hypothesis", "hypothesiss"}


def test_everyday_words_do_not_cost_a_rule_for_the_wording() -> None:
    needs, faults = "Vague words cause noisy losses.", "Do not state the cause."
    text = (
        Document((), ())
        .adding("What the optimizer needs", [needs, "Fit both choices."])
        .adding("Faults to avoid", [faults, "Add no result."])
    )
    moved, notes = adapted(text, ["new"], foreign_words(get_task("copa"), get_task("rte")))
    assert moved.points() == [needs, "Add no result."]
    assert len(notes) == 2
    assert moved.lines("The data") == ("new",)


def script(path: Path) -> Path:
    """Replies for the command line: by the last message of a request."""
    lines: list[dict[str, str]] = [
        {"contains": "Describe in one or two", "text": "Zig perturbs the weights and measures two losses."},
        {"contains": "Answer in one full sentence", "text": "- Zig compares the two losses of a training text."},
        {"contains": "rules for the writer", "text": f"- {RULES[0]}\n- {RULES[1]}"},
        {"contains": "Rewrite:", "text": "same"},
    ]
    lines += [
        {"contains": f"Original premise: The {a} sold the {b}.", "text": f"The {b} was sold by the {a}."}
        for a, b in zip(WHO, WHAT, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["optaware", "data", "template", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def data(tmp_path: Path, make_bench: Callable[..., Bench]) -> Path:
    folder = tmp_path / "data" / "copa"
    folder.mkdir(parents=True)
    rows = [{**example.fields, "idx": n} for n, example in enumerate(make_bench().rows)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "validation.jsonl").write_text(json.dumps(rows[0]))
    return tmp_path / "data"


def test_the_command_line_builds_lists_shows_and_compares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, paper: Path, data: Path
) -> None:
    told = ("--llm", str(script(tmp_path / "script.jsonl")), "--store", str(tmp_path / "store"))
    bounds = ("--protocol", "all", "--data-dir", str(data), "--rows", "4", "--shots", "3")
    own = ("build", "--paper", str(paper), "--task", "copa", "--context-chars", "500", "--points", "1", *bounds, *told)
    assert run(monkeypatch, *own, "--dry-run") == 0
    assert "requests" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert run(monkeypatch, *own, "--until", "3") == 0
    capsys.readouterr()
    assert run(monkeypatch, *own) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "finished template: 4 of 4 rows valid (95 % interval 51 to 100 %), 3 examples" in out
    store = ("--store", str(tmp_path / "store"))
    assert run(monkeypatch, "list", *store, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(i["kind"], i["task"], i["valid"]) for i in listed][-1] == ("built", "copa", "4 of 4")
    assert run(monkeypatch, "show", "copa", *store) == 0
    assert RULES[1] in capsys.readouterr().out
    assert run(monkeypatch, "show", "copa", "--phase", "2", "--diff", *store) == 0
    assert f"+- {RULES[1]}" in capsys.readouterr().out
    assert run(monkeypatch, "show", "copa", "--phase", "2", "--exchanges", *store) == 0
    assert "--- replied\n- Zig compares the two losses" in capsys.readouterr().out
    assert run(monkeypatch, "diff", "copa", "--phases", "1", "2", *store) == 1
    assert "+## The optimizer" in capsys.readouterr().out
    assert run(monkeypatch, "diff", "copa", "copa", *store) == 0
    assert run(monkeypatch, "diff", "copa", *store) == 2
    assert "design-two" in capsys.readouterr().err
    moved = ("transfer", "--from", "copa", "--to", "copa", "--out", str(tmp_path / "again"), *bounds, *told)
    assert run(monkeypatch, *moved) == 0
    assert "+## " not in (tmp_path / "again" / "phase-5" / "diff.txt").read_text()
    assert run(monkeypatch, *own, "--until", "7") == 2
