from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from designing import FACTS, GUARD, REF, RULES, SOURCE, WHAT, WHO, Bench, Writer, rewritten

from optaware.data import make_corpus_spec, preview, prompt_ids
from optaware.data._prompts import rewriter_prompt
from optaware.data.design import find_template, list_templates, parse_template
from optaware.data.review import LabelsFile, corpus_pairs
from optaware.errors import BudgetExhausted, EndpointError, InputError, ModelError, StoppedBySignal
from optaware.llm import load_template, scripted_chat
from optaware.paper import read_paper
from optaware.records import ChatReply, ChatRequest, JudgeTemplate, Protocol


def test_five_phases_leave_templates_prompts_and_diffs(bench: Bench) -> None:
    card = bench.build(Writer())
    assert not card.unreached
    assert (card.final.valid, card.final.rows, card.shots) == (4, 4, 3)
    for phase in card.phases:
        folder = bench.folder / f"phase-{phase.phase}"
        loaded = load_template(folder / "template.jinja")
        assert loaded.id == phase.template_id == card.template_ids[str(phase.phase)]
        assert (folder / "diff.txt").read_text().count("\n@@") >= 1
        said = [json.loads(line) for line in (folder / "exchanges.jsonl").read_text().splitlines()]
        assert all(row["messages"] and row["reply"] for row in said)
        assert bool(said) == (phase.phase in (1, 2, 4))
        assert preview(bench.task, bench.rows, str(folder / "template.jinja"), 1)
    one, two, three, four, five = (bench.text(n) for n in range(1, 6))
    assert "Zig trains language models with two forward passes and no backward pass. The cost {is} small." in one
    assert "needs much memory. Zig perturbs all weights" in one
    assert "Algorithm 1: Zig perturbs the weights and measures two losses." in one
    assert "- question: Which relation is asked for." in one
    assert "- premise:" not in one
    assert all(fact in two and fact not in one for fact in FACTS)
    assert "The goal: a model trained with Zig" in two
    assert "Write the {{ noun }} in plain, common words" in two
    assert three.replace("phase: 3", "phase: 2") == two, "all rows were valid at once"
    assert [line for line in three.splitlines()[3:] if line not in four] == []
    assert "shots: built" in five
    module = yaml.safe_load((bench.folder / "fewshot" / "copa.yaml").read_text())
    texts = [shot["text"] for shot in module["rewriter"]]
    # Rows 4 to 6: those that phase 3 has not seen.
    assert texts == [f"The {WHO[n]} sold the {WHAT[n]}." for n in (4, 5, 6)]


def test_the_finished_template_serves_previews_and_corpora(bench: Bench) -> None:
    bench.build(Writer())
    path = bench.folder / "template.jinja"
    shown = preview(bench.task, bench.rows, str(path), 1)
    rewrite = shown[0]["messages"]
    assert rewrite[0]["content"].startswith("You rewrite the premise of a training example.")
    assert "{{" not in rewrite[0]["content"]
    assert "plain, common words" in rewrite[0]["content"]
    assert [m["role"] for m in rewrite[1:-1]] == ["user", "assistant"] * 3
    assert rewrite[2]["content"] == "The bell was sold by the monk."
    assert rewrite[-1]["content"] == "Original premise: The farmer sold the horse.\nRewritten premise:"
    prompt = rewriter_prompt(bench.task, str(path))
    shown_row = next(row for row in bench.rows if bench.task.span_text(row) == "The monk sold the bell.")
    assert "The bell was sold by the monk." in prompt.told(bench.rows[0])
    assert "The bell was sold by the monk." not in prompt.told(shown_row), "an example's own rewrite repeats no prompt"
    assert prompt.told(shown_row).startswith(rewrite[0]["content"])
    spec = make_corpus_spec(
        task=bench.task,
        task_name="copa",
        protocol=Protocol(),
        variant="mine",
        template=str(path),
        examples=bench.rows,
        rewriter=REF,
        judge=REF,
    )
    assert spec.rewriter_prompt_id == prompt_ids(bench.task, str(path)).rewriter
    assert prompt_ids(bench.task, str(path)).judge == prompt_ids(bench.task, "oat").judge, "the judge stays the same"


def test_a_finished_build_asks_nothing_again(bench: Bench) -> None:
    first, again = Writer(), Writer()
    card = bench.build(first)
    assert bench.build(again) == card
    assert not again.asked
    assert len(first.asked) == card.calls - card.cached


