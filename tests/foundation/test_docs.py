"""The documentation says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from optaware._io import read_yaml
from optaware.records import RunSpec, StudySpec, parse_record

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/errors.md", "docs/cli.md"])
def test_references_are_generated_from_the_source(page):
    check = [sys.executable, "-m", "cogapp", "--check", page]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `cog -r {page}`"


def test_the_python_of_the_guide_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for text in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide.md").read_text("utf-8"), flags=re.S):
        exec(compile(text, "guide.md", "exec"), {})
    said = capsys.readouterr().out
    assert "12" in said
    assert "mezo" in said


@pytest.mark.parametrize(("page", "record"), [("study_files.md", StudySpec), ("run_specs.md", RunSpec)])
def test_the_yaml_of_a_page_is_valid(page, record):
    text, *parts = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), flags=re.S)
    for part in parts:  # further snippets are fields that may stand in the first one
        parse_record(record, {**read_yaml(text), **read_yaml(part)}, page)
    parse_record(record, read_yaml(text, name=page), page)


def test_the_python_of_the_readme_runs(capsys):
    for text in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.S):
        exec(compile(text, "README.md", "exec"), {})
    assert "It was" in capsys.readouterr().out


def test_every_link_to_a_file_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_of_the_readme_exists():
    from optaware.cli._app import app

    for line in re.findall(r"^optaware ([a-z-]+)", (ROOT / "README.md").read_text("utf-8"), flags=re.M):
        assert line in app, line
