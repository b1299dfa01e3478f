"""A Jinja environment for templates that others wrote: no files, no imports, and bounds on time and size.

Prompt templates (`llm`) and task files (`tasks`) both render in it, so it stands below both.

Jinja's sandbox keeps a template away from Python; it does not keep it from nesting loops or doubling strings. Here
every loop, call, output and growing operation is charged to the render's allowance, and the render ends when that is
used up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["MALFORMED", "MAX_CHARS", "MAX_SOURCE", "MAX_STEPS", "PromptEnvironment", "allowance", "why_malformed"]

MAX_CHARS = 4_000_000
"""Characters that one render may produce, in all its outputs and intermediate texts together."""
MAX_STEPS = 200_000
"""Loop rounds and calls of one render."""
MAX_SOURCE = 200_000
"""Characters of one template's own text."""
MALFORMED: tuple[type[Exception], ...] = (
    TemplateError,
    RecursionError,
    SyntaxError,
    ValueError,
    MemoryError,
    OverflowError,
)
"""What parsing and compiling can raise: Jinja's own, and Python's when blocks nest deeper than its compiler goes."""
_MAX_NUMBER = {"range": 100_000, "safe_range": 100_000, "tojson": 16}
_MAX_NUMBER_ELSEWHERE = 10_000
_GROWING = frozenset({"replace", "join", "translate", "indent", "wordwrap"})


@dataclass
class _Allowance:
    chars: int = MAX_CHARS
    steps: int = MAX_STEPS

    def take(self, *, chars: int = 0, steps: int = 0) -> None:
        self.chars -= chars
        self.steps -= steps
        if self.chars < 0:
            raise SecurityError(f"the template makes more than {MAX_CHARS} characters")
        if self.steps < 0:
            raise SecurityError(f"the template makes more than {MAX_STEPS} loop rounds and calls")


_allowance: ContextVar[_Allowance] = ContextVar("optaware_template_allowance")


def why_malformed(error: Exception) -> str:
    """The reason in words, for an error of `MALFORMED`."""
    if isinstance(error, TemplateError):
        return getattr(error, "message", None) or str(error) or type(error).__name__
    return f"it cannot be compiled: {getattr(error, 'msg', None) or str(error) or type(error).__name__}"


@contextmanager
def allowance() -> Iterator[None]:
    """Give the render inside the block a fresh allowance."""
    token = _allowance.set(_Allowance())
    try:
        yield
    finally:
        _allowance.reset(token)


def _take(*, chars: int = 0, steps: int = 0) -> None:
    # Constant folding at compile time runs outside a render; refusing there only defers the work to the render.
    current = _allowance.get(None)
    if current is None:
        raise SecurityError("not while compiling")
    current.take(chars=chars, steps=steps)


@pass_context
def _rounds(_: Context, value: Any) -> Any:
    """Charge a loop's rounds; what has no length is charged round by round."""
    if isinstance(value, Sized):
        _take(steps=len(value))
        return value
    return _counted(iter(value))


