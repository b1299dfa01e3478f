from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from optaware.errors import InputError

__all__ = ["braced", "load_latex"]

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*")
_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]+)\}")
_BRACE = re.compile(r"\\.|[{}]", re.S)
_MAX_CHARS = 20_000_000


def load_latex(path: Path, read: Callable[[Path], str]) -> tuple[Path, str, tuple[str, ...]]:
    r"""A LaTeX tree as one text: comments taken out, `\input` and `\include` followed below the main file's folder.

    Args:
        path: The main file, or the folder that holds it (the file with `\documentclass`).
        read: Decodes a file.

    Returns:
        The main file, the text, and notes on files that were not followed.

    Raises:
        InputError: No main file in the folder, several, or a tree that includes itself without end.
    """
    main = _main(path, read) if path.is_dir() else path
    root = main.parent.resolve()
    notes: list[str] = []

    def expand(file: Path, above: tuple[Path, ...]) -> str:
        text = _COMMENT.sub(r"\1", read(file))

        def follow(found: re.Match[str]) -> str:
            name = found[1].strip()
            target = (root / name).resolve()
            if not target.is_file():
                target = (root / f"{name}.tex").resolve()
            if not target.is_relative_to(root):
                notes.append(f"{name}: outside the paper's folder, not read")
            elif not target.is_file():
                notes.append(f"{name}: included, but there is no such file")
            elif target in above:
                notes.append(f"{name}: includes itself, not read again")
            else:
                return expand(target, (*above, target))
            return found[0]

        made = _INPUT.sub(follow, text)
        if len(made) > _MAX_CHARS:
            why = f"its files together have more than {_MAX_CHARS} characters"
            raise InputError.of("paper-too-large", str(main), why, "Give the paper alone.", str(main))
        return made

    text = expand(main, (main.resolve(),))
    return main, text, tuple(dict.fromkeys(notes))


def _main(folder: Path, read: Callable[[Path], str]) -> Path:
    found = [path for path in sorted(folder.glob("*.tex")) if "\\documentclass" in read(path)]
    if len(found) == 1:
        return found[0]
    named = [path for path in found if path.stem in ("main", "paper", "ms")]
    if len(named) == 1:
        return named[0]
    given = f"{len(found)} files with \\documentclass" if found else "no file with \\documentclass"
    raise InputError.of(
        "paper-main-file", given, "it must be clear where the paper begins", "Name its file.", str(folder)
    )


def braced(text: str, at: int, limit: int = 1_000) -> int:
    """The offset of the brace that closes the one at `at`; -1 when none does within `limit` characters."""
    depth = 0
    for found in _BRACE.finditer(text, at, at + limit):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return -1