def test_faults_are_fed_back_until_all_rows_are_valid(bench: Bench) -> None:
    def leaky(request: ChatRequest) -> str:
        good = rewritten(request)
        return good if GUARD in request.messages[0].content else good[:-1] + " because he needed money."

    writer = Writer({"rewrite": leaky})
    card = bench.build(writer)
    third = card.phases[2]
    assert [(trial.valid, trial.fault) for trial in third.trials] == [(0, "check:answer-leaked"), (4, None)]
    assert third.trials[0].rule == GUARD
    assert third.reached
    assert f"## Faults to avoid\n- {GUARD}" in bench.text(3)
    assert GUARD in (bench.folder / "phase-3" / "diff.txt").read_text()
    told = (bench.folder / "phase-3" / "exchanges.jsonl").read_text()
    assert "it says what is to be inferred" in told
    assert "In 4 of 4 texts" in told
    assert card.phases[3].lost == 0


def test_packaged_examples_may_be_shown_until_there_are_own_ones(bench: Bench) -> None:
    asked = dict[str, list[str]]()

    def note(request: ChatRequest) -> str:
        turns = [turn.content for turn in request.messages if turn.role == "assistant"]
        asked.setdefault("packaged" if "The boy's card tower fell down." in turns else "own", []).append(turns[0])
        return rewritten(request)

    card = bench.build(Writer({"rewrite": note}), examples="oat")
    assert len(asked["packaged"]) == 4 + 3, "phases 3 and 5"
    assert set(asked["own"]) == {"The bell was sold by the monk."}
    assert card.shots == 3
    assert preview(bench.task, bench.rows, str(bench.folder / "phase-3" / "template.jinja"), 1)
    with pytest.raises(InputError, match="no such rewrites"):
        bench.designer(Writer(), examples="poetry")


def test_bounded_rounds_end_and_are_told(bench: Bench) -> None:
    def echo(request: ChatRequest) -> str:
        return request.messages[-1].content.removeprefix("Original premise: ").split("\n")[0]

    guards = iter(
        ["- Choose other verbs than before.", "- Begin each sentence with another part.", "- Use fresh nouns."] * 3
    )
    writer = Writer({"rewrite": echo, "fault": lambda request: next(guards)})
    card = bench.build(writer)
    assert [trial.reasons for trial in card.phases[2].trials] == [{"identical": 4}] * 3
    assert not card.phases[2].reached
    assert any("after 3 rounds the best template had 0 of 4 valid" in text for text in card.unreached)
    assert "Faults to avoid" not in bench.text(3), "rules that helped nobody are left out"
    assert card.shots == 0
    assert "shots: none" in bench.text(5)
    assert card.final.valid == 0
    assert card.valid.low == 0.0
    assert list_templates([bench.folder])[-1].valid == "0 of 4"


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (
            "Here is the template:\n\n- Use {premise} words that are {{ plain }} and common.",
            "Use {{ noun }} words that are plain and common.",
        ),
        ("```\n1) **Clarity:** Say each thing in one clear sentence.\n```", "Say each thing in one clear sentence."),
        (
            "<think>hm {{</think>\n* Put the doer before the deed {% in all }} sentences",
            "Put the doer before the deed in all sentences.",
        ),
        ("Keep the order of events as it is told.", "Keep the order of events as it is told."),
    ],
)
def test_crooked_replies_are_straightened(bench: Bench, reply: str, kept: str) -> None:
    bench.designer(Writer({"rules": lambda request: reply})).build(bench.card, until=2)
    assert f"- {kept}\n" in bench.text(2)
    assert preview(bench.task, bench.rows, str(bench.folder / "phase-2" / "template.jinja"), 1)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("- Lower the learning rate and use a bigger batch size.", "not about the wording (learning rate)"),
        ("- Always state the correct answer in the premise.", "it asks for the answer in the text"),
        ("I'm sorry, but I can't help with that.", "the reply is a refusal"),
        ("{premise}", "no line that begins with a dash"),
        ("- What to do with words or sentences: choice of words, order, length.", "it repeats the prompt"),
        ("- Clear words\n- ## Rules:", "too short for a sentence"),
    ],
)
def test_unusable_replies_are_sent_back_with_the_reason(bench: Bench, reply: str, why: str) -> None:
    def answer(request: ChatRequest) -> str:
        return reply if len(request.messages) == 1 else f"- {RULES[1]}"

    writer = Writer({"rules": answer})
    bench.designer(writer).build(bench.card, until=2)
    assert writer.count("rules") == 2
    assert RULES[1] in bench.text(2)
    told = (bench.folder / "phase-2" / "exchanges.jsonl").read_text().splitlines()[-1]
    assert why in json.loads(told)["messages"][-1]["content"]


