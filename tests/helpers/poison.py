"""Put a stored-XSS payload behind every text of a view, each the same way, so that look-ups by name still work."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

PAYLOADS = (
    "\"'><img src=x onerror=\"window.taken='img'\">",
    "</title></style></script><script>window.taken='script'</script>",
    "</text></svg><svg onload=\"window.taken='svg'\"><animate onbegin=\"window.taken='begin'\" attributeName=x dur=1s>",
    "' onfocus='window.taken=1' autofocus x='<iframe srcdoc=\"<script>parent.taken='frame'</script>\">",
    "javascript:window.taken='url' <a href=\"javascript:window.taken='link'\">go</a>"
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    ']]>--><!--<form action=//evil.example><input name=a><button formaction="javascript:window.taken=2">b</button>',
    "{{ 7*7 }}${7*7}<link rel=stylesheet href=//evil.example/x.css><base href=//evil.example/>",
    "&lt;img src=x onerror=window.taken=3&gt;&#60;script&#62;window.taken=4&#60;/script&#62;",
    "<details open ontoggle=\"window.taken='toggle'\"><summary>s</summary></details><object data=//evil.example>",
    "\u202e<math><mtext></form><form><mglyph><style></math><img src onerror=window.taken='mxss'>",
)
ELEMENTS = (
    "img, iframe, object, embed, base, form[action], link:not([href='data:,']), a[href^='javascript'], math, "
    "[onerror], [onload], [onfocus], [ontoggle], [onbegin], meta[http-equiv=refresh]"
)
"""What a payload would make; no page of ours has any of it."""


@cache
def constants() -> frozenset[str]:
    """Texts that the code itself names: outcomes, kinds, names of methods. They are not the user's."""
    root = Path(__file__).parents[2] / "src" / "optaware"
    found: set[str] = set()
    for folder in ("report", "records", "study", "stats"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    templates = "\n".join(path.read_text("utf-8") for path in (root / "report" / "templates").glob("*.jinja"))
    return frozenset(found | {word for word in templates.replace('"', "'").split("'") if len(word) < 40})


def poison(value: Any, payload: str, keep: frozenset[str] = frozenset()) -> Any:
    """A copy of `value` whose texts all end in `payload`, but those of `keep` and those that the code knows."""
    if isinstance(value, str):
        return value if not value.strip() or value in constants() | keep else value + payload
    if isinstance(value, pydantic.BaseModel):
        return value.model_copy(
            update={name: poison(getattr(value, name), payload, keep) for name in type(value).model_fields}
        )
    if is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for each in fields(value):
            object.__setattr__(made, each.name, poison(getattr(value, each.name), payload, keep))
        return made
    if isinstance(value, Mapping):
        return {poison(key, payload, keep): poison(item, payload, keep) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(poison(item, payload, keep) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(poison(item, payload, keep) for item in value)
    return value
