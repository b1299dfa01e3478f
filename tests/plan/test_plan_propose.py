"""Proposing a plan for a paper: what is asked, what is made of the replies, and that nothing paid is lost."""

import json

import pytest

from optaware.cli._app import invoke
from optaware.errors import BudgetExhausted, InputError, ModelError
from optaware.llm import scripted_chat
from optaware.plan import (
    ProposeLimits,
    bind_plan,
    check_plan,
    parse_plan,
    proposal_requests,
    propose_plan,
    render_plan,
    surface_of_method,
)
from optaware.plan._propose_material import chunks
from optaware.records import PaperCard, PaperSection, Place

TEXT = """# Loud Steps

## Abstract
We train with noise of scale eps.

## Method
The scale is 1e-3 and falls
slowly. We draw one sample a step.

## Experiments
We remove the schedule and accuracy drops.

## References
[1] Nothing to read here.
"""


def card_of(text=TEXT):
    starts = [at for at in range(len(text)) if text.startswith("## ", at)]
    roles = {"Abstract": "abstract", "Method": "method", "Experiments": "experiments", "References": "references"}
    sections = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        title = text[start + 3 : text.index("\n", start)]
        place = Place(start=start, end=end, section=title, line=text.count("\n", 0, start) + 1)
        sections.append(PaperSection(title=title, level=2, role=roles[title], place=place))
    return PaperCard(source="p.md", sha256="0" * 64, form="markdown", text=text, sections=tuple(sections))


def row(name, part, action="REPLACE", values=(), evidence="The scale is 1e-3 and falls slowly."):
    data = {"name": name, "ablated_part": part, "action": action, "replacement": list(values) or None}
    return json.dumps({**data, "metrics": ["accuracy"], "evidence": evidence})


def reply(*rows, why="because"):
    return f"<discussion>\n{why}\n</discussion>\n<predictions>\n" + "\n".join(rows) + "\n</predictions>"


SCALE = row("Scale", "perturbation scale", values=[1e-3, 1e-4])
SAMPLES = row("Samples", "number of samples", values=[1, 4], evidence="We draw two samples.")


def test_a_plan_with_its_evidence():
    asked = []

    def answer(request):
        asked.append(request)
        return reply(SCALE, SAMPLES)

    found = propose_plan(card_of(), scripted_chat(answer), model="m", k=5)
    assert [entry.name for entry in found.document.plan.entries] == ["Scale", "Samples"]
    assert found.document.plan.entries[0].values[1].value == 1e-4
    assert [(one.entry, one.place and one.place.section) for one in found.evidence] == [
        ("Scale", "Method"),
        ("Samples", None),
    ]
    assert (found.requests, found.attempts, found.faults) == (1, 1, ())
    prompt = asked[0].messages[0].content
    assert "The scale is 1e-3" in prompt
    assert "Nothing to read here" not in prompt
    for to in ("page", "md"):
        text = render_plan(found.document, to)
        assert "because" in text
        assert "(Method, line 7)" in text
        assert "NOT FOUND in the paper" in text
        assert parse_plan(text).plan.entries[0].name == "Scale"


def test_a_reply_that_cannot_be_used_goes_back_with_what_is_wrong():
    asked = []

    def answer(request):
        asked.append(request)
        if len(asked) == 1:
            return "I would vary the scale."
        return reply(row("Empty", "scale")) if len(asked) == 2 else reply(SCALE)

    found = propose_plan(card_of(), scripted_chat(answer))
    assert (found.attempts, found.requests) == (3, 3)
    assert [len(request.messages) for request in asked] == [1, 3, 3]
    assert "REPLACE without a replacement" in asked[2].messages[-1].content
    assert asked[2].messages[1].content == reply(row("Empty", "scale"))
    assert [entry.name for entry in found.document.plan.entries] == ["Scale"]
    assert found.faults


def test_the_best_reply_counts_when_none_is_whole():
    answers = iter([reply(SCALE, '{"name": "Cut'), "no", "nothing"])
    found = propose_plan(card_of(), scripted_chat(lambda _: next(answers)))
    assert [entry.name for entry in found.document.plan.entries] == ["Scale"]
    with pytest.raises(ModelError, match="proposal-unusable"):
        propose_plan(card_of(), scripted_chat(lambda _: "no"), limits=ProposeLimits(attempts=2))
    with pytest.raises(ModelError, match="no reply"):
        propose_plan(card_of(), scripted_chat(lambda _: None))