def _counted(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        _take(steps=1)
        yield item


@pass_context
def _output(_: Context, value: Any) -> Any:
    """Charge what is put out, as the text that it becomes."""
    _charge_nested(value)
    text = value if isinstance(value, str) else str(value)
    _take(chars=len(text))
    return text


@pass_context
def _constant(_: Context, chars: int) -> str:
    _take(chars=chars, steps=1)
    return ""


@pass_context
def _concatenated(_: Context, parts: list[Any]) -> str:
    _charge_nested(parts)
    texts = [part if isinstance(part, str) else str(part) for part in parts]
    _take(chars=sum(map(len, texts)))
    return "".join(texts)


_INTERNAL: dict[str, Callable[..., Any]] = {
    "optaware_rounds": _rounds,
    "optaware_output": _output,
    "optaware_constant": _constant,
    "optaware_concatenated": _concatenated,
}


def _call(name: str, value: nodes.Node, at: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=at.lineno)


def _meter(tree: nodes.Template, environment: Environment) -> None:
    """Put the charges into the syntax tree."""
    for loop in tree.find_all(nodes.For):
        loop.iter = _call("optaware_rounds", loop.iter, at=loop)
    _replace_concatenations(tree)
    for output in list(tree.find_all(nodes.Output)):
        constant = sum(len(child.data) for child in output.nodes if isinstance(child, nodes.TemplateData))
        output.nodes = [
            child if isinstance(child, nodes.TemplateData) else _call("optaware_output", child, at=child)
            for child in output.nodes
        ]
        if constant:
            output.nodes.insert(0, _call("optaware_constant", nodes.Const(constant, lineno=output.lineno), at=output))
    tree.set_environment(environment)


def _replace_concatenations(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _replace_concatenations(child)
            if isinstance(child, nodes.Concat):
                parts = nodes.List(child.nodes, lineno=child.lineno)
                joined = _call("optaware_concatenated", parts, at=child)
                if isinstance(value, list):
                    value[place] = joined
                else:
                    setattr(node, field, joined)


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Sandboxed, strict about names, plain text (no escaping: prompts are no web pages), without a loader."""

    intercepted_binops = frozenset({"*", "**", "+", "%", "//"})

    def __init__(self, *, trim_blocks: bool = True, keep_trailing_newline: bool = False) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=trim_blocks,
            lstrip_blocks=trim_blocks,
            keep_trailing_newline=keep_trailing_newline,
            loader=None,
            cache_size=0,
        )
        for name in ("format", "random", "pprint", "xmlattr", "urlize", "lipsum"):
            self.filters.pop(name, None)
            self.globals.pop(name, None)
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()} | _INTERNAL

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(f"it has more than {MAX_SOURCE} characters", 1, name, filename)
        tree = super()._parse(source, name, filename)
        for use in tree.find_all(nodes.Filter):
            if use.name in _INTERNAL:
                raise SecurityError(f"the filter {use.name!r} is not for templates")
        return tree

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _meter(source, self)
        return super()._generate(source, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse `format` and `format_map`, whose field widths make texts of any length."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("text.format(values) is not allowed in templates; write the values with {{ }}")
        return None

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Charge the call and check its arguments."""
        _take(steps=1)
        _check_arguments(getattr(obj, "__name__", ""), (getattr(obj, "__self__", None), *args), kwargs)
        return _charged(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse products, powers and formats that grow out of hand."""
        if operator == "*" and (isinstance(left, Sized) or isinstance(right, Sized)):
            items, times = (left, right) if isinstance(left, Sized) else (right, left)
            if isinstance(times, int):
                _take(chars=len(items) * max(0, times))
        elif operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            _take(chars=len(left) + len(right))
        elif operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("text % values is not allowed in templates; write the values with {{ }}")
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (max(1, right) if operator == "**" else 1) + right.bit_length()
            if bits > 4096:
                raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)


def _check_arguments(name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    given = [*values, *named.values()]
    _charge_nested(given)
    limit = _MAX_NUMBER.get(name, _MAX_NUMBER_ELSEWHERE)
    if any(isinstance(value, int) and abs(value) > limit for value in given[1:]):
        raise SecurityError(f"a number above {limit} as an argument of {name or 'a call'}")
    if name in _GROWING:
        size = 1
        for value in given:
            size *= len(value) if isinstance(value, Sized) and len(value) else 1
        if size > MAX_CHARS:
            raise SecurityError(f"{name} could make a text of {size} characters")


def _charge_nested(value: Any) -> None:
    """One step for every element at every depth: a list that holds one list many times is short until it is text."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        _take(steps=1 + len(value))
        for item in value:
            if not isinstance(item, str | int | float):
                _charge_nested(item)


def _charged(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict):
        _take(chars=len(value))
    return value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments are checked and whose text is charged."""
    skip = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_arguments(name, args[skip:], kwargs)
        return _charged(function(*args, **kwargs))

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, mark):
            setattr(guarded, mark, getattr(function, mark))
    return guarded
