"""The exact text of every prompt, and the mechanics of COPA."""

from __future__ import annotations

import pytest

from optaware.tasks import get_task

COPA = {
    "premise": "The man turned on the faucet.",
    "choice1": "The toilet filled with water.",
    "choice2": "Water flowed from the spout.",
    "question": "effect",
    "label": 1,
}
CB = {"premise": "A: No. B: Do you think it rains?", "hypothesis": "it rains", "label": 2}
RTE = {"premise": "Ann lives in Rome.", "hypothesis": "Ann lives in Italy.", "label": 0}
BOOLQ = {"question": "is ice cold", "passage": "Ice -- Ice is frozen water.", "label": 1}
ARC = {
    "question": "Which is wet?",
    "choices": {"text": ["sand", "water", "iron"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
SST2 = {"sentence": "a lovely film . ", "label": 1}

_MEZO_RTE = 'Ann lives in Rome.\nDoes this mean that "Ann lives in Italy." is true? Yes or No?\n'
_COPA = ("The man turned on the faucet so", (" the toilet filled with water.", " water flowed from the spout."))
_CB = (
    'Suppose A: No. B: Do you think it rains? Can we infer that "it rains"? Yes, No, or Maybe?\n',
    ("Yes", "No", "Maybe"),
)
_CLOZE = ("Question: Which is wet?\nAnswer:", (" sand", " water", " iron"))
_LETTERS = ("Question: Which is wet?\nA. sand\nB. water\nC. iron\nAnswer:", (" A", " B", " C"))
_SST2 = ("a lovely film . It was", (" terrible", " great"))

GOLDEN = [
    ("copa", "default", COPA, _COPA),
    ("copa", "mezo", COPA, _COPA),
    ("copa", "mistral", COPA, _COPA),
    ("cb", "default", CB, _CB),
    ("cb", "mezo", CB, _CB),
    ("cb", "mistral", CB, _CB),
    (
        "rte",
        "default",
        RTE,
        ('Suppose "Ann lives in Rome." Can we infer that "Ann lives in Italy."? Yes or No?', (" Yes", " No")),
    ),
    ("rte", "mezo", RTE, (_MEZO_RTE, ("Yes", "No"))),
    ("rte", "mistral", RTE, (_MEZO_RTE, ("Yes", "No"))),
    ("boolq", "default", BOOLQ, ("Ice -- Ice is frozen water. Is ice cold?", (" No", " Yes"))),
    ("boolq", "mezo", BOOLQ, ("Ice -- Ice is frozen water. Is ice cold?\n", ("No", "Yes"))),
    ("boolq", "mistral", BOOLQ, ("Ice -- Ice is frozen water. Is ice cold?\n", ("No", "Yes"))),
    ("arc-c-cloze", "default", ARC, _CLOZE),
    ("arc-c-cloze", "mezo", ARC, _CLOZE),
    ("arc-c-cloze", "mistral", ARC, _CLOZE),
    (
        "arc-c-cloze",
        "oat-code",
        ARC,
        ("Question: Which is wet?", ("\nAnswer: sand", "\nAnswer: water", "\nAnswer: iron")),
    ),
    ("arc-c-mc", "default", ARC, _LETTERS),
    ("arc-c-mc", "mistral", ARC, _LETTERS),
    ("sst2", "default", SST2, _SST2),
    ("sst2", "mezo", SST2, _SST2),
    ("sst2", "mistral", SST2, _SST2),
]


@pytest.mark.parametrize(("name", "style", "row", "expected"), GOLDEN, ids=[f"{g[0]}-{g[1]}" for g in GOLDEN])
def test_prompts(name: str, style: str, row: dict[str, object], expected: tuple[str, tuple[str, ...]]) -> None:
    task = get_task(name)
    shown = task.render(task.example(row, "train", 0, "inline"), style)
    assert (shown.prompt, shown.options) == expected


def test_every_style_has_a_golden_prompt() -> None:
    for name in {g[0] for g in GOLDEN}:
        assert set(get_task(name).prompt_styles) == {g[1] for g in GOLDEN if g[0] == name}


@pytest.mark.parametrize(
    ("premise", "question", "prompt"),
    [
        ("I ran.", "cause", "I ran because"),
        ("I ran. ", "effect", "I ran so"),
        ("I ran", "effect", "I ran so"),
        ("Did I run?", "cause", "Did I run? because"),
        ("It cost 3.50.", "cause", "It cost 3.50 because"),
        ("He waited..", "cause", "He waited. because"),
    ],
)
def test_copa_premise(premise: str, question: str, prompt: str) -> None:
    task = get_task("copa")
    row = task.example({**COPA, "premise": premise, "question": question}, "train", 0, "inline")
    assert task.render(row).prompt == prompt


@pytest.mark.parametrize(
    ("choice", "option"),
    [
        ("I sang.", " I sang."),
        ("I'm late.", " I'm late."),
        ("It rained.", " it rained."),
        ("In May it rained.", " in May it rained."),
        (" The parents slept. ", " the parents slept."),
        ("Élan was lost.", " élan was lost."),
    ],
)
def test_copa_choice(choice: str, option: str) -> None:
    task = get_task("copa")
    shown = task.render(task.example({**COPA, "choice2": choice}, "train", 0, "inline"))
    assert shown.options[1] == option


def test_copa_question_is_cause_or_effect() -> None:
    with pytest.raises(ValueError, match="cause, effect"):
        get_task("copa").example({**COPA, "question": "why"}, "train", 0, "inline")


@pytest.mark.parametrize("question", ["is ice cold", "is ice cold?", " Is ice cold? "])
def test_boolq_question_mark_and_capital(question: str) -> None:
    task = get_task("boolq")
    shown = task.render(task.example({**BOOLQ, "question": question}, "train", 0, "inline"))
    assert shown.prompt == "Ice -- Ice is frozen water. Is ice cold?"


def test_boolq_takes_both_published_forms() -> None:
    task = get_task("boolq")
    google = {"question": "is ice cold", "passage": "Ice is frozen water.", "answer": True, "title": "Ice"}
    assert task.example(google, "train", 0, "a").fields == BOOLQ


def test_rte_takes_glue_columns() -> None:
    task = get_task("rte")
    glue = {"sentence1": RTE["premise"], "sentence2": RTE["hypothesis"], "label": 0, "idx": 3}
    assert task.example(glue, "train", 0, "a").fields == RTE


def test_what_a_person_reads() -> None:
    task = get_task("sst2")
    context = task.context(task.example(SST2, "train", 0, "inline"))
    assert (context["options"], context["answer"], context["label_word"]) == (
        ["negative", "positive"],
        "positive",
        "great",
    )
    task = get_task("copa")
    context = task.context(task.example(COPA, "train", 0, "inline"))
    assert context["options"] == [COPA["choice1"], COPA["choice2"]]
    assert context["answer"] == "Water flowed from the spout."
    task = get_task("arc-c-mc")
    context = task.context(task.example(ARC, "train", 0, "inline"))
    assert (context["answer"], context["label_word"], context["label"]) == ("water", "B", 1)
