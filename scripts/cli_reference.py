"""Print the command line's reference in Markdown, as the program itself describes it.

python scripts/cli_reference.py        # print
cog -r docs/cli.md                     # put it into the page
"""

from __future__ import annotations

import re


def reference() -> str:
    """All commands with their options."""
    from optaware.cli._app import app

    text = app.generate_docs(output_format="markdown")
    # Started as `python -m cogapp`, cyclopts takes that for the way in which the program is called.
    text = text.replace(" -m cogapp", "")
    return re.sub(r"\n{3,}", "\n\n", text.partition("\n")[2]).strip()


if __name__ == "__main__":
    print(reference())