def test_what_the_paper_does_not_say_is_left_out(bench: Bench) -> None:
    lies = "- Bananas ripen faster near old apples.\n- Zig compares the two losses of a text in 7531 steps.\n"
    bench.designer(Writer({"gaps": lambda request: lies + f"- {FACTS[0]}"})).build(bench.card, until=2)
    two = bench.text(2)
    assert "Bananas" not in two
    assert "7531" not in two
    dropped = (bench.folder / "phase-2" / "exchanges.jsonl").read_text()
    assert "most of its words are not in the paper" in dropped
    assert "numbers that are not in the paper: 7531" in dropped


def test_a_writer_without_a_usable_word_is_an_error_that_names_the_log(bench: Bench) -> None:
    with pytest.raises(ModelError, match=r"exchanges\.jsonl") as caught:
        bench.build(Writer({"rules": lambda request: "ok"}))
    assert caught.value.code == "design-unusable"
    assert bench.designer(Writer()).build(bench.card, until=1) is None, "phase 1 is kept"


def test_what_phase_3_lost_is_restored_and_nothing_is_taken_away(bench: Bench) -> None:
    bench.designer(Writer()).build(bench.card, until=3)
    path = bench.folder / "phase-3" / "template.jinja"
    shorter = path.read_text().replace(f"- {FACTS[1]}\n", "").replace("## Always\n", "## Always\n- Mind the tense.\n")
    path.write_text(shorter)
    card = bench.build(Writer())
    assert f"- {FACTS[1]}\n" in bench.text(4)
    assert "- Mind the tense.\n" in bench.text(4)
    assert any("restored" in note for note in card.phases[3].notes)
    assert "the template was edited by hand afterwards" in card.phases[2].notes
    assert (card.phases[3].lost, card.phases[4].lost) == (0, 0)


def test_an_edited_phase_makes_only_the_later_ones_anew(bench: Bench) -> None:
    bench.build(Writer())
    path = bench.folder / "phase-4" / "template.jinja"
    path.write_text(path.read_text().replace("## Always\n", "## Always\n- Mind the tense.\n"))
    again = Writer()
    card = bench.build(again)
    assert "- Mind the tense." in (bench.folder / "template.jinja").read_text()
    assert {key.split(":")[0] for key in again.asked} <= {"rewrite", "meaning", "role"}
    assert card.phases[4].parent_id == card.template_ids["4"]


