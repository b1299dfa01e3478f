"""From pairs to a corpus by commands: label, calibrate, rewrite with the calibrated judge."""

from __future__ import annotations

import io
import json

import pytest

from optaware._io import read_json, read_jsonl, write_jsonl
from optaware.cli._app import invoke
from optaware.data import make_corpus_spec
from optaware.data.judge import JudgePanel
from optaware.errors import InputError
from optaware.llm import scripted_chat
from optaware.records import JudgeTemplate


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data folder with 24 rows, a file of pairs, and a judge that finds friends."""
    rows = [
        {"premise": f"Person {n} closed the shop.", "choice1": "It was late.", "choice2": "It was new.",
         "question": "cause", "label": 0}
        for n in range(24)
    ]  # fmt: skip
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "data" / "copa" / f"{split}.jsonl", rows if split == "train" else rows[:1])
    pairs = [
        {"example_id": f"copa/train/{n}", "rewritten": f"Person {n}{' and a friend' if n % 2 else ''} shut the shop."}
        for n in range(24)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    script = [
        {"contains": '"Person 7', "text": "unsure"},
        {"contains": "a friend shut", "text": "not the same"},
        {"contains": "Rewrite:", "text": "same"},
        {"contains": "Premise: Person 3 closed", "text": "Person 3 and a friend shut the shop."},
        *({"contains": f"Premise: Person {n} closed", "text": f"Person {n} shut the shop."} for n in range(6)),
    ]
    write_jsonl(tmp_path / "chat.jsonl", script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTAWARE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPTAWARE_STORE", str(tmp_path / "store"))
    return tmp_path


def label(monkeypatch, who, keys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(keys) + "\nq\n"))
    assert invoke(["data", "review", "pairs.jsonl", "--task", "copa", "--labeller", who, "--terminal"]) == 0


def test_label_calibrate_rewrite(place, monkeypatch, capsys):
    label(monkeypatch, "ann", ["s", "m"] * 12)
    label(monkeypatch, "bob", ["n", "m", *["s", "m"] * 4])
    capsys.readouterr()
    assert invoke(["data", "agreement", "pairs.labels.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["agreed"]) == (10, 9)

    common = ["--task", "copa", "--llm", "chat.jsonl", "--quiet"]
    assert invoke(["data", "calibrate", "pairs.labels.jsonl", *common, "--both-orders", "--out", "judge"]) == 0
    assert "1 left out because labellers differ" in capsys.readouterr().out
    record = read_json(place / "judge" / "calibration.json")
    assert record["final"]["right"] == record["measured"]
    assert record["template"]["orders"] == ["original-first", "rewrite-first"]

    made = ["data", "rewrite", "copa", "--llm", "chat.jsonl", "--rows", "6", "--quiet"]
    assert invoke([*made, "--judge-file", "judge/judge.json", "--out", "one"]) == 0
    assert invoke([*made, "--out", "two"]) == 0
    verdicts = {(row["example_id"], row["question"]): row["answer"] for row in read_jsonl(place / "one/verdicts.jsonl")}
    assert verdicts["copa/train/3", "meaning"] == "not the same"
    assert verdicts["copa/train/0", "role"] == "same"
    ids = [read_json(place / name / "card.json")["judge_prompt_ids"] for name in ("one", "two")]
    assert ids[0] != ids[1]
    assert invoke(["data", "review", "one", "--terminal", "--labeller", "ann", "--outcome", "rejected"]) == 0
    assert "0 of 1 done" in capsys.readouterr().out

    monkeypatch.setattr("sys.stdin", io.StringIO("m\n" + "s\n" * 5 + "q\n"))
    assert invoke(["data", "review", "one", "--terminal", "--labeller", "ann"]) == 0
    assert invoke(["data", "review", "one", "--approved", "approved.jsonl"]) == 0
    assert "6 rows, 5 with an approved rewrite" in capsys.readouterr().out
    texts = [row["premise"] for row in read_jsonl(place / "approved.jsonl")]
    assert texts[:2] == ["Person 0 closed the shop.", "Person 1 shut the shop."]
    with pytest.raises(InputError) as error:
        invoke(["data", "review", "pairs.jsonl", "--task", "copa", "--approved", "approved.jsonl"])
    assert error.value.code == "approved-source"


def test_a_judge_that_fails_leaves_with_1_and_bad_options_with_all_faults(place, monkeypatch, capsys):
    label(monkeypatch, "ann", ["m", "s"] * 12)  # the other way round than the judge says
    assert invoke(["data", "calibrate", "pairs.labels.jsonl", "--task", "copa", "--llm", "chat.jsonl", "--quiet"]) == 1
    assert "Not passed" in capsys.readouterr().out
    assert list((place / "store" / "judges").glob("*-copa/DONE"))
    bad = ["--target", "0", "--tuning", "1", "--rounds", "-1"]
    with pytest.raises(InputError) as error:
        invoke(["data", "calibrate", "pairs.labels.jsonl", "--task", "copa", "--llm", "chat.jsonl", *bad])
    assert [problem.code for problem in error.value.problems] == ["target-range", "tuning-range", "rounds-range"]


def test_a_changed_judge_does_not_go_on_with_the_corpus_of_another(bench, place):
    from optaware._io import write_json

    corpus = bench("copa")
    path = place / "judge.json"
    write_json(path, JudgeTemplate(task="copa").to_json())
    spec = make_corpus_spec(
        task=corpus.task,
        task_name="copa",
        protocol=corpus.spec.protocol,
        variant="oat",
        template="oat",
        examples=corpus.examples,
        rewriter=corpus.spec.rewriter,
        judge=corpus.spec.judge,
        judge_file=path,
    )
    assert spec.judge_prompt_ids != corpus.spec.judge_prompt_ids
    write_json(path, JudgeTemplate(task="copa", meaning={"guidance": ("Count.",)}).to_json())
    corpus.spec = spec
    with pytest.raises(InputError) as error:
        corpus.build(lambda request: "same")
    assert error.value.code == "prompt-changed"


def test_what_asks_for_no_verdict_goes_to_the_first_member():
    from optaware.records import ChatMessage, ChatRequest

    models = [scripted_chat(lambda request: "Because.", name="a"), scripted_chat(lambda request: "same", name="b")]
    panel = JudgePanel(models, ("original-first", "rewrite-first"), "all")
    asked = ChatRequest(key="reason:x", messages=(ChatMessage(role="user", content="Why?"),), max_tokens=8)
    assert [(reply.key, reply.text) for reply in panel.complete(iter([asked]))] == [("reason:x", "Because.")]


def test_a_study_names_its_judge_by_task(place):
    from optaware._io import write_json
    from optaware.records import StudySpec, parse_record
    from optaware.study import plan_study

    write_json(place / "judges" / "copa" / "judge.json", JudgeTemplate(task="copa").to_json())
    data = {
        "name": "s",
        "models": [{"name": "m"}],
        "tasks": ["copa"],
        "protocol": {"name": "free", "train": 8, "dev": 4, "test": 1},
        "methods": [{"config": {"name": "mezo"}}],
        "variants": [{"name": "original"}, {"name": "oat", "template": "oat"}],
        "rewriter": {"provider": "scripted", "model": "chat.jsonl"},
    }
    plain = plan_study(parse_record(StudySpec, data, "s")).corpora
    judged = plan_study(parse_record(StudySpec, {**data, "judge_file": "judges/{task}/judge.json"}, "s")).corpora
    assert [spec.judge_file for spec in judged] == [str(place / "judges" / "copa" / "judge.json")]
    assert judged[0].judge_prompt_ids != plain[0].judge_prompt_ids
    with pytest.raises(InputError) as error:
        parse_record(StudySpec, {**data, "tasks": ["copa", "cb"], "judge_file": "judge.json"}, "s")
    assert "{task}" in str(error.value)
