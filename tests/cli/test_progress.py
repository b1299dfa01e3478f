"""What a person sees of jobs as they go."""

import io
from pathlib import Path

from rich.console import Console

from optaware.cli._progress import JobProgress
from optaware.execute import Event, Job, Outcome


def _shown(terminal):
    out = io.StringIO()
    progress = JobProgress()
    progress._console = Console(file=out, force_terminal=terminal, width=100)
    job = Job("ffc9a76ffe88", "sst2-[red]-run", (), Path("log.txt"))
    with progress:
        progress(Event("start", job))
        progress(Event("progress", job, 3, 10, "judge meaning"))
        progress(Event("end", job, outcome=Outcome(job.key, "done")))
    return out.getvalue()


def test_ids_and_titles_are_shown_as_they_are_on_a_terminal():
    # An id that begins with a letter in brackets looks like markup to the terminal library.
    text = _shown(True)
    assert "[ffc9a76ffe88]" in text
    assert "sst2-[red]-run" in text


def test_without_a_terminal_there_are_plain_lines(capsys):
    assert _shown(False) == ""
    assert "done   sst2-[red]-run  [ffc9a76ffe88]" in capsys.readouterr().err
