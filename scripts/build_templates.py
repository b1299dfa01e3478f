"""Build a template from a paper, carry it over to the other tasks, and keep what may be kept in `studies/templates`.

python scripts/build_templates.py --paper mezo.md --optimizer MeZO --llm qwen2.5-coder-1.5b-instruct
python scripts/build_templates.py … --tasks cb rte --keep-only       # ask nothing, copy what is finished

The same command goes on where it stopped. Kept are the templates after each phase, their records and the card. Left out
are phase 1 and all prompts (they quote the paper at length) and, unless --examples is given, the few-shot modules (they
hold rows of the data sets, whose licences differ); without its module the finished template is that of phase 4.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from optaware.cli import main as optaware

KEPT = Path(__file__).parents[1] / "studies" / "templates"
TASKS = ("cb", "rte", "boolq", "arc-c-cloze", "sst2")


def run(*arguments: str) -> int:
    """One optaware command in this process; its exit code."""
    before, sys.argv = sys.argv, ["optaware", *arguments]
    try:
        optaware()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def keep(build: Path, kept: Path, *, examples: bool) -> list[str]:
    """Copy what may be kept of a finished build; the names of the files."""
    card = json.loads((build / "card.json").read_text("utf-8"))
    card["paper"] = Path(card["paper"]).name
    card["source"] = None if card["source"] is None else Path(card["source"]).parent.name
    kept.mkdir(parents=True, exist_ok=True)
    names = ["card.json"]
    (kept / "card.json").write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", "utf-8")
    for phase in sorted(build.glob("phase-[02345]" if examples else "phase-[0234]")):
        for name in ("template.jinja", "phase.json"):
            target = kept / f"{phase.name}.{name.removeprefix('phase.')}"
            shutil.copyfile(phase / name, target)
            names.append(target.name)
    last = build if examples else next(build / f"phase-{n}" for n in (4, 0) if (build / f"phase-{n}").is_dir())
    shutil.copyfile(last / "template.jinja", kept / "template.jinja")
    names.append("template.jinja")
    if examples:
        shutil.copytree(build / "fewshot", kept / "fewshot", dirs_exist_ok=True)
        names += [f"fewshot/{path.name}" for path in sorted((kept / "fewshot").iterdir())]
    return names


def main() -> int:
    """Build, carry over, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", required=True)
    parser.add_argument("--optimizer", required=True)
    parser.add_argument("--llm", required=True)
    parser.add_argument("--first", default="copa", help="task that the template is built for")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="tasks that it is carried over to")
    parser.add_argument("--store", default="optaware-results")
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--examples", action="store_true", help="keep the few-shot modules too")
    parser.add_argument("--keep-only", action="store_true", help="build nothing")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="options for `template build`")
    given = parser.parse_args()
    slug = "".join(c if c.isalnum() else "-" for c in given.optimizer.lower()).strip("-")
    places = {task: Path(given.store) / "templates" / f"{slug}-{task}" for task in (given.first, *given.tasks)}
    told = ("--llm", given.llm, "--store", given.store)
    for task, place in places.items():
        if not given.keep_only:
            if task == given.first:
                own = ("build", "--paper", given.paper, "--optimizer", given.optimizer, "--task", task, *given.more)
            else:
                own = ("transfer", "--from", str(places[given.first]), "--to", task)
            if (code := run("data", "template", *own, "--out", str(place), *told)) > 1:
                return code
        if (place / "DONE").is_file():
            names = keep(place, given.kept / place.name, examples=given.examples)
            print(f"{given.kept / place.name}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