def test_k_is_kept_by_rank():
    rows = [row(f"Scale {number}", f"part {number}", "REMOVE") for number in range(4)]
    found = propose_plan(card_of(), scripted_chat(lambda _: reply(*rows)), k=2)
    assert [entry.name for entry in found.document.plan.entries] == ["Scale 0", "Scale 1"]
    assert len(found.dropped) == 2
    with pytest.raises(InputError, match="count-below-one"):
        propose_plan(card_of(), scripted_chat(lambda _: ""), k=0)


def test_what_the_paper_has_is_not_proposed_again():
    has = row("No schedule", "the schedule", "REMOVE", evidence="We remove the schedule and accuracy drops.")

    def answer(request):
        if request.key.startswith("existing"):
            return has
        assert "No schedule" in request.messages[0].content
        return reply(has, SCALE)

    found = propose_plan(card_of(), scripted_chat(answer), missing=True)
    assert [entry.name for entry in found.existing] == ["No schedule"]
    assert [entry.name for entry in found.document.plan.entries] == ["Scale"]
    assert any("has it already" in text for text in found.dropped)
    assert found.document.page.task == "reviewer"
    assert found.requests == 1 + 3
    assert propose_plan(card_of(), scripted_chat(lambda r: "none" if "exist" in r.key else reply(SCALE)), missing=True)


def test_a_long_paper_is_read_part_by_part():
    long = card_of(TEXT.replace("slowly.", "slowly.\n\n" + "\n\n".join(f"Word {n} more text." for n in range(200))))
    limits = ProposeLimits(context_chars=1000)
    parts = chunks(long, 1000)
    assert len(parts) > 3
    assert all(len(part) <= 1000 for part in parts)
    assert "".join("".join(parts).split()) == "".join(long.text.split("## References")[0].split())
    keys = []

    def answer(request):
        keys.append(request.key)
        if request.key.startswith("candidates"):
            return SCALE if request.key == "candidates 1" else "none"
        assert '"Scale"' in request.messages[0].content
        return reply(SCALE.replace(', "evidence": "The scale is 1e-3 and falls slowly."', ""))

    found = propose_plan(long, scripted_chat(answer), limits=limits)
    assert keys == [*(f"candidates {number}" for number in range(1, len(parts) + 1)), "plan 1"]
    assert found.evidence[0].place.section == "Method"
    assert proposal_requests(long, missing=True, limits=limits) == 2 * len(parts) + 3 + 1


@pytest.mark.parametrize(
    ("order", "names", "said"),
    [
        ("2, 1", ["Scale", "Samples"], "in the order that the model gave"),
        ("Numbers 1 and 7", ["Samples"], "in the order that the model gave"),
        ("I cannot tell.", ["Scale", "Samples"], "in the paper's order"),
        (None, ["Scale", "Samples"], "in the paper's order"),
    ],
)
def test_where_no_reply_is_a_plan_the_candidates_are(order, names, said):
    long = card_of(TEXT.replace("slowly.", "slowly.\n\n" + "\n\n".join(f"Word {n} more text." for n in range(200))))

    def answer(request):
        if request.key == "candidates 1":
            return f"{SAMPLES}\n{SCALE}\n{row('Figure', 'Figure 3', values=['x'])}"
        return order if request.key == "order" else "none"

    found = propose_plan(long, scripted_chat(answer), limits=ProposeLimits(context_chars=1000, attempts=2))
    assert [entry.name for entry in found.document.plan.entries] == names
    assert said in found.faults[-1]
    assert any("'Figure 3' is a place in the paper" in fault for fault in found.faults)
    assert found.evidence[-1].entry == names[-1]


