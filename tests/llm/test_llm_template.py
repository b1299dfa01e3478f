"""Templates: what they render, what they refuse, and where they say a fault is."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaware._io import text_sha256
from optaware.errors import InputError
from optaware.llm import load_template

TEXT = """---
description: a test
scale: 1e-3
---
{% for name, value in given %}
{{ name }}: {{ value }}
{% endfor %}
Now: {{ text }}
"""


def test_a_file_with_front_matter_and_its_text_are_the_same_template(tmp_path):
    (tmp_path / "t.jinja").write_text(TEXT)
    from_file, by_name, from_text = (
        load_template(tmp_path / "t.jinja"),
        load_template(str(tmp_path / "t.jinja")),
        load_template(TEXT),
    )
    assert from_file.id == by_name.id == from_text.id == text_sha256(TEXT)
    assert from_file.meta == {"description": "a test", "scale": 0.001}
    assert from_file.variables == {"given", "text"}
    assert from_file.render(given=[("a", 1), ("b", 2)], text="x") == "a: 1\nb: 2\nNow: x"


def test_line_ends_and_marks_of_other_systems_do_not_change_the_id(tmp_path):
    (tmp_path / "t.jinja").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_template(tmp_path / "t.jinja").id == load_template(TEXT).id


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_data_comes_out_verbatim(text):
    assert load_template("<{{ x }}|{{ x ~ '' }}>").render(x=text) == f"<{text}|{text}>"


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% for %}", "{# gone #}", "a }} b", "{{", "<b>&amp;</b>", "{{ x }}", "---\na: 1\n---\n"]
)
def test_marks_in_data_mean_nothing(text):
    assert load_template("[{{ x }}]").render(x=text) == f"[{text}]"
    assert load_template("[{{ xs | join(' ') }}]").render(xs=[text, text]) == f"[{text} {text}]"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("{{ nope }}", 5),
        ("one\n\ntwo {{ nope }}", 7),
        ("{% for i in [1] %}\n{% if nope %}x{% endif %}\n{% endfor %}", 6),
        ("{{ row.nope }}", 5),
        ("{% macro m() %}\n{{ nope }}\n{% endmacro %}\n{{ m() }}", 6),
    ],
)
def test_a_missing_variable_is_named_with_file_and_line(body, line, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("---\na: 1\nb: 2\n---\n" + body)
    with pytest.raises(InputError, match="template-variable") as caught:
        load_template(path).render(row={"yes": 1}, other=1)
    problem = caught.value.problems[0]
    assert "nope" in problem.given
    assert problem.where == f"{path}:{line}"
    assert "other, row" in problem.next


@pytest.mark.parametrize(
    ("text", "where"),
    [("a\n{% if %}", "t:2"), ("a\nb {{ x | nofilter }}", "t:2"), ("{{ x", "t:1"), ("{% endfor %}", "t:1")],
)
def test_a_syntax_error_says_where(text, where):
    with pytest.raises(InputError, match="template-malformed") as caught:
        load_template(text, name="t")
    assert caught.value.problems[0].where == where


def test_front_matter_must_be_a_mapping_and_valid():
    for text in ("---\n- a\n---\n{{ x }}", "---\na: [\n---\n{{ x }}", "---\na: 1\na: 2\n---\n{{ x }}"):
        with pytest.raises(InputError):
            load_template(text, name="t")


def test_a_missing_file_is_an_input_error(tmp_path):
    for source in (tmp_path / "none.jinja", str(tmp_path / "none.jinja"), tmp_path):
        with pytest.raises(InputError, match="file-missing"):
            load_template(source)


DOUBLE = (
    "{%% set ns = namespace(s=%s) %%}{%% for i in range(60) %%}{%% set ns.s = %s %%}{%% endfor %%}{{ ns.s | string }}"
)

REFUSED = {
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "loops over text": "{% for i in t %}{% for j in t %}{% endfor %}{% endfor %}",
    "long range": "{% for i in range(10**8) %}{% endfor %}",
    "product": "{{ 'a' * 10**9 }}",
    "product the other way round": "{{ 10**9 * 'a' }}",
    "power": "{{ 9 ** 99999 }}",
    "doubling by ~": DOUBLE % ("'aaaa'", "ns.s ~ ns.s"),
    "doubling by +": DOUBLE % ("'aaaa'", "ns.s + ns.s"),
    "doubling by join": DOUBLE % ("'aaaa'", "[ns.s, ns.s] | join"),
    "doubling a list": DOUBLE % ("['aaaa']", "ns.s + ns.s"),
    "doubling by sum": DOUBLE % ("['aaaa']", "[ns.s, ns.s] | sum(start=[])"),
    "nesting": DOUBLE % ("['aaaa']", "[ns.s, ns.s]"),
    "doubling by blocks": "{% set a %}xxxx{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60 + "{{ a }}",
    "constant text in a loop": "{% for i in range(90000) %}" + "y" * 1000 + "{% endfor %}",
    "padding filter": "{{ 'a' | center(10**9) }}",
    "padding method": "{{ 'a'.zfill(10**9) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format operator": "{{ '%1000000000d' % 1 }}",
    "replace": "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}",
    "indent": "{{ ('a\n' * 9999) | indent('x' * 99999) }}",
    "wide recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "deep recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'base' %}",
    "changing data": "{{ data.append(1) }}",
    "own marks": "{{ 3 | optaware_constant }}",
    "random": "{{ [1, 2] | random }}",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_template_cannot_get_out_or_out_of_hand(kind):
    data = [1]
    with pytest.raises(InputError):
        load_template(REFUSED[kind], name="t").render(t="x" * 1000, data=data)
    assert data == [1]


def test_ordinary_jinja_works_under_the_bounds():
    template = load_template(
        "{% macro row(a, b) %}{{ a }}={{ b }}{% endmacro %}"
        "{% for k, v in rows %}{{ loop.index }}/{{ loop.length }} {{ row(k, v | upper) }}"
        "{{ ', ' if not loop.last }}{% endfor %}"
        " {{ rows | map(attribute=0) | join('+') }} {{ 'ab' * 2 }} {{ 7 // 2 }} {{ text | replace('a', 'b') | trim }}"
        " {% if extra is defined %}{{ extra }}{% else %}none{% endif %} {{ {'a': [1, 2]} | tojson }}"
    )
    out = template.render(rows=[("x", "p"), ("y", "q")], text=" cat ")
    assert out == '1/2 x=P, 2/2 y=Q x+y abab 3 cbt none {"a": [1, 2]}'


def test_every_render_has_an_allowance_of_its_own():
    template = load_template("{% for i in range(90000) %}{{ i }}{% endfor %}")
    lengths = []
    threads = [threading.Thread(target=lambda: lengths.append(len(template.render()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(lengths)) == 1
    assert len(lengths) == 3
