"""Whatever plan is written is read again as it was; whatever bytes come, the reader answers or says why not."""

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from optaware.errors import InputError
from optaware.plan import parse_plan, render_plan
from optaware.plan._mojibake import mend
from optaware.records import AblationEntry, PageFacts, PlanDocument, PlanItem, PlanValue, parse_record

LETTERS = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029")


def line(**sizes):
    return st.text(LETTERS, **sizes).map(str.strip)


def name_like(text):
    return bool(text)


words = line(min_size=1, max_size=30).filter(name_like)
metrics = st.lists(
    st.sampled_from(["accuracy", "F1 (macro, micro)", "GPU-hours", "Gradient Conflict Index (GCI)", "mAP@[.5, .95]"])
    | st.text(st.characters(whitelist_categories=("Ll", "Lu", "Nd")), min_size=1, max_size=12),
    max_size=4,
).map(tuple)
page_values = (
    st.integers(-(10**20), 10**20).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.sampled_from(
        ["1e-3", "5%", "12.5 %", "lr=1e-3", "a=1, b=x", "None", "True", "1:3", "007", "[1, 'a']", "{'a': [1.5]}"]
    )
    | line(max_size=30)
).map(PlanValue.read)
json_texts = line(max_size=30).map(lambda text: PlanValue(text=text, kind="text", value=text))
json_values = page_values.filter(lambda value: value.kind not in ("text", "percent", "pair")) | json_texts.filter(
    lambda value: PlanValue.read(value.text).kind not in ("percent", "pair")
)
named = st.dictionaries(
    line(max_size=8), page_values.filter(lambda v: v.kind in ("integer", "number", "percent")), max_size=3
)


def entries(values):
    return st.builds(
        AblationEntry,
        name=words,
        ablated_part=words,
        action=st.sampled_from(["REPLACE", "REMOVE", "ADD"]),
        replacement=st.none() | st.lists(values, max_size=4).map(tuple) | named,
        metrics=metrics,
    )


def documents(values):
    return st.builds(
        lambda items, task, trace, title: PlanDocument(
            read_from="jsonl",
            page=PageFacts(task=task, model=title[0], paper=title[1]),
            trace=trace or None,
            items=tuple(PlanItem(entry=entry) for entry in items),
        ),
        st.lists(entries(values), min_size=1, max_size=4),
        st.sampled_from(["author", "reviewer"]),
        st.text(LETTERS | st.just("\n"), max_size=80).filter(lambda text: not text.startswith("\n")),
        st.sampled_from([("o3-mini", "mezo"), ("vendor/model", "Some_Paper__Of_1")]),
    )


def sound(text):
    """Text that happens to be what mis-read UTF-8 looks like (an Î before a no-break space) is rightly put back."""
    assume(not mend(text)[1])
    return text


@given(documents(page_values))
def test_a_page_reads_as_the_plan_it_was_written_from(document):
    text = sound(render_plan(document, "page"))
    read = parse_plan(text.encode())
    assert (read.plan, read.trace) == (document.plan, document.trace)
    assert read.understood
    assert not read.repairs
    assert render_plan(read, "page") == text
    assert parse_plan(json.dumps(read.to_json())) == read


@given(documents(page_values))
def test_markdown_reads_as_the_plan_it_was_written_from(document):
    text = sound(render_plan(document, "md"))
    read = parse_plan(text.encode())
    assert read.plan == document.plan
    assert (read.trace or "").strip("\n") == (document.trace or "").strip("\n")
    assert render_plan(read, "md") == text


@given(documents(json_values))
def test_jsonl_reads_as_the_plan_it_was_written_from(document):
    text = sound(render_plan(document, "jsonl"))
    read = parse_plan(text.encode())
    assert read.plan.entries == document.plan.entries
    assert render_plan(read, "jsonl") == text
    rows = "[" + ",\n".join(text.splitlines()) + "]"
    assert parse_plan(rows).plan.entries == document.plan.entries
    reply = f"<discussion>\nwhy\n</discussion>\n<predictions>\n```json\n{text}```\n</predictions>"
    assert parse_plan(reply).plan.entries == document.plan.entries


@given(documents(page_values), st.sampled_from(["cp1252", "mac_roman", "latin-1"]))
def test_a_page_read_in_the_wrong_encoding_is_put_back(document, encoding):
    page = sound(render_plan(document, "page"))
    try:
        damaged = page.encode().decode(encoding)
    except UnicodeDecodeError:
        return
    if not any(unicodedata.category(char) in ("Co", "Cn") for char in page):
        assert render_plan(parse_plan(damaged), "page") == page


PIECES = st.sampled_from(
    [
        b"### ",
        b"- **Ablated Part**: ",
        b"- **Action**: ",
        b"REMOVE",
        b"- **Replacement**: \n",
        b"  - ",
        b"\n",
        b"{",
        b"}",
        b'"',
        b"[",
        b"]",
        b",",
        b'"name"',
        b":",
        b"\\",
        b"<predictions>",
        b"</predictions>",
        b"<discussion>",
        b"```",
        b"x",
        b'<div class="trajectory-box">\n',
        b"<h2>a</h2>\n",
        b"</div>\n",
        b"# lm-planner/a/b\n",
        b"\xf0\x9f",
        b"\xc3\x83",
        b'{"name": "a", "ablated_part": "b", "action": "ADD", "replacement": ',
        b"\r\n",
        b"1e999",
        b"'",
        b"(",
        b"\t",
        b"%",
        b"## Ablation Plan\n",
        b"## Reasoning Trace\n",
        b"\xff\xfe",
        b"\\ud800",
        b"{'a': 1}",
        b'{"format": "optaware-plan/1"',
    ]
)


@pytest.mark.parametrize("make", [st.binary(max_size=400), st.lists(PIECES, max_size=60).map(b"".join)])
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_give_a_plan_or_an_input_error(make, data):
    raw = data.draw(make)
    try:
        document = parse_plan(raw, "fuzz")
    except InputError:
        return
    for to in ("page", "jsonl", "md"):
        render_plan(document, to).encode()
    assert parse_record(PlanDocument, json.loads(json.dumps(document.to_json())), "again") == document
    if document.read_from == "page" and not document.repairs and not any(item.repairs for item in document.items):
        assert render_plan(document, "page").encode() == raw
