"""Prompts of task files: sandboxed Jinja in which an unknown name is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from optaware.errors import InputError, ProblemList

if TYPE_CHECKING:
    from jinja2 import Environment, Template

__all__ = ["compile_template", "fill"]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Imported here: built-in tasks need no templates, and a config is read without Jinja.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # autoescape stays off: prompts are plain text, no web page.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def compile_template(text: str, known: Iterable[str], what: str, problems: ProblemList, where: str) -> Template | None:
    """Compile a template and check that it uses only known names; faults are added to `problems`.

    Args:
        text: The template.
        known: Names that may be used.
        what: Which entry of the file it is, for the errors.
        problems: Where faults go.
        where: File and line.
    """
    from jinja2 import TemplateError, meta

    environment = _environment()
    known = sorted(known)
    try:
        tree = environment.parse(text)
        unknown = sorted(meta.find_undeclared_variables(tree) - set(known))
        template = environment.from_string(text)
    except (TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        at = f" (line {line} of the template)" if line else ""
        problems.add("template-malformed", what, f"{error}{at}", "Correct the Jinja template.", where)
        return None
    for name in unknown:
        problems.add(
            "template-name-unknown",
            f"{what} uses {name!r}",
            "the task has no such field",
            f"Use one of: {', '.join(known)}.",
            where,
        )
    return template


def fill(template: Template, values: Mapping[str, Any], what: str, where: str) -> str:
    """Fill a template; raises `InputError` when it cannot be done with these values."""
    try:
        return template.render(values)
    except Exception as error:  # whatever an expression in a user's template can raise
        raise InputError.of(
            "template-failed",
            what,
            f"{type(error).__name__}: {error}",
            "Correct the template or the row.",
            where,
        ) from error
