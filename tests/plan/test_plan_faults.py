"""Every fault seen in published plans and replies: mended and recorded, or told; never lost, never guessed."""

import pytest

from optaware.errors import InputError
from optaware.plan import parse_plan, render_plan
from optaware.plan._text import MAX_BYTES

GOOD = '{"name": "%s", "ablated_part": "p", "action": "REMOVE", "replacement": null, "metrics": ["m"]}'
ROW = GOOD % "a"


def codes(document):
    return [repair.code for repair in (*document.repairs, *(r for item in document.items for r in item.repairs))]


def problems(document):
    return [(found.level, found.code) for found in document.all_diagnostics]


def names(document):
    return [entry.name for entry in document.plan.entries]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ROW.replace("REMOVE", "remove"), "action-spelling"),
        (ROW.replace("REMOVE", "**Remove**"), "action-spelling"),
        (ROW[:-1] + ",}", "trailing-comma"),
        (ROW.replace('["m"]', '["m",]'), "trailing-comma"),
        (ROW + ",", None),
        (f"[{ROW},]", None),
        (f"[{ROW}]", None),
        ("\ufeff" + ROW, "byte-order-mark"),
        (f"```json\n{ROW}\n```", "code-fence"),
        (f"- {ROW}", "list-mark"),
        (f"1. {ROW}", "list-mark"),
        (ROW.replace('"', "'").replace("null", "None"), "python-literal"),
        (ROW.replace('["m"]', '"m"'), "metrics-split"),
        (ROW.replace("ablated_part", "Ablated Part"), "field-name"),
        (ROW.replace('"p"', '" p "'), "spaces-trimmed"),
        (ROW.replace('"p"', '"p\\nq"'), "line-joined"),
        (ROW.replace("null", "5"), "replacement-as-list"),
        (ROW.replace('"p"', '"\\ud800"'), "unusable-character"),
        ('{"predictions": [' + ROW + "]}", "wrapper"),
        (ROW.replace('"name": "a"', '"name": 7'), "number-as-text"),
    ],
)
def test_a_json_fault_is_mended_and_recorded(text, code):
    document = parse_plan(text)
    assert document.understood
    assert len(document.plan.entries) == 1
    if code:
        assert code in codes(document)
    if code not in ("field-name", "replacement-as-list", "line-joined", "number-as-text"):
        assert document.plan.entries[0].action == "REMOVE"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ('{"name": "b", "ablated_part": "p", "act', "entry-cut-off"),
        ('{"name": "b" "ablated_part": "p"}', "entry-malformed"),
        (GOOD.replace("REMOVE", "DELETE") % "b", "action-unknown"),
        ('{"name": "b", "action": "REMOVE"}', "field-missing"),
        (GOOD % "", "field-empty"),
        (GOOD.replace('"p"', "[1]") % "b", "field-not-text"),
        (GOOD.replace('["m"]', "[1]") % "b", "metrics-not-text"),
        (GOOD.replace("null", "[1e999]") % "b", "value-unusable"),
        (GOOD.replace("null", "[" * 60 + "]" * 60) % "b", "value-unusable"),
        ("[" * 100 + '{"name": "b", "x": NaN}', "entry-malformed"),
        ('"name": "b", "ablated_part": "p"}', "entry-cut-off"),
        ('{"name": "x", ' + (GOOD % "b")[1:], "entry-malformed"),
    ],
)
def test_one_bad_line_is_told_and_loses_no_other(bad, code):
    document = parse_plan("\n".join([GOOD % "first", bad, GOOD % "last"]))
    assert names(document) == ["first", "last"]
    assert ("error", code) in problems(document)
    assert not document.understood
    assert all(found.line == 2 for found in document.all_diagnostics if found.level == "error")


def test_a_flood_of_warnings_hides_no_error():
    extra = ", ".join(f'"extra{index}": 1' for index in range(50))
    document = parse_plan("{" + extra + ", " + (GOOD.replace("REMOVE", "DELETE") % "b")[1:])
    assert ("error", "action-unknown") in problems(document)
    assert problems(document).count(("warning", "field-ignored")) == 20
    assert problems(document).count(("warning", "more-problems")) == 1


def test_one_bad_element_of_an_array_loses_no_other():
    good = [GOOD % "first", '{"name": "b" "x"}', GOOD % "last"]
    assert names(parse_plan(f"[{', '.join(good)}]")) == ["first", "last"]
    assert names(parse_plan(f"[{GOOD % 'first'}, 7, {GOOD % 'last'}]")) == ["first", "last"]


def test_objects_over_several_lines():
    spread = ROW.replace(", ", ",\n  ").replace("{", "{\n  ").replace("}", "\n}")
    cut = spread[: spread.index('"action"')]
    assert names(parse_plan(f"{spread}\n{cut}\n{spread}\n")) == ["a", "a"]
    assert names(parse_plan(f"Here they are:\n\n{spread}\n\n{spread}")) == ["a", "a"]


