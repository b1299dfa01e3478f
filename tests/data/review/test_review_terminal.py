"""Reviewing in the terminal: by lines from a pipe, and by single keys in a pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time

from rich.console import Console

from optaware.data.review import read_labels, review_in_terminal, write_pairs

from .conftest import PAIRS


def run(review, text):
    out = io.StringIO()
    left = review_in_terminal(review, keys=io.StringIO(text), console=Console(file=out, width=100, highlight=False))
    return left, out.getvalue()


def test_lines_from_a_pipe_label_pairs(open_review, tmp_path):
    left, shown = run(open_review(), "s\nt\ntwo vases\nm\nu\nb\nq\n")
    assert left == 1
    labels = [(label.answer, label.note, label.undo) for label in read_labels(tmp_path / "labels.jsonl")]
    assert labels == [
        ("same", "", False),
        ("not the same", "two vases", False),
        ("withdrawn", "", True),
        ("not the same", "", False),
    ]
    assert "The baker [-closed-] the shop." in shown
    assert "The baker {+shut+} the shop." in shown
    assert "Options: a | b" in shown


def test_filters_help_and_the_end_of_input(open_review):
    review = open_review()
    left, shown = run(review, "x\n?\nj\nv\nf\nf\nf\nv\nj\nk\n")
    assert left == 2
    assert "Nothing here" in shown
    assert "⟨U+202E⟩" in shown
    assert "[/" not in shown  # text in brackets is never markup
    assert review.counts()["skipped"] == 1


def test_single_keys_in_a_terminal(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    command = [sys.executable, "-m", "optaware", "data", "review", "pairs.jsonl", "--terminal", "--labeller", "ann"]
    parent, child = pty.openpty()
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, cwd=tmp_path) as process:
        os.close(child)
        seen = b""

        def until(text):
            nonlocal seen
            began = time.monotonic()
            while text not in seen:
                assert time.monotonic() - began < 60, seen
                if select.select([parent], [], [], 0.2)[0]:
                    seen += os.read(parent, 65536)
            seen = b""

        until(b"0 of 3 done")
        os.write(parent, b"s")
        until(b"1 of 3 done")
        os.write(parent, b"\x1b[C")  # right arrow
        until(b"3 of 3")
        os.write(parent, b"t")
        until(b"Note:")
        os.write(parent, b"a note\n")
        until(b"saved with your answer")
        os.write(parent, b"n")
        until(b"2 of 3 done")
        os.write(parent, b"q")
        until(b"2 of 3 done, 1 same, 1 not the same, 0 skipped")
        assert process.wait(30) == 0
    os.close(parent)
    labels = read_labels(tmp_path / "pairs.labels.jsonl")
    assert [(label.answer, label.note) for label in labels] == [("same", ""), ("not the same", "a note")]
