"""Prompt templates: Jinja text with optional front matter, named by the hash of their content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optaware._io import read_yaml, text_sha256
from optaware.errors import InputError, Problem

if TYPE_CHECKING:
    import jinja2

    from optaware._sandbox import PromptEnvironment

__all__ = ["Template", "load_template"]

_FRONT = re.compile(r"\A---[ \t]*\n(?P<meta>.*?)^---[ \t]*\n", re.DOTALL | re.MULTILINE)
_environments: list[PromptEnvironment] = []


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Attributes:
        id: SHA-256 of `text`: editing the template changes it, moving the file does not.
        name: What it is called in errors: the path, or the name that was given.
        text: The whole text, front matter included, with line ends as `\\n`.
        meta: The front matter's values; empty without one.
        variables: Names that the template takes from outside.
    """

    id: str
    name: str
    text: str
    meta: Mapping[str, Any]
    variables: frozenset[str]
    _compiled: jinja2.Template = field(repr=False, compare=False)
    _offset: int = field(repr=False, compare=False)

    def render(self, **context: Any) -> str:
        """Fill the template. Values are put in as they are: braces in them mean nothing.

        Raises:
            InputError: A variable is missing (named, with file and line), or the template fails or grows out of hand.
        """
        from jinja2 import UndefinedError

        from optaware._sandbox import allowance

        try:
            with allowance():
                return "".join(self._compiled.generate(context))
        except UndefinedError as error:
            known = ", ".join(sorted(context)) or "none"
            problem = Problem(
                "template-variable", str(error), "the template needs it", f"Available: {known}.", self._at(error)
            )
            raise InputError(problem) from error
        except Exception as error:  # an expression may raise anything
            why = "it nests too deeply" if isinstance(error, RecursionError) else f"{type(error).__name__}: {error}"
            raise InputError(
                Problem("template-failed", Path(self.name).name, why, "Correct the template.", self._at(error))
            ) from error

    def _at(self, error: BaseException) -> str:
        """`name:line` of the innermost place within the template."""
        line, step = None, error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == self.name:
                line = step.tb_lineno
            step = step.tb_next
        return self.name if line is None else f"{self.name}:{line + self._offset}"


def load_template(source: Path | str, *, name: str | None = None) -> Template:
    """Read and compile a template.

    A file may start with front matter: YAML between two lines of `---`. Blocks are trimmed (`trim_blocks`,
    `lstrip_blocks`), one newline at the end is dropped, unknown names are errors, and there is nothing to include or
    import.

    Args:
        source: A path; or the text itself, if it has more than one line or holds Jinja marks (`{{`, `{%`, `{#`).
        name: What to call it in errors; by default the path.

    Raises:
        InputError: Missing file, malformed front matter, or a syntax error with file and line.
    """
    if isinstance(source, str) and not re.search(r"\n|\{[{%#]", source):
        source = Path(source)
    shown = name or (str(source) if isinstance(source, Path) else "<template>")
    text = (_read(source, shown) if isinstance(source, Path) else source).replace("\r\n", "\n").removeprefix("\ufeff")
    meta: Any = {}
    body, offset = text, 0
    if front := _FRONT.match(text):
        meta = read_yaml(front["meta"], name=shown) or {}
        body, offset = text[front.end() :], text[: front.end()].count("\n")
        if not isinstance(meta, dict):
            raise InputError(
                Problem(
                    "template-meta",
                    Path(shown).name,
                    "its front matter is no mapping",
                    "Write `name: value` lines.",
                    shown,
                )
            )
    compiled, variables = _compile(body, shown, offset)
    return Template(text_sha256(text), shown, text, meta, variables, compiled, offset)


def _read(path: Path, shown: str) -> str:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(
            Problem("file-missing", shown, "there is no such template file", "Check the path or the name.")
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem("malformed", shown, "not valid UTF-8", "Save it as UTF-8.", shown)) from error


def _compile(body: str, shown: str, offset: int) -> tuple[jinja2.Template, frozenset[str]]:
    from jinja2 import meta

    from optaware._sandbox import MALFORMED, PromptEnvironment, why_malformed

    if not _environments:
        _environments.append(PromptEnvironment())
    environment = _environments[0]
    try:
        variables = meta.find_undeclared_variables(environment.parse(body)) - set(environment.globals)
        code = environment.compile(body, name=shown, filename=shown)
    except MALFORMED as error:
        # Python's own errors count the lines of the code that Jinja made of it
        line = None if isinstance(error, SyntaxError) else getattr(error, "lineno", None)
        why = why_malformed(error)
        where = shown if line is None else f"{shown}:{line + offset}"
        raise InputError(
            Problem("template-malformed", Path(shown).name, why, "Correct the template.", where)
        ) from error
    namespace = environment.make_globals(None)
    return environment.template_class.from_code(environment, code, namespace), frozenset(variables)
