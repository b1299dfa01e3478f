"""Prompts of task files: sandboxed Jinja with bounds on time and size, in which an unknown name is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from optaware.errors import InputError, ProblemList

if TYPE_CHECKING:
    from jinja2 import Template

    from optaware._sandbox import PromptEnvironment

__all__ = ["compile_template", "fill"]


@lru_cache(maxsize=1)
def _environment() -> PromptEnvironment:
    # Imported here: built-in tasks need no templates, and a config is read without Jinja.
    from optaware._sandbox import PromptEnvironment

    return PromptEnvironment(trim_blocks=False, keep_trailing_newline=True)


def compile_template(text: str, known: Iterable[str], what: str, problems: ProblemList, where: str) -> Template | None:
    """Compile a template and check that it uses only known names; faults are added to `problems`.

    Args:
        text: The template.
        known: Names that may be used.
        what: Which entry of the file it is, for the errors.
        problems: Where faults go.
        where: File and line.
    """
    from jinja2 import meta

    from optaware._sandbox import MALFORMED, why_malformed

    environment = _environment()
    known = sorted(known)
    try:
        tree = environment.parse(text)
        unknown = sorted(meta.find_undeclared_variables(tree) - set(known))
        template = environment.from_string(text)
    except MALFORMED as error:
        line = None if isinstance(error, SyntaxError) else getattr(error, "lineno", None)
        at = f" (line {line} of the template)" if line else ""
        problems.add("template-malformed", what, f"{why_malformed(error)}{at}", "Correct the Jinja template.", where)
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
    """Fill a template; raises `InputError` when it cannot be done with these values, or grows out of hand."""
    from optaware._sandbox import allowance

    try:
        with allowance():
            return template.render(values)
    except Exception as error:  # whatever an expression in a user's template can raise
        raise InputError.of(
            "template-failed",
            what,
            f"{type(error).__name__}: {error}",
            "Correct the template or the row.",
            where,
        ) from error
