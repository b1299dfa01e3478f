"""Print a Markdown table of all error codes, read from the source: code, package, what it says.

python scripts/error_codes.py          # print
cog -r docs/errors.md                  # put it into the page
"""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "optaware"
_MAKERS = {"of", "Problem", "add"}


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def codes() -> dict[str, tuple[str, str]]:
    """Code -> (packages that raise it, the first reason that is given with it)."""
    found: dict[str, tuple[set[str], str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 3:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            code = _words(node.args[0])
            if name in _MAKERS and code and " " not in code:
                package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
                packages, why = found.setdefault(code, (set(), ""))
                packages.add(package)
                found[code] = (packages, why or _words(node.args[2]))
    return {code: (", ".join(sorted(packages)), why) for code, (packages, why) in sorted(found.items())}


def table() -> str:
    """The table in Markdown."""
    rows = ["| code | raised by | why, as it is first said |", "|---|---|---|"]
    rows += [f"| `{code}` | {packages} | {why.replace('|', '/')} |" for code, (packages, why) in codes().items()]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
