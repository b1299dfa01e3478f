r"""The whole pipeline of rewritten data on the project's tasks with one chat model, and a report of what came out.

python scripts/oat_pipeline.py --paper mezo.md --optimizer MeZO --llm qwen2.5-coder-1.5b-instruct \
    --train smollm2-135m-instruct --build "--examples oat --shots 10" --transfer "--examples oat --rows 12 --shots 8"
python scripts/oat_pipeline.py … --report-only          # make nothing, report what is finished

For every task: template (built from the paper for the first task, carried over to the others), corpus of the first
training rows, evidence under the model to be trained, and the judge against the project's labelled pairs. Then, for the
--search tasks, one rewrite a row against several of which one is kept, at equal cost. The same command goes on where it
stopped; a step that fails is reported and the others go on. Written are OUT/report.md, OUT/report.json and what may be
kept of the templates; rows of the data sets are not in them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import _oat_report as report
from build_templates import keep, run

from optaware._io import read_json, write_json
from optaware.cli._options import chat_ref
from optaware.data.judge import Bench, labelled_pairs, measure, packaged_labels
from optaware.data.review import RowFinder
from optaware.errors import OptawareError
from optaware.llm import open_chat, shared_models
from optaware.records import JudgeTemplate
from optaware.store import Store
from optaware.tasks import get_task

RESULTS = Path(__file__).parents[1] / "studies" / "results" / "oat_pipeline"
TASKS = ("copa", "cb", "rte", "boolq", "arc-c-cloze", "sst2")
STOPPED = 3
"""Exit code of a command that was asked to stop, or whose budget is spent."""


class Pipeline:
    """The steps, each a command of optaware; what they leave lies in one folder of the store."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.at = Path(given.store) / "oat-pipeline"
        self.steps = self.at / "steps.json"
        self.told = ["--llm", given.llm, "--store", given.store]

    def template(self, task: str) -> Path:
        """Folder of a task's template."""
        return self.at / "templates" / task

    def step(self, name: str, done: Callable[[], bool], *arguments: str) -> bool:
        """Run one command unless what it makes is there; whether it is there now. Its time and exit code are kept."""
        if done() or self.given.report_only:
            return done()
        print(f"== {name}: optaware {shlex.join(arguments)}", flush=True)
        began, cpu = time.monotonic(), time.process_time()
        code = run(*arguments)
        steps = read_json(self.steps) if self.steps.is_file() else {}
        spent = {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
        before = steps.get(name, {})
        steps[name] = {key: round(before.get(key, 0.0) + value, 1) for key, value in spent.items()} | {"code": code}
        write_json(self.steps, steps)
        if code == STOPPED:
            sys.exit(STOPPED)
        return done()

    def make_template(self, task: str) -> bool:
        """Build it for the first task, carry it over for the others."""
        first, place, given = self.given.tasks[0], self.template(task), self.given
        if task == first:
            own = ["build", "--paper", given.paper, "--optimizer", given.optimizer, "--task", task]
            more = shlex.split(given.build)
        else:
            own, more = ["transfer", "--from", str(self.template(first)), "--to", task], shlex.split(given.transfer)
        name = f"template {task}"
        done = (place / "DONE").is_file
        return self.step(name, done, "data", "template", *own, *more, "--out", str(place), *self.told)

    def make_corpus(self, task: str, name: str, template: str, *more: str) -> bool:
        """A corpus of the first rows, and with --train its evidence."""
        place = self.at / "corpora" / task / name
        rows = ["-n", str(self.given.rows), "--template", template, "-o", str(place), "--quiet", "--give-up"]
        done = (place / "DONE").is_file
        if not self.step(f"corpus {task} {name}", done, "data", "rewrite", task, *rows, *more, *self.told):
            return False
        if self.given.train:
            # The search draws its directions from seed 0; these are others, or it would be measured by its own choice.
            measuring = ["--model", self.given.train, "--directions", str(self.given.directions), "--seed", "1"]
            self.step(
                f"evidence {task} {name}", partial(report.probed, place), "data", "evidence", str(place), *measuring
            )
        return True

    def calibrate(self, task: str) -> None:
        """The packaged judge on all labelled pairs of a task, in one order; it was refined on none of them."""
        path = self.at.parent / "judges" / f"{task}.packaged.json"
        if path.is_file() or self.given.report_only:
            return
        print(f"== judge {task}", flush=True)
        ref = chat_ref(self.given.llm, None, max_tokens=16, concurrency=64)
        own = get_task(task)
        bench = Bench(own, [open_chat(ref, cache=Store(self.at.parent).chat_cache())], [ref], None)
        pairs = labelled_pairs([packaged_labels(task)], own, RowFinder(own, None))[0]
        judge = JudgeTemplate(task=own.name, base="plain")
        bench.ballots(judge, pairs, "packaged judge", first_only=True)
        found = measure("packaged judge", pairs, bench.verdicts(judge, ((0,), ("original-first",), "all")), 2.0)
        write_json(path, found.to_json())

    def search(self, task: str) -> None:
        """One rewrite a row, several with the first kept, several with a measured one kept; the control likewise."""
        own = str(self.template(task) / "template.jinja")
        several = ["--search", str(self.given.candidates)]
        measured = [*several, "--prefer", "gradient-noise", "--model", self.given.train]
        for name, template in (("built", own), ("paraphrase", "paraphrase")):
            self.make_corpus(task, f"{name}-first", template, *several, "--prefer", "first")
            self.make_corpus(task, f"{name}-search", template, *measured)

    def report(self) -> None:
        """Write what there is."""
        found = report.collect(self.at, self.given.tasks)
        found["settings"] = {
            "optimizer": self.given.optimizer,
            "paper": Path(self.given.paper).name,
            "chat model": self.given.llm,
            "model to be trained": self.given.train,
            "rows of a corpus": self.given.rows,
            "build": self.given.build,
            "transfer": self.given.transfer,
            "candidates of a search": self.given.candidates,
        }
        out: Path = self.given.out
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "report.json", found)
        (out / "report.md").write_text(report.page(found), "utf-8")
        for task in self.given.tasks:
            if (self.template(task) / "DONE").is_file():
                keep(self.template(task), out / "templates" / task, examples=False)
        print(out / "report.md")


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", required=True)
    parser.add_argument("--optimizer", required=True)
    parser.add_argument("--llm", required=True, help="rewrites, judges and writes the template")
    parser.add_argument("--train", help="model to be trained, under which corpora are measured")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="the template is built for the first")
    parser.add_argument("--rows", type=int, default=24, help="rows of a corpus")
    parser.add_argument("--directions", type=int, default=8, help="directions of each row's measurement")
    parser.add_argument("--candidates", type=int, default=3, help="rewrites a row of a search")
    parser.add_argument("--search", nargs="*", default=["copa"], help="tasks on which the search is compared")
    parser.add_argument("--build", default="", help="options for `data template build`, in one string")
    parser.add_argument("--transfer", default="", help="options for `data template transfer`")
    parser.add_argument("--no-judge", action="store_true", help="leave the labelled pairs out")
    parser.add_argument("--store", default="optaware-results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Run what is missing, report after every task."""
    given = parsed()
    pipeline = Pipeline(given)
    with shared_models():
        for task in given.tasks:
            if pipeline.make_template(task):
                pipeline.make_corpus(task, "built", str(pipeline.template(task) / "template.jinja"))
            elif task == given.tasks[0]:
                break
            pipeline.report()
        for task in () if given.no_judge else given.tasks:
            try:
                pipeline.calibrate(task)
            except OptawareError as error:
                print(f"judge {task}: {error}", file=sys.stderr)
        for task in given.search if given.train else ():
            if (pipeline.template(task) / "DONE").is_file():
                pipeline.search(task)
        pipeline.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