def test_a_raw_reply():
    reply = f"<discussion>\nBecause.\n</discussion>\nSo:\n\n<predictions>\n```jsonl\n{ROW}\n```\n</predictions>"
    document = parse_plan(reply)
    assert (document.read_from, document.trace, names(document)) == ("reply", "Because.", ["a"])
    assert document.items[0].line == 8
    assert not document.all_diagnostics


@pytest.mark.parametrize(
    ("reply", "code", "trace"),
    [
        (f"<predictions>{ROW}</predictions>", None, None),
        (f"<discussion>why</discussion><predictions>{ROW}", "tag-not-closed", "why"),
        (f"<discussion>why<predictions>{ROW}</predictions>", "tag-not-closed", "why"),
        (f"<discussion>why</discussion>\n{ROW}", "tags-missing", "why"),
        (f"<DISCUSSION>why</DISCUSSION>\n<Predictions>{ROW}</Predictions>", None, "why"),
        (f"<predictions>{GOOD % 'draft'}</predictions><predictions>{ROW}</predictions>", "several-plans", None),
        (f"Here is the plan.\n{ROW}\nGood luck!", "tags-missing", None),
        (f"Sure!\n```json\n[\n{ROW},\n]\n```", "tags-missing", None),
        (
            "<predictions>\n### a\n- **Ablated Part**: p\n- **Action**: REMOVE\n- **Metrics**: m\n</predictions>",
            None,
            None,
        ),
    ],
)
def test_a_reply_with_missing_parts(reply, code, trace):
    document = parse_plan(reply)
    assert (names(document), document.trace) == (["a"], trace)
    assert document.understood
    if code:
        assert code in codes(document)
    if trace is None and "<" in reply:
        assert ("warning", "trace-missing") in problems(document)


@pytest.mark.parametrize(
    "reply", ["<discussion>a</discussion><predictions></predictions>", "[]", "<predictions>none</predictions>"]
)
def test_an_empty_block_is_no_plan(reply):
    with pytest.raises(InputError) as caught:
        parse_plan(reply)
    assert caught.value.code == "plan-without-entries"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "plan-empty"),
        (b" \n", "plan-empty"),
        (b"just words", "plan-not-recognised"),
        (b"{\0}", "plan-not-text"),
        (b"\xff\xfe\x00", "plan-not-text"),
        (b"x" * (MAX_BYTES + 1), "plan-too-large"),
        (b"x\n" * 200_000, "plan-too-large"),
        (b"{" * 600_000, "plan-too-large"),
        ("\n".join([ROW] * 1001).encode(), "plan-too-large"),
        (b"### a\n- **Ablated Part**: b\n" + b"### a\n" * 1001, "plan-too-large"),
        (b'<div class="trajectory-box">\n</div>', "plan-without-entries"),
        (b'{"format": "optaware-plan/1"}', "field-missing"),
        (b'{"format": "optaware-plan/1", ', "malformed"),
    ],
)
def test_unusable_input_is_refused_with_a_reason(data, code):
    with pytest.raises(InputError) as caught:
        parse_plan(data)
    assert caught.value.code == code


ENTRY = "### a\n- **Ablated Part**: p\n- **Action**: REPLACE\n- **Replacement**: \n  - x\n- **Metrics**: m\n\n"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("REPLACE", "Replace", "action-spelling"),
        ("- **Replacement**: \n  - x\n", "- **Replacement**: None\n", "no-replacement"),
        ("- **Replacement**: \n  - x\n", "- **Replacement**: x\n", "replacement-in-line"),
        ("- **Replacement**: \n  - x\n", "- **Replacement**: ['x', 2]\n", "replacement-in-line"),
        ("**: p\n", "**: p\nq\n", "line-joined"),
    ],
)
def test_a_page_fault_is_mended_recorded_and_written_in_the_normal_layout(page, old, new, code):
    faulty = page.replace("### SPSA", ENTRY.replace(old, new) + "### SPSA")
    document = parse_plan(faulty)
    assert document.understood
    assert code in codes(document)
    again = parse_plan(render_plan(document, "page"))
    assert again.plan == document.plan
    assert not codes(again)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("### a\n", "", "field-missing"),
        ("### a\n", "###\n", "field-empty"),
        ("REPLACE", "SWAP", "action-unknown"),
        ("- **Action**: REPLACE\n", "", "field-missing"),
        ("- **Ablated Part**: p\n", "", "field-missing"),
        ("  - x\n", "  - x\n\nstray words\n", "line-not-understood"),
        ("- **Metrics**: m\n", "- **Metrics**: m\n- **Action**: ADD\n", "field-twice"),
    ],
)
def test_a_bad_entry_of_a_page_keeps_its_place_and_loses_no_other(page, old, new, code):
    bad = ENTRY.replace(old, new)
    faulty = page.replace("### No seed trick", bad + "### No seed trick")
    document = parse_plan(faulty)
    assert ("error", code) in problems(document)
    assert [name for name in names(document) if name != "a"] == ["SPSA samples", "No seed trick", "Scale"]
    assert render_plan(document, "page") == faulty


