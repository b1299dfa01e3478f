"""What is read out of a model's reply about a paper, and how a paper is shown to it."""

from __future__ import annotations

from optaware.data.design._material import cut, plain_text
from optaware.data.design._replies import about_learning, general, grounded, read_lines


def test_points_over_several_lines_are_read_whole() -> None:
    reply = "- Keep the words of the premise plain\n  and put the doer first.\n- Write short sentences only"
    found = read_lines(reply, known=[], told="", limit=5)
    assert found.kept == ("Keep the words of the premise plain and put the doer first.", "Write short sentences only.")


def test_rules_about_one_text_only_are_told_from_general_ones() -> None:
    short = general("The farmer sold the horse because he needed money.")
    assert short("Do not say that the farmer needed money for his horse.") is not None
    assert short("Do not add a reason that the original lacks.") is None
    passage = " ".join(f"w{n:02d}ord" for n in range(30)) + " Keep facts, dates, order and length of sentences alike."
    assert general(passage)("Keep the order of the facts, whatever the writer thinks sounds best.") is None


def test_a_text_is_cut_after_a_sentence_and_not_after_a_number() -> None:
    assert cut("Zig is small. 1. It is fast. 2. It is slow.", 32) == ("Zig is small. 1. It is fast.", True)
    assert cut("Zig.", 10) == ("Zig.", False)


def test_a_paper_is_shown_without_marks_one_paragraph_or_point_a_line() -> None:
    text = "## **Zig** is\nsmall.\n- It is *fast*,\n  mostly.\n2. It is slow.\n\nIn 2. it says <u>so</u>."
    assert plain_text(text) == "Zig is small.\n- It is *fast*, mostly.\n2. It is slow.\nIn 2. it says so."


def test_an_answer_may_begin_with_the_words_of_its_question() -> None:
    told = "How does Zig get a gradient from the loss on the training texts? Leave out hardware and scores."
    answer = (
        "Zig gets a gradient from the loss on the training texts by comparing two forward passes along one direction."
    )
    echo = "Zig gets a gradient from the loss on the training texts."
    found = read_lines(f"- {answer}\n- {echo}", known=[], told=told, limit=5)
    assert found.kept == (answer,)
    assert "it repeats the prompt" in found.dropped[0]


def test_formulas_go_and_the_optimizers_name_is_known() -> None:
    said = r"- Zig is unstable due to the direction $\boldsymbol{\xi}$ of $z$ and its scale."
    found = read_lines(said, known=[], told="", limit=1, checks=[grounded("Zig unstable direction scale")])
    assert found.kept == ("Zig is unstable due to the direction of $z$ and its scale.",)


def test_comparisons_turned_round_and_hardware_are_no_points() -> None:
    source = "Zig suffers from slower convergence compared to methods of first order; it avoids memory overhead."
    checks = [about_learning, grounded(source)]
    reply = "- Zig allows for faster convergence compared to methods.\n- Zig avoids memory overhead of first order."
    found = read_lines(reply, known=[], told="", limit=2, checks=checks)
    assert found.kept == ()
    assert "a comparison that is not in the paper: faster" in found.dropped[0]
    assert "not about how it learns (memory)" in found.dropped[1]
    assert read_lines("- Zig suffers from slower convergence.", known=[], told="", limit=1, checks=checks).kept


def test_a_bold_title_that_is_the_rule_stays() -> None:
    found = read_lines("- **Use short words**: Zig gains from them.", known=[], told="", limit=1)
    assert found.kept == ("Use short words: Zig gains from them.",)
