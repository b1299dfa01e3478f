"""Pages come back byte for byte, also when they had been read in the wrong encoding."""

import json

import pytest

from optaware.errors import InputError
from optaware.plan import parse_plan, render_plan

CODECS = {"000": "mac_roman", "001": "cp1252", "002": "cp1252", "003": "cp1252"}


def misread(text, codec):
    """UTF-8 bytes read in another encoding; bytes that it leaves out read as C1 controls, as browsers do."""
    return "".join(bytes([byte]).decode(codec, "ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize(("number", "codec"), CODECS.items())
def test_the_published_pages_are_mended_byte_for_byte(seeds, number, codec):
    damaged = seeds[number]
    sound = damaged.decode().encode(codec)
    document = parse_plan(damaged)
    assert [found.read_as for found in document.encoding] == [codec]
    assert [repair.code for repair in document.repairs] == ["encoding"]
    assert document.understood
    assert not document.all_diagnostics
    again = parse_plan(json.dumps(document.to_json()))
    assert render_plan(again, "page").encode() == sound
    assert render_plan(parse_plan(sound), "page").encode() == sound


@pytest.mark.parametrize("number", CODECS)
def test_the_normal_layout_is_the_published_one(seeds, number):
    document = parse_plan(seeds[number])
    bare = document.model_copy(
        update={
            "page": document.page.model_copy(update={"head": None, "middle": None, "tail": None}),
            "items": tuple(item.model_copy(update={"source": None}) for item in document.items),
        }
    )
    assert render_plan(bare, "page") == render_plan(document, "page")
    assert render_plan(bare, "page").encode() == seeds[number].decode().encode(CODECS[number])


def test_what_the_published_pages_say(seeds):
    read = {number: parse_plan(data) for number, data in seeds.items()}
    assert [(d.page.model, d.page.task, len(d.items)) for d in read.values()] == [
        ("o3-mini", "author", 5),
        ("llama-3.1-405b-instruct", "reviewer", 2),
        ("gpt-4o", "reviewer", 2),
        ("o3-mini", "reviewer", 2),
    ]
    assert [entry.name for entry in read["001"].plan.entries] == ["Ablation Study 1", "Ablation Study 2"]
    samples, scale, trick, *_ = read["000"].plan.entries
    assert [(v.kind, v.value, v.text) for v in samples.values] == [("integer", n, str(n)) for n in (1, 4, 8)]
    assert (scale.values[0].kind, scale.values[0].value, scale.values[0].text) == ("number", 0.001, "1e-3")
    assert (trick.action, trick.replacement) == ("REMOVE", None)
    assert read["003"].plan.entries[0].values[0].to_json() == {"text": "5%", "kind": "percent", "value": 5.0}
    assert read["002"].plan.entries[0].metrics[2] == "Gradient Conflict Index (GCI)"
    assert "ε" in read["000"].trace
    assert "adapters’ outputs" in read["003"].trace


@pytest.mark.parametrize("codec", ["cp1252", "mac_roman", "latin-1"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_damage_is_undone_however_often_it_happened(page, codec, rounds):
    damaged = page
    for _ in range(rounds):
        damaged = misread(damaged, codec)
    document = parse_plan(damaged)
    assert render_plan(document, "page") == page
    assert [(found.read_as, found.rounds) for found in document.encoding] == [(codec, rounds)]


def test_windows_1252_with_bytes_that_it_leaves_out(page):
    page = page.replace("\N{BRAIN}", "\N{MEMO}")  # its UTF-8 has 9D, which Python's cp1252 refuses and browsers do not
    assert render_plan(parse_plan(misread(page, "cp1252")), "page") == page


def test_a_legitimate_capital_a_with_tilde_stays(page):
    for text in ("SÃO PAULO", "IRMÃ", "Ã", "ÜBER » Ü»"):
        named = page.replace("### Scale", f"### {text}")
        assert render_plan(parse_plan(named), "page") == named
        assert not parse_plan(named).encoding
        row = f'{{"name": "{text}", "ablated_part": "b", "action": "REMOVE", "replacement": null, "metrics": ["c"]}}'
        document = parse_plan(row)
        assert document.plan.entries[0].name == text
        assert not document.repairs


@pytest.mark.parametrize("text", ["TO DO: MENÜ»", "SÃO and cafÃ©", "É°"])
def test_two_bytes_alone_are_weak_evidence(text):
    row = f'{{"name": "{text}", "ablated_part": "b", "action": "REMOVE", "replacement": null, "metrics": ["c"]}}'
    assert parse_plan(row).plan.entries[0].name == text


def test_everyday_letters_alone_are_put_back():
    row = '{"name": "cafÃ© Î± Â± Ð¶", "ablated_part": "b", "action": "REMOVE", "replacement": null, "metrics": ["c"]}'
    document = parse_plan(row)
    assert document.plan.entries[0].name == "café α ± ж"
    assert document.encoding[0].read_as == "cp1252"


def test_a_legitimate_capital_a_with_tilde_stays_beside_damage(page):
    damaged = misread(page, "cp1252").replace("### Scale", "### SÃO PAULO")
    document = parse_plan(damaged)
    assert render_plan(document, "page") == page.replace("### Scale", "### SÃO PAULO")
    assert document.encoding[0].left == 1


def test_damage_quoted_on_a_sound_page_stays_and_is_pointed_out(page):
    quoted = page.replace("Why", "Text such as â€™ is mojibake. Why")
    document = parse_plan(quoted)
    assert render_plan(document, "page") == quoted
    assert [found.code for found in document.all_diagnostics] == ["encoding-doubtful"]
    assert document.understood


def test_nothing_depends_on_the_signs_in_headings(page):
    plain = page.replace("\N{BRAIN} ", "").replace("\N{CLIPBOARD} ", "")
    assert parse_plan(plain).plan == parse_plan(page).plan
    assert render_plan(parse_plan(plain), "page") == plain


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("### Scale\n", "###   Scale  \n"),
        ("- **Action**: REMOVE", "*  **action:** REMOVE\t"),
        ("  - 4\n", "\t-\t4 \n"),
        ("- **Metrics**: peak", "- **Metrics**:\tpeak"),
        ("- **Metrics**: peak memory\n\n", "- **Metrics**: peak memory\n\n\n\n"),
        ("\n</div>", "\n</div>\n"),
        ("- **Replacement**: \n  - 1\n", "- **Replacement**:\n\n  - 1\n"),
    ],
)
def test_other_spacing_is_understood_and_kept(page, old, new):
    assert old in page
    changed = new.join(page.rsplit(old, 1))
    document = parse_plan(changed)
    assert document.plan == parse_plan(page).plan
    assert not document.all_diagnostics
    assert render_plan(document, "page") == changed


def test_an_edited_entry_or_fact_is_written_and_the_rest_is_kept(page):
    spaced = page.replace("  - 4\n", "  -   4\n").replace("### No seed trick", "###  No seed trick")
    document = parse_plan(spaced)
    first = document.items[0]
    edited = first.model_copy(update={"entry": first.entry.model_copy(update={"name": "Samples"})})
    text = render_plan(document.model_copy(update={"items": (edited, *document.items[1:])}), "page")
    assert text == page.replace("SPSA samples\n", "Samples\n", 1).replace("### No seed trick", "###  No seed trick")
    retitled = document.model_copy(update={"page": document.page.model_copy(update={"paper": "lozo"})})
    assert render_plan(retitled, "page") == spaced.replace("/mezo", "/lozo")
    without = document.model_copy(update={"items": document.items[1:]})
    assert parse_plan(render_plan(without, "page")).plan.entries == document.plan.entries[1:]


def test_a_hand_edited_document_must_agree_with_itself(document):
    rows = document.to_json()
    rows["items"][0]["entry"]["replacement"][0]["value"] = 9
    with pytest.raises(InputError, match="change both together"):
        parse_plan(json.dumps(rows))