def test_a_field_that_entries_do_not_have_is_set_aside_with_a_warning(page):
    changed = page.replace("- **Metrics**: peak", "- **Rationale**: because\n  of this\n- **Metrics**: peak")
    changed = changed.replace("  - 8\n", "  - 8\n- **Note:** none\n")
    document = parse_plan(changed)
    assert problems(document) == [("warning", "field-ignored")] * 2
    assert document.plan == parse_plan(page).plan
    assert render_plan(document, "page") == changed
    flat = page.replace("  - 1\n  - 4\n  - 8\n", "- **LoRA**: low rank\n- plain\n")
    assert [value.text for value in parse_plan(flat).plan.entries[0].values] == ["**LoRA**: low rank", "plain"]


def test_values_seen_in_published_plans(page):
    texts = {
        "8": ("integer", 8),
        "-3": ("integer", -3),
        "1e-3": ("number", 0.001),
        "0.50": ("number", 0.5),
        "10%": ("percent", 10.0),
        "12.5 %": ("percent", 12.5),
        "lr=1e-4": ("pair", {"lr": 0.0001}),
        "a=1, b=x y": ("pair", {"a": 1, "b": "x y"}),
        "{'rank': 8, 'on': True}": ("dict", {"rank": 8, "on": True}),
        "[1, 2.5, 'x']": ("list", [1, 2.5, "x"]),
        "None": ("none", None),
        "True": ("bool", True),
        "1:3": ("text", "1:3"),
        "007": ("text", "007"),
        "16 GB": ("text", "16 GB"),
        "1,000": ("text", "1,000"),
        "nan": ("text", "nan"),
        "1e999": ("text", "1e999"),
        "GPT-3": ("text", "GPT-3"),
        "x == y": ("text", "x == y"),
        "{1, 2}": ("text", "{1, 2}"),
        "[f(1)]": ("text", "[f(1)]"),
        "['\\d']": ("list", ["\\d"]),
        "no warm-up\tat all": ("text", "no warm-up\tat all"),
        "first line\nsecond line": ("text", "first line\nsecond line"),
        "": ("text", ""),
    }
    written = "".join(f"  - {text}\n" for text in texts)
    document = parse_plan(page.replace("  - 4\n", written))
    values = document.plan.entries[0].values[1:-1]
    assert [(v.text, v.kind, v.value) for v in values] == [(t, *read) for t, read in texts.items()]
    assert document.understood
    assert render_plan(document, "page") == page.replace("  - 4\n", written)


def test_json_keeps_what_is_text_and_how_numbers_are_written():
    row = ROW.replace("null", '[8, "8", 1e-3, 1.50, "10%", "None", null, {"a": [1]}, "[1]"]')
    document = parse_plan(row)
    kinds = [value.kind for value in document.plan.entries[0].values]
    assert kinds == ["integer", "text", "number", "number", "percent", "text", "none", "dict", "text"]
    assert render_plan(document, "jsonl") == row + "\n"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a, b", ("a", "b")),
        ("F1 (macro, micro), mAP@[.5, .95]", ("F1 (macro, micro)", "mAP@[.5, .95]")),
        ("a (b (c, d), e), f", ("a (b (c, d), e)", "f")),
        ("a (b, c", ("a (b", "c")),
        ("a), b", ("a)", "b")),
        ("a [b) c, d]", ("a [b) c, d]",)),
        ("a,, b,", ("a", "b")),
    ],
)
def test_metrics_are_split_outside_brackets(text, pieces):
    page = f"### a\n- **Ablated Part**: p\n- **Action**: REMOVE\n- **Metrics**: {text}\n"
    assert parse_plan(page).plan.entries[0].metrics == pieces


def test_bytes_that_are_not_utf_8():
    row = ROW.replace('"p"', '"caf\u00e9"')
    document = parse_plan(row.encode("cp1252"))
    assert document.plan.entries[0].ablated_part == "caf\u00e9"
    assert codes(document) == ["not-utf-8"]
    assert parse_plan(row.encode("utf-16")).plan == document.plan
    torn = ROW.replace('"p"', '"— ε — x"').encode().replace(b"x", b"\xff")
    assert parse_plan(torn).plan.entries[0].ablated_part == "— ε — \ufffd"
    assert codes(parse_plan(torn)) == ["invalid-utf-8"]
    assert codes(parse_plan(f"{ROW}\r\n{ROW}\r\n")) == ["line-ends"]