@pytest.mark.parametrize("at", [1, 3, 6, 12, 20, 28])
def test_a_stopped_build_goes_on_and_pays_nothing_twice(bench: Bench, tmp_path: Path, at: int) -> None:
    whole = Writer()
    card = bench.build(whole, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    stopped, left = Writer(), [at]

    def dying(request: ChatRequest) -> str | ChatReply | None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return stopped(request)

    cache = tmp_path / "other-cache"
    with pytest.raises(Killed):
        bench.build(scripted_chat(dying, cache=cache))
    rest = Writer()
    resumed = bench.build(scripted_chat(rest, cache=cache))
    assert resumed.template_id == card.template_id
    assert (bench.folder / "fewshot" / "copa.yaml").read_bytes() == (tmp_path / "whole/fewshot/copa.yaml").read_bytes()
    # Two rows with the same content share a reply, so what counts is that nothing was asked twice.
    assert len(stopped.asked) + len(rest.asked) == len(whole.asked)
    assert resumed.calls == card.calls


def test_failed_calls_are_asked_again_and_no_reply_is_taken_for_one(bench: Bench) -> None:
    def broken(request: ChatRequest) -> ChatReply:
        return ChatReply(key="", request_id="", model="x", error="503", error_code="http-503")

    with pytest.raises(EndpointError):
        bench.build(Writer({"gaps 2": broken}))
    assert not (bench.folder / "phase-2" / "phase.json").exists()
    assert not bench.build(Writer()).unreached


def test_the_number_of_calls_is_bounded_and_can_be_raised(bench: Bench) -> None:
    first = Writer()
    with pytest.raises(BudgetExhausted) as caught:
        bench.build(first, max_calls=12)
    assert caught.value.code == "design-calls"
    assert len(first.asked) <= 12
    rest = Writer()
    assert not bench.build(rest, max_calls=200).unreached
    assert rest.count("gaps") == 0


def test_a_token_budget_stops_the_build_and_a_higher_one_goes_on(bench: Bench) -> None:
    small = REF.model_copy(update={"budget_tokens": 2500})
    with pytest.raises(BudgetExhausted):
        bench.build(scripted_chat(Writer(), cache=bench.cache, budget_tokens=2500), ref=small)
    assert not bench.build(Writer(), ref=REF).unreached


def test_a_folder_keeps_to_its_spec(bench: Bench) -> None:
    bench.designer(Writer()).build(bench.card, until=1)
    with pytest.raises(InputError, match="limits") as caught:
        bench.build(Writer(), limits={"rules": 1})
    assert caught.value.code == "design-folder-taken"


def test_a_person_inspects_and_overrules_the_judge(bench: Bench) -> None:
    def by_hand(wrong: int) -> StoppedBySignal:
        with pytest.raises(StoppedBySignal) as caught:
            bench.build(Writer(), inspect="person")
        folder = next(
            path.parent
            for path in sorted(bench.folder.rglob("DONE"))
            if not (path.parent / "review.labels.jsonl").exists()
        )
        assert str(folder) in str(caught.value)
        pairs = corpus_pairs(folder)[1]
        with LabelsFile(folder / "review.labels.jsonl", "ann") as file:
            for number, pair in enumerate(pairs):
                if number < wrong:
                    file.add(pair, "not the same", faults=["role"], note="it hints at money")
                else:
                    file.add(pair, "same")
        return caught.value

    assert by_hand(1).code == "design-inspect"
    by_hand(0)  # round 2, with the rule against what ann found
    by_hand(0)  # examples
    by_hand(0)  # the finished template
    card = bench.build(Writer(), inspect="person")
    trials = card.phases[2].trials
    assert [(trial.valid, trial.overruled) for trial in trials] == [(3, 1), (4, 0)]
    assert trials[0].reasons == {"person:role": 1}
    assert "it hints at money" in (bench.folder / "phase-3" / "exchanges.jsonl").read_text()


@pytest.mark.parametrize("form", ["pdf", "latex", "text"])
def test_a_paper_of_any_form_will_do(bench: Bench, tmp_path: Path, paper: Path, form: str) -> None:
    text = paper.read_text()
    if form == "pdf":
        from fpdf import FPDF

        made = FPDF()
        made.set_font("helvetica", size=11)
        made.add_page()
        for line in text.split("\n"):
            made.multi_cell(0, 6, line.lstrip("# "), new_x="LMARGIN", new_y="NEXT")
        path = tmp_path / "zig.pdf"
        made.output(str(path))
    elif form == "text":
        path = tmp_path / "zig.txt"
        path.write_text("\n".join(line.lstrip("# ") for line in text.split("\n")))
    else:
        path = tmp_path / "zig.tex"
        body = text.replace("## Abstract\n", "\\begin{abstract}").replace(
            "# 1 Intro", "\\end{abstract}\n\\section{Intro"
        )
        lines = [r"\documentclass{article}", r"\title{Zig: Training}", r"\begin{document}"]
        for line in body.split("\n")[1:]:
            bare = line.lstrip("# 0123456789.")
            lines.append(
                f"\\section{{{bare}}}"
                if line.startswith("#")
                else f"{line}}}"
                if line.startswith("\\section")
                else line
            )
        path.write_text("\n".join(lines) + "\n\\end{document}\n")
    bench.card = read_paper(path)
    bench.build(Writer({"describe": lambda request: "Zig perturbs the weights with a random direction."}))
    one = " ".join(bench.text(1).split())
    assert "Abstract:" in one
    assert "two forward passes and no backward pass" in one
    assert "compares the two losses of a training text" in one
    assert FACTS[1] in bench.text(2)


def test_templates_can_be_found_by_folder_task_and_phase(bench: Bench, tmp_path: Path) -> None:
    bench.build(Writer(), folder=tmp_path / "made" / "zig-copa")
    made = (tmp_path / "made",)
    path = tmp_path / "made" / "zig-copa" / "template.jinja"
    assert find_template("copa", made) == find_template("zig-copa", made) == find_template(str(path.parent)) == path
    assert find_template("copa", made, 2).parent.name == "phase-2"
    assert find_template("oat").name == "oat.jinja"
    assert parse_template(path).text == path.read_text()
    for name in ("rte", "nonsense"):
        with pytest.raises(InputError, match="template list"):
            find_template(name, made)
    names = [info.name for info in list_templates(made)]
    assert names == ["oat", "paraphrase", str(path)]


def test_source_is_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.build(Writer())
    trial = next((bench.folder / "final").glob("trial-*"))
    assert json.loads((trial / "card.json").read_text())["source"]["location"] == SOURCE.location


KILLED = """
import os, sys
from pathlib import Path
from designing import Bench, Writer, copa_rows
from optaware.llm import scripted_chat
from optaware.paper import read_paper
from optaware.tasks import get_task

folder, after = Path(sys.argv[1]), int(sys.argv[2])
writer, task = Writer(), get_task("copa")

def answer(request):
    if len(writer.asked) == after:
        os.kill(os.getpid(), 9)
    return writer(request)

bench = Bench(task, copa_rows(task, 12), read_paper(folder / "zig.md"), folder / "build", folder / "cache")
bench.build(scripted_chat(answer, cache=folder / "cache"))
"""


def test_a_killed_process_leaves_a_build_that_goes_on(bench: Bench, tmp_path: Path) -> None:
    helpers = Path(__file__).parents[2] / "helpers"
    paths = os.pathsep.join([str(helpers), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "17"], env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    assert done.returncode == -9
    assert not (bench.folder / "card.json").exists()
    whole, rest = Writer(), Writer()
    card = bench.build(scripted_chat(rest, cache=bench.cache))
    assert (
        card.template_id
        == bench.build(scripted_chat(whole, cache=tmp_path / "other"), folder=tmp_path / "whole").template_id
    )
    assert len(rest.asked) == len(whole.asked) - 17


def test_a_point_that_begins_with_it_names_the_optimizer(bench: Bench) -> None:
    said = "- It compares the two losses of a training text at each step."
    bench.designer(Writer({"gaps": lambda request: said})).build(bench.card, until=2)
    assert f"- {FACTS[0]}" in bench.text(2)


def test_a_calibrated_judge_judges_the_trials(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    rule = "A rewrite that names another animal is not the same."
    judge = JudgeTemplate(task="copa", base="guarded", meaning={"guidance": [rule]})
    path.write_text(json.dumps(judge.to_json()))
    told: list[str] = []

    def strict(request: ChatRequest) -> str:
        told.append(" ".join(message.content for message in request.messages))
        return "same"

    bench.build(Writer({"meaning": strict}), judge_file=path)
    assert told
    assert all(rule in text for text in told)
    with pytest.raises(InputError, match="judge_sha256"):
        bench.build(Writer())


@pytest.mark.parametrize("examples", [False, True])
def test_what_is_kept_of_a_build_can_be_used_and_quotes_no_more_than_it_may(
    bench: Bench, tmp_path: Path, examples: bool
) -> None:
    bench.build(Writer())
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "build_templates.py"))
    kept = tmp_path / "kept"
    names = script["keep"](bench.folder, kept, examples=examples)
    assert ("fewshot/copa.yaml" in names) == examples
    for path in kept.rglob("*.jinja"):
        if examples or not path.name.startswith("phase-5"):
            assert preview(bench.task, bench.rows, str(path), 1)
    whole = "".join(path.read_text() for path in kept.rglob("*") if path.is_file())
    assert "needs much memory" not in whole
    assert ("The monk sold the bell" in whole) == examples
    assert list_templates([kept])[-1].shots == 3


def test_a_sentence_that_was_cut_off_is_left_out(bench: Bench) -> None:
    def cut_off(request: ChatRequest) -> ChatReply:
        text = f"- {RULES[1]}\n- Choose verbs that everybody knows because"
        return ChatReply(key="", request_id="", model="x", text=text, finish_reason="length")

    bench.designer(Writer({"rules": cut_off})).build(bench.card, until=2)
    assert RULES[1] in bench.text(2)
    assert "everybody knows" not in bench.text(2)


def test_a_prompt_that_is_too_long_says_what_to_do(bench: Bench) -> None:
    def refuse(request: ChatRequest) -> ChatReply:
        return ChatReply(key="", request_id="", model="x", error="9000 tokens", error_code="prompt-too-long")

    with pytest.raises(ModelError, match="--context-chars") as caught:
        bench.build(Writer({"gaps": refuse}))
    assert caught.value.code == "design-too-long"


def test_a_point_on_this_gradient_says_whose_it_is(bench: Bench) -> None:
    said = "- The gradient is weak where two losses of a training text are noisy."
    bench.designer(Writer({"gaps": lambda request: said})).build(bench.card, until=2)
    assert "- The gradient of Zig is weak where" in bench.text(2)
