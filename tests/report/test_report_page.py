import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

VOID = {"meta", "link", "br", "input", "line", "use", "path", "rect", "image"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.ids, self.targets, self.scripts, self.urls, self.handlers, self.open = [], [], [], [], [], []
        self.text = []
        self.unbalanced = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("href", "src", "xlink:href", "action", "data"):
            if name in values:
                (self.targets if values[name].startswith("#") else self.urls).append(values[name])
        self.handlers += [name for name in values if name.startswith("on")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.unbalanced.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def html(report):
    return report.html.read_text("utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_is_well_formed(page):
    assert page.unbalanced == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets} <= set(page.ids)


def test_the_page_needs_nothing_from_outside(page, html):
    assert sorted(set(page.urls)) == [
        *("cells.csv", "choices.csv", "contrasts.csv", "corpora.csv", "data:,", "report.md", "report.tex", "runs.csv")
    ]
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert re.findall(r"https?://", re.sub(r"xmlns[^ ]*=\"[^\"]*\"", "", html)) == []


def test_only_the_page_s_own_script_may_run(page, html):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert "default-src 'none'" in policy
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert page.handlers == []


def test_what_records_say_is_shown_as_text(page, html):
    assert "<script>alert" not in html
    assert "<script>alert('x')</script>" in "".join(page.text)
    assert "{{ 7*7 }}" in "".join(page.text)


def test_plots_have_names_and_follow_the_theme(html):
    svgs = re.findall(r"<svg[^>]*role=\"img\"[^>]*>.*?</svg>", html, flags=re.DOTALL)
    # A forest plot per question; three panels per task and method; two of accuracy against cost per task.
    assert len(svgs) == 4 + 4 * 3 + 2 * 2
    for svg in svgs:
        assert re.search(r'aria-label="[^"]{40,}"', svg)
        assert "<text" in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000"}
        assert "<metadata" not in svg
    assert "paraphrase ends at" in html


def test_every_number_leads_to_its_runs(page, disk):
    from optaware.records import short_id

    for _, spec in disk.runs:
        assert f"run-{short_id(spec)}" in page.ids
    assert sum(target.startswith("#run-") for target in page.targets) > 100


def test_tables_are_accessible(html):
    tables = html.count("<table")
    assert tables >= 8
    assert html.count("<caption>") == tables
    assert "<th>" not in html  # every header cell has a scope
    assert html.count('role="region"') == tables
    for landmark in ("<header>", "<nav aria-label", "<main>", "<footer>"):
        assert landmark in html


def test_the_same_records_give_the_same_bytes(disk, report, make, tmp_path):
    from optaware.report import build_report, load_report_corpus, load_report_run

    runs = [load_report_run(folder) for folder, _ in reversed(disk.runs)]
    corpora = [load_report_corpus(path) for path in disk.corpora]
    again = build_report(disk.study, runs, corpora, tmp_path, choices=make.choices(disk))
    names = ["report.html", "report.md", "contrasts.csv", "corpora.csv", "runs.csv"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (report.html.parent / name).read_bytes(), name
    assert again.html == tmp_path / "report.html"


def test_markdown_tables_keep_their_columns(report):
    rows = 0
    columns = None
    for line in report.markdown.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        columns = columns or cells
        assert cells == columns, line
        rows += 1
    assert rows > 100


def test_markdown_shows_what_records_say_as_text(report):
    text = report.markdown.read_text("utf-8")
    assert "<script" not in text
    assert (
        "&lt;script&gt;alert('x')&lt;/script&gt; &amp; \"quotes\" \\| pipes \\| \\`ticks\\` \\${dollar} {{ 7\\*7 }}"
        in text
    )
    assert "## What this study cannot show" in text


def test_markdown_keeps_the_spaces_around_changed_words(report):
    text = report.markdown.read_text("utf-8")
    assert "this film is really" in text  # three new words among old ones
    assert not re.search(r"\w(?:this film is really|do not ever)|(?:this film is really|do not ever)\w", text)


def test_markdown_tables_are_in_one_piece(report):
    lines = report.markdown.read_text("utf-8").splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"\|(?:-+\|)+", line)]
    assert len(rules) > 5
    for number in rules:
        assert lines[number - 1].startswith("|"), lines[number - 1 : number + 2]
        assert lines[number + 1].startswith("|"), lines[number - 1 : number + 2]
    pieces = re.split(r"\n(?!\|)", "\n".join(lines))
    assert all(piece.count("\n|--") for piece in pieces if piece.count("\n|") > 1)
