"""A paper becomes a card: what is found where, that every quote is verbatim, and what is refused with what words."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optaware.cli._app import invoke
from optaware.errors import InputError
from optaware.paper import read_paper
from optaware.records import PaperCard, parse_record

FORMS = ("markdown", "plain", "pdf")


def flat(text):
    return " ".join(text.split())


@pytest.fixture(params=FORMS)
def card(request):
    return read_paper(request.getfixturevalue(request.param))


def test_the_parts_of_a_paper(card):
    assert card.title.text == "Loud Steps: Training with Noise"
    assert flat(card.abstract.text) == "We train with noise. It helps on two tasks and costs nothing."
    assert flat(card.introduction.text) == "Noise is old. Training with it is not."
    assert [(section.title, section.role) for section in card.sections] == [
        ("Abstract", "abstract"),
        ("Introduction", "introduction"),
        ("Background", "background"),
        ("Loud Steps", "method"),
        ("The Schedule", "method"),
        ("Experiments", "experiments"),
        ("Ablations", "ablation"),
        ("Conclusion", "conclusion"),
        ("References", "references"),
        ("Details", "appendix"),
    ]
    assert [section.title for section in card.method_sections] == ["Loud Steps", "The Schedule"]
    assert "falls with the steps" in card.section_text(card.method_sections[1])
    assert card.notes == ()


def test_captions_settings_and_ablations(card):
    assert [(item.label, flat(item.text)) for item in card.figures] == [
        ("Figure 1", "Figure 1: Loss over steps with noise.")
    ]
    assert [flat(item.text) for item in card.tables] == ["Table 1: Accuracy on two tasks."]
    assert [item.label for item in card.algorithms] == ["Algorithm 1"]
    assert "eps * z" in card.algorithms[0].text
    assert {item.label: item.values for item in card.hyperparameters} == {
        "learning rate": ("1e-3",),
        "batch size": ("16",),
        "momentum": ("0.9",),
        "lora rank": ("8",),
        "number of samples": ("1", "8"),
        "weight decay": ("0.01",),
    }
    assert [flat(item.text) for item in card.ablations] == [
        "We remove the schedule and accuracy drops by two points.",
        "We also vary the number of samples from 1 to 8.",
    ]


def test_every_item_is_a_quote_with_its_place(card):
    assert len(card.items) > 10
    for item in card.items:
        assert card.text[item.place.start : item.place.end] == item.text
        if card.form == "pdf":
            late = item.place.start >= card.page_starts[1]
            assert (item.place.page, item.place.line) == (2 if late else 1, None)
        else:
            assert item.text.split("\n")[0] in card.text.split("\n")[item.place.line - 1]
    data = card.to_json()
    assert parse_record(PaperCard, json.loads(json.dumps(data)), "again") == card
    data["abstract"]["text"] = data["abstract"]["text"].replace("noise", "Noise")
    with pytest.raises(InputError, match="are not its text"):
        parse_record(PaperCard, data, "changed")


def test_what_is_claimed_to_be_said_is_found_or_not(card):
    assert card.text[card.find("adds  nothing".replace("adds  ", "costs\n ")).start :].startswith("costs")
    assert card.find("Noise is old. Training with it is not.").section == "Introduction"
    for claim in ("noise is old", "Noise is new", "", "costs (nothing"):
        assert card.find(claim) is None


def test_a_latex_tree(latex):
    card = read_paper(latex)
    assert card.title.text == "Loud Steps: Training with Noise"
    assert card.abstract.text == "We train with noise. It helps on 5\\% of tasks and costs nothing."
    assert [(section.title, section.role) for section in card.sections] == [
        ("Abstract", "abstract"),
        ("Introduction", "introduction"),
        ("Loud Steps", "method"),
        ("Experiments", "experiments"),
        ("Ablations", "ablation"),
        ("References", "references"),
        ("Appendix", "appendix"),
        ("Details", "appendix"),
    ]
    assert card.tables[0].text == "Accuracy on \\textbf{two} tasks."
    assert "draw z" in card.algorithms[0].text
    assert len(card.ablations) == 1
    assert "said often" not in card.text
    told = "\n".join(card.notes)
    for said in ("missing: included, but", "outside the paper's folder", "parts/method: includes itself"):
        assert said in told
    assert read_paper(latex / "main.tex").text == card.text
    (latex / "second.tex").write_text("\\documentclass{x}")
    assert read_paper(latex).sha256 == card.sha256
    (latex / "main.tex").rename(latex / "first.tex")
    with pytest.raises(InputError, match="paper-main-file"):
        read_paper(latex)


def pdf_of(path, *, text="", password=None, pages=1):
    from fpdf import FPDF

    made = FPDF()
    made.set_font("helvetica")
    for _ in range(pages):
        made.add_page()
        made.rect(10, 10, 50, 50)
        if text:
            made.multi_cell(0, 6, text)
    if password:
        made.set_encryption(owner_password="owner", user_password=password)
    made.output(str(path))
    return path


def test_files_that_cannot_be_read(tmp_path, pdf):
    faults = {
        "paper-scanned": pdf_of(tmp_path / "scan.pdf", pages=3),
        "paper-encrypted": pdf_of(tmp_path / "locked.pdf", text="words " * 50, password="secret"),
        "paper-damaged": tmp_path / "cut.pdf",
        "paper-not-text": tmp_path / "junk.md",
        "paper-empty": tmp_path / "empty.txt",
        "file-missing": tmp_path / "none.pdf",
        "paper-main-file": tmp_path / "folder",
    }
    faults["paper-damaged"].write_bytes(pdf.read_bytes()[:60])
    faults["paper-not-text"].write_bytes(bytes(range(256)) * 20)
    faults["paper-empty"].write_text(" \n")
    faults["paper-main-file"].mkdir()
    for code, path in faults.items():
        with pytest.raises(InputError) as caught:
            read_paper(path)
        assert caught.value.code == code


def test_a_few_pages_without_text_are_noted(tmp_path):
    from fpdf import FPDF

    made = FPDF()
    made.set_font("helvetica")
    made.add_page()
    made.multi_cell(0, 6, "Title of it\nAbstract\n" + "We did something with words. " * 20)
    made.add_page()
    made.output(str(tmp_path / "x.pdf"))
    assert "pages with hardly any text: 2" in read_paper(tmp_path / "x.pdf").notes


def test_other_encodings_and_line_ends(tmp_path, markdown):
    path = tmp_path / "other.md"
    path.write_bytes(markdown.read_text().replace("\n", "\r\n").encode("utf-16"))
    assert read_paper(path).text.lstrip("\ufeff") == read_paper(markdown).text


_PIECES = r"""# |## |1 Introduction|Figure 1: x|Table|learning rate 1|.|A Details|References|$|\{|% |\\|}|{|\title{
|\begin{document}|\input{a}|\begin{table}|\caption{|ablation of the long word |\end{table}|\begin{abstract}|\appendix

|\section{|\begin{algorithm}|\bibliography{"""
PIECES = st.sampled_from(_PIECES.split("|"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=80)),
    name=st.sampled_from(["p.md", "p.tex", "p.txt"]),
)
def test_any_text_gives_a_card_or_an_input_error(tmp_path, data, name):
    path = tmp_path / name
    path.write_text(data, "utf-8", "replace")
    try:
        card = read_paper(path)
    except InputError:
        return
    assert parse_record(PaperCard, card.to_json(), "again") == card


def test_the_command(markdown, tmp_path, capsys):
    out = tmp_path / "card.json"
    assert invoke(["paper", "read", str(markdown), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "line 11, Introduction" in said.replace("line 10", "line 11")
    assert "markdown" in said
    assert invoke(["paper", "read", str(markdown), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())


SEED = Path(__file__).parents[3] / "shared" / "seeds" / "004_cb5128e98a2e20b6.txt"


@pytest.mark.skipif(not SEED.exists(), reason="needs the development paper")
def test_the_development_paper():
    card = read_paper(SEED)
    assert card.title.text.startswith("OAT-Rephrase: Optimization-Aware")
    assert card.abstract.text.startswith("Fine-tuning large")
    assert [item.label for item in card.figures] == [f"Figure {number}" for number in range(1, 11)]
    assert [item.label for item in card.tables] == ["Table 1", "Table 2"]
    assert "An LLM-Based Rewriter for Training Data Rephrasing" in [s.title for s in card.method_sections]
    assert {"batch size", "learning rates"} <= {item.label for item in card.hyperparameters}


def test_braces_that_never_close_cost_little():
    from optaware.paper._latex import braced

    text = r"\section{a \{ b {c} d} e"
    assert text[: braced(text, 8) + 1] == r"\section{a \{ b {c} d}"
    assert braced("{" * 50_000, 0) == -1
    assert braced("{" + "x" * 2_000 + "}", 0) == -1
