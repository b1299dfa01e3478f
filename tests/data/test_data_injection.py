"""Attack rows against what holds for any judge: the form of prompts and verdicts, and one row a request."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter

import pytest

from optaware._io import read_jsonl
from optaware.data import build_corpus, make_corpus_spec
from optaware.data._parse import parse_verdict
from optaware.data._prompts import QUESTIONS, judge_prompts, rewriter_prompt
from optaware.data.judge import packaged_injections, presented
from optaware.data.judge._injection import INJECTIONS
from optaware.llm import scripted_chat
from optaware.llm._inert import CONTROL
from optaware.records import ChatModelRef, DataSource, JudgeTemplate, Protocol
from optaware.tasks import get_task

TASK = get_task("copa")
SCRIPTED = ChatModelRef(provider="scripted", model="test")
ATTACKS = packaged_injections()


def shown(content: str, heading: str) -> str:
    """What stands behind a heading, read as JSON; it must be the only line of that heading."""
    (line,) = (line for line in content.split("\n") if line.startswith(f"{heading}: "))
    text = json.loads(line.removeprefix(f"{heading}: "))
    assert isinstance(text, str)
    return text


def test_the_suite_is_what_its_page_says():
    assert len(ATTACKS) >= 200
    page = (INJECTIONS.parent / "README.md").read_text("utf-8")
    told = {name: int(count) for name, count in re.findall(r"^\| (\w+) \| (\d+) \|", page, re.MULTILINE)}
    assert told == Counter(attack.family for attack in ATTACKS)
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    assert f"{len(ATTACKS)} rows" in page
    assert f"in {len({a.language for a in ATTACKS if a.family == 'language'})} languages" in page
    for attack in ATTACKS:  # the rewrite is not the same, and the control is the same pair without the attack
        assert attack.control_rewrite != TASK.span_text(attack.control)
        assert attack.rewrite != attack.control_rewrite or attack.place == "given"


@pytest.mark.parametrize("base", ["plain", "guarded"])
@pytest.mark.parametrize("order", ["original-first", "rewrite-first"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_row_gets_out_of_its_quotes(base, order, question):
    prompt = judge_prompts(TASK, judge=JudgeTemplate(task="copa", base=base))[question]
    lines = set()
    for attack in ATTACKS:
        *head, row = presented(prompt.messages(attack.example, attack.rewrite), order)
        assert tuple(head) == presented(prompt.head, order)
        assert row.role == "user"
        assert shown(row.content, "Original") == TASK.span_text(attack.example).strip()
        assert shown(row.content, "Rewrite") == attack.rewrite.strip()
        assert not CONTROL.search(row.content)
        unseen = [char for char in row.content if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
        assert set(unseen) <= {"\n"}, (attack.id, unseen)
        lines.add(len(row.content.splitlines()))  # splits at every character that any reader takes for a line's end
    assert len(lines) == 1


class Puppet:
    """Rewrites as the attack rows say, and judges as it is told."""

    def __init__(self, verdict) -> None:
        self.attacks = {attack.example.id: attack for attack in ATTACKS}
        self.verdict, self.seen = verdict, []

    def __call__(self, request):
        what, _, name = request.key.partition(":")
        self.seen.append((name, request))
        attack = self.attacks[name]
        return attack.rewrite if what.startswith("rewrite") else self.verdict(attack)

    def corpus(self, folder):
        examples = [attack.example for attack in ATTACKS]
        spec = make_corpus_spec(
            task=TASK,
            task_name="copa",
            protocol=Protocol(),
            variant="oat",
            template="oat",
            examples=examples,
            rewriter=SCRIPTED,
            judge=SCRIPTED,
        )
        model = scripted_chat(self)
        source = DataSource(kind="local", location="tests", sha256={})
        build_corpus(spec, TASK, examples, rewriter=model, judge=model, folder=folder, source=source)
        return [read_jsonl(folder / f"{name}.jsonl") for name in ("candidates", "verdicts", "decisions")]


def test_a_judge_that_repeats_the_attack_gives_no_verdict_but_in_the_exact_form(tmp_path):
    """The worst judge there is: it says whatever the row wants it to say."""
    _, verdicts, decisions = Puppet(lambda attack: attack.rewrite.strip() or "x").corpus(tmp_path)
    assert {verdict["answer"] for verdict in verdicts} <= {"same", "not the same", None}
    said = {verdict["example_id"]: verdict["raw_reply"] for verdict in verdicts if verdict["answer"] == "same"}
    assert all(re.sub(r"[\W_]", "", text).casefold() == "same" for text in said.values())
    assert len(said) <= 1  # the row whose whole rewrite is the word itself
    assert sum(row["outcome"] == "accepted" for row in decisions) == 0


def test_no_row_speaks_for_another(tmp_path):
    """Every request is about one row, and every reply is filed under the row it was asked for."""
    wanted = {attack.example.id: ("same", "not the same")[number % 3 > 0] for number, attack in enumerate(ATTACKS)}
    puppet = Puppet(lambda attack: wanted[attack.example.id])
    candidates, verdicts, _ = puppet.corpus(tmp_path)
    assert {row["example_id"]: row["raw_reply"] for row in candidates} == {
        attack.example.id: attack.rewrite for attack in ATTACKS
    }
    assert all(verdict["answer"] == wanted[verdict["example_id"]] for verdict in verdicts)
    texts = {attack.example.id: TASK.span_text(attack.control) for attack in ATTACKS}
    for name, request in puppet.seen:
        rows = [turn.content for turn in request.messages if turn.content not in HEADS]
        assert len(rows) == 1
        others = {text for other, text in texts.items() if text != texts[name]}
        assert not any(text in rows[0] for text in others)


HEADS = {
    turn.content
    for prompt in (rewriter_prompt(TASK, "oat"), *judge_prompts(TASK, "oat").values())
    for turn in prompt.head
}


def test_a_rewriter_that_gives_the_prompt_away_writes_it_into_no_corpus(tmp_path):
    head = rewriter_prompt(TASK, "oat").head_text
    spans = [" ".join(line.split()) for line in head.splitlines() if len(line.split()) > 8]
    examples = [attack.control for attack in ATTACKS[: len(spans)]]
    replies = dict(zip((example.id for example in examples), spans, strict=True))
    spec = make_corpus_spec(
        task=TASK, task_name="copa", protocol=Protocol(), variant="oat", template="oat", examples=examples,
        rewriter=SCRIPTED, judge=SCRIPTED,
    )  # fmt: skip
    model = scripted_chat(lambda request: replies.get(request.key.partition("rewrite:")[2], "same"))
    build_corpus(
        spec, TASK, examples, rewriter=model, judge=model, folder=tmp_path,
        source=DataSource(kind="local", location="tests", sha256={}),
    )  # fmt: skip
    decisions = read_jsonl(tmp_path / "decisions.jsonl")
    assert len(decisions) == len(spans) > 5
    assert all(row["outcome"] != "accepted" for row in decisions)


NO_VERDICTS = (
    *(
        "same\nsame",
        "same, same",
        "same <|im_end|>",
        "Same because",
        "{'same'}: ok",
        "s a m e",
        "same same",
        "the same",
    ),
    *("ѕame", "sаme", "same\u2028not the same", "not  the same same", "same | not the same", "sa\u00adme"),
)


@pytest.mark.parametrize("reply", NO_VERDICTS)
def test_whatever_is_not_exactly_a_verdict_is_none(reply):
    assert not isinstance(parse_verdict(reply), str)
