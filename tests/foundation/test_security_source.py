"""What the source never does, read from its syntax trees: pickle, shells, evaluation, unsafe YAML, remote code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("src", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "pty", "commands"}
CALLS = {
    *(
        "eval",
        "exec",
        "os.system",
        "os.popen",
        "os.execv",
        "os.execvp",
        "os.spawnv",
        "os.spawnl",
        "subprocess.getoutput",
    ),
    *(
        "subprocess.getstatusoutput",
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "pickle.load",
        "pickle.loads",
    ),
    *(
        "tempfile.mktemp",
        "shutil.unpack_archive",
        "zipfile.extractall",
        "torch.jit.load",
        "torch.hub.load",
    ),
    "pandas.read_pickle",
}
SAFE_YAML = {"_StrictLoader", "yaml.SafeLoader"}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {name}" for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {word.arg: word.value for word in node.keywords}
        last = name.rpartition(".")[2]
        if name in CALLS or (last in ("extract", "extractall", "unsafe_load", "full_load")):
            found.append(f"line {node.lineno}: {name}")
        if "shell" in given:
            found.append(f"line {node.lineno}: a shell")
        if (
            name in ("yaml.load", "yaml.compose", "yaml.parse")
            and name_of(given.get("Loader", node.func)) not in SAFE_YAML
        ):
            found.append(f"line {node.lineno}: {name} without a safe loader")
        for word, wanted in (("trust_remote_code", False), ("allow_pickle", False), ("weights_only", True)):
            if word in given and getattr(given[word], "value", None) is not wanted:
                found.append(f"line {node.lineno}: {word} is not {wanted}")
        if name == "torch.load" and "weights_only" not in given:
            found.append(f"line {node.lineno}: torch.load without weights_only")
        if name in ("np.load", "numpy.load") and "allow_pickle" not in given:
            found.append(f"line {node.lineno}: {name} without allow_pickle=False")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_forbidden_is_called(path: Path) -> None:
    assert faults(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from joblib import dump", "eval(text)", "subprocess.run(x, shell=True)", "yaml.load(text)"),
        *(
            "yaml.load(t, Loader=yaml.Loader)",
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
            "np.load(path)",
        ),
        *(
            "archive.extractall(folder)",
            "f(trust_remote_code=True)",
            "os.system(text)",
            "np.load(p, allow_pickle=True)",
        ),
    ],
)
def test_the_scan_sees_what_it_looks_for(line: str) -> None:
    assert faults(line)