def test_slips_of_a_small_model_are_put_right_and_told():
    rows = [
        row("No gate", "the gate", values=["none"]),
        row("Judge", "the judge", "ADD", values=["None"]),
        row("Rejection gate", "2.2", "REMOVE").replace('["accuracy"]', "[]"),
        row("Twice", "the scale", values=["a", "A", "b"]).replace('["accuracy"]', '["accuracy", "None"]'),
        row("Heading", "2.1 Experiments", values=["x"]),
        row("Table", "Table 2", values=["x"]),
        row("Warm-up length", "warm-up", values=[1]),
    ]
    asked = []

    def answer(request):
        asked.append(request.messages[-1].content)
        return reply(*rows)

    found = propose_plan(card_of(), scripted_chat(answer), k=10, limits=ProposeLimits(attempts=2))
    entries = found.document.plan.entries
    assert [(entry.name, entry.action, [value.text for value in entry.values]) for entry in entries] == [
        ("No gate", "REMOVE", []),
        ("Judge", "ADD", []),
        ("Rejection gate", "REMOVE", []),
        ("Twice", "REPLACE", ["a", "b"]),
    ]
    assert entries[3].metrics == ("accuracy",)
    assert len(found.mended) == 6
    assert len(found.dropped) == 3
    assert "'Table 2' is a place in the paper" in asked[1]
    assert entries[2].ablated_part == "Rejection gate"
    assert entries[2].metrics == ("accuracy",)  # the one that the paper names
    assert not check_plan(found.document.plan).has_errors


def test_proposals_name_components_so_that_they_bind():
    mezo = surface_of_method("mezo")
    asked = []

    def answer(request):
        asked.append(request)
        if len(asked) == 1:
            return reply(row("Vibes", "the mood", values=["good"]), row("P", "parameters: what is tuned", values=["x"]))
        return reply(row("Momentum", "momentum: of the update", "REMOVE"), row("P", "parameters: y", values=["lora"]))

    found = propose_plan(card_of(), scripted_chat(answer), surface=mezo)
    assert "eps: perturbation scale; now 0.001" in asked[0].messages[0].content
    assert "name one of the listed components" in asked[1].messages[-1].content
    assert "none of the values of parameters" in asked[1].messages[-1].content
    binding = bind_plan(found.document.plan, mezo, source="x")
    assert [one.runs[0].changes for one in binding.entries] == [{"momentum": 0.0}, {"parameters": "lora"}]


def test_nothing_paid_is_asked_again(tmp_path):
    calls = []

    def answer(request):
        calls.append(request.key)
        return "none" if request.key.startswith("existing") else reply(SCALE)

    def chat(**told):
        prices = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 1.0}
        return scripted_chat(answer, cache=tmp_path / "cache", **prices, **told)

    with pytest.raises(BudgetExhausted):
        propose_plan(card_of(), chat(budget_tokens=5), missing=True)
    assert calls == ["existing 1"]
    first = propose_plan(card_of(), chat(), missing=True)
    assert calls == ["existing 1", "plan 1"]
    assert propose_plan(card_of(), chat(), missing=True) == first
    assert len(calls) == 2


def test_the_command(tmp_path, capsys):
    paper, script, out = tmp_path / "p.md", tmp_path / "script.jsonl", tmp_path / "plan.md"
    paper.write_text(TEXT)
    script.write_text(json.dumps({"text": reply(SCALE)}) + "\n")
    told = ["plan", "propose", "--paper", str(paper), "--llm", str(script), "--store", str(tmp_path / "store")]
    assert invoke([*told, "--to", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "Scale"
    assert invoke([*told, "-o", str(out), "--method", "mezo"]) == 0
    said = capsys.readouterr().err
    assert "1 of them cached" not in said
    assert "plan: asking, attempt 1 of 3" in said
    assert invoke([*told, "-o", str(out), "--method", "mezo"]) == 0
    assert "1 of them cached" in capsys.readouterr().err
    assert invoke(["plan", "bind", str(out), "--method", "mezo"]) == 0
    capsys.readouterr()
    assert invoke([*told, "--to", "json", "--missing"]) == 1
    assert "evidence" in json.loads(capsys.readouterr().out)
    assert invoke([*told, "--dry-run"]) == 0
    assert "at most 3 requests" in capsys.readouterr().out
    with pytest.raises(InputError, match="count-below-one"):
        invoke([*told, "-k", "0"])
