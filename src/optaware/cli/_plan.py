from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, BaseUrl, Llm, StoreDir, chat_ref, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.plan import CheckReport
    from optaware.records import PlanDocument

__all__ = ["app"]

PlanFile = Annotated[Path, Parameter(allow_leading_hyphen=True)]

app = App(name="plan", help="Ablation plans: propose them, read them in any shape, write, check, bind and score them.")


@app.command
def parse(file: PlanFile, /, *, json: AsJson = False) -> int:
    """Read a plan and print its entries as JSONL, one a line; what was not understood goes to standard error.

    Exit code 0: every entry was understood; 1: some were not, the others are printed; 2: no plan at all.

    Parameters
    ----------
    file
        Rendered page (also mis-decoded), Markdown, JSONL, JSON array, raw model reply, or `-` for standard input.
    json
        Print the whole document instead: trace, page facts, and per entry its diagnostics and repairs.
    """
    from optaware.plan import render_plan

    document = _read(file)
    if json:
        print_json(document.to_json())
    else:
        _write(render_plan(document, "jsonl"))
    _tell(document, file)
    return 0 if document.understood else 1


@app.command
def render(
    document: PlanFile,
    /,
    *,
    to: Annotated[Literal["page", "jsonl", "md"], Parameter(help="page, jsonl or md.")] = "page",
    out: Annotated[Path | None, Parameter(help="File to write; default: standard output.")] = None,
    model: Annotated[str | None, Parameter(help="Planner named in the title.")] = None,
    paper: Annotated[str | None, Parameter(help="Paper named in the title.")] = None,
    task: Annotated[Literal["author", "reviewer"] | None, Parameter(help="Whose box colours.")] = None,
) -> int:
    """Write a plan as a page, JSONL or Markdown. What was read from a page comes out byte for byte, mended.

    Parameters
    ----------
    document
        What `plan parse --json` wrote, or a plan in any shape that it reads; `-` for standard input.
    """
    from optaware._io import write_text
    from optaware.plan import render_plan

    read = _read(document)
    told = {"model": model, "paper": paper, "task": task}
    facts = {name: value for name, value in told.items() if value is not None}
    if facts:
        read = read.model_copy(update={"page": read.page.model_copy(update=facts)})
    text = render_plan(read, to)
    if out is None:
        _write(text)
    else:
        write_text(out, text)
    _tell(read, document)
    return 0 if read.understood else 1


@app.command
def check(
    plan: PlanFile,
    /,
    *,
    k: Annotated[int | None, Parameter(name=("-k", "--top"), help="How many ablations were asked for.")] = None,
    method: Annotated[str | None, Parameter(help="Method that the plan is about: its parts and baselines.")] = None,
    manifest: Annotated[Path | None, Parameter(help="Manifest of your own training script, instead.")] = None,
    seeds: Annotated[int, Parameter(help="Seeds per run, for the number of runs.")] = 1,
    steps: Annotated[int, Parameter(help="Steps per run, for the number of forward passes.")] = 20_000,
    json: AsJson = False,
) -> int:
    """Check a plan before anything is spent on it. Exit code 1 when there are errors, 0 with only warnings.

    Parameters
    ----------
    plan
        A plan in any shape that `plan parse` reads; `-` for standard input.
    """
    from optaware.plan import check_plan, read_manifest

    document = _read(plan)
    script = read_manifest(manifest) if manifest else None
    report = check_plan(document.plan, k=k, method=method, manifest=script, seeds=seeds, steps=steps)
    if json:
        print_json(report.to_json())
    else:
        _print_check(report)
    _tell(document, plan)
    return 1 if report.has_errors or not document.understood else 0


@app.command
def propose(
    *,
    paper: Annotated[Path, Parameter(help="PDF, Markdown, LaTeX file or folder, or text.")],
    llm: Annotated[
        str, Parameter("--llm", help="Chat model: hub name, path or asset; a .jsonl file: scripted replies.")
    ],
    base_url: BaseUrl = None,
    k: Annotated[int, Parameter(name=("-k", "--top"), help="How many ablations.")] = 5,
    missing: Annotated[bool, Parameter(negative=(), help="Only what the paper does not have already.")] = False,
    method: Annotated[str | None, Parameter(help="Propose changes of this method's components.")] = None,
    manifest: Annotated[Path | None, Parameter(help="Or of those of a manifest.")] = None,
    to: Annotated[Literal["page", "jsonl", "md", "json"], Parameter(help="page, jsonl, md or json.")] = "md",
    out: Annotated[
        Path | None, Parameter(name=("-o", "--out"), help="File to write; default: standard output.")
    ] = None,
    attempts: Annotated[int, Parameter(help="Replies asked for until one can be used.")] = 3,
    context_chars: Annotated[int, Parameter(help="Characters of the paper in one request.")] = 24_000,
    max_tokens: Annotated[int, Parameter(help="Tokens of one reply.")] = 1_500,
    budget_usd: Annotated[float | None, Parameter(help="Stop at this cost (needs prices).")] = None,
    budget_tokens: Annotated[int | None, Parameter(help="Stop after so many tokens.")] = None,
    temperature: Annotated[float, Parameter(help="Of the sampling.")] = 0.0,
    seed: Annotated[int, Parameter(help="Of the sampling.")] = 0,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Say how many requests it takes at most, and ask nothing.")
    ] = False,
    store: StoreDir = None,
) -> int:
    """Propose a ranked ablation plan for a paper, with reasons and quotes that are looked up in the paper.

    Replies are cached: the same command goes on where it stopped and pays for nothing twice. Exit code 1 when a quote
    is not in the paper or parts of the replies could not be used.
    """
    from optaware.cli._plan_propose import propose_from

    told = {"budget_usd": budget_usd, "budget_tokens": budget_tokens, "temperature": temperature, "seed": seed}
    ref = chat_ref(llm, base_url, max_tokens=max_tokens, **told)
    bounds = {"context_chars": context_chars, "max_tokens": max_tokens, "attempts": attempts}
    cache = store_at(store).chat_cache()
    return propose_from(paper, ref, cache, k, missing, method, manifest, to, out, bounds, dry_run)


@app.command
def bind(
    plan: PlanFile,
    /,
    *,
    method: Annotated[str | None, Parameter(help="Method that the plan is about.")] = None,
    manifest: Annotated[Path | None, Parameter(help="Manifest of your own training script, instead.")] = None,
    out: Annotated[
        Path | None, Parameter(name=("-o", "--out"), help="File to write; default: standard output.")
    ] = None,
    set: Annotated[tuple[str, ...], Parameter(help="Baseline value, `--set eps=1e-4` (repeat the option).")] = (),
    llm: Llm = None,
    base_url: BaseUrl = None,
    budget_usd: Annotated[float | None, Parameter(help="Stop asking at this cost (needs prices).")] = None,
    store: StoreDir = None,
    check: Annotated[bool, Parameter(negative=(), help="PLAN is a binding: say whether it can be run.")] = False,
    json: AsJson = False,
) -> int:
    """Map a plan's entries to configuration, as a YAML file that is meant to be read and edited.

    By rule first; with --llm, a chat model chooses among the listed components for what is left; the rest is listed
    with the nearest components. Exit code 0: all is bound; 1: some is not, or contradicts; 2: nothing fits.

    Parameters
    ----------
    plan
        A plan in any shape that `plan parse` reads, `-` for standard input; with --check, a binding.
    """
    from optaware.cli._plan_bind import bind_file, check_file

    if check:
        return check_file(plan, json)
    document = _read(plan)
    chat = None if llm is None else (chat_ref(llm, base_url, budget_usd=budget_usd), store_at(store).chat_cache())
    code = bind_file(document, str(plan), method, manifest, out, set, chat, json)
    _tell(document, plan)
    return code or (0 if document.understood else 1)


@app.command
def score(
    plan: PlanFile | None = None,
    /,
    *,
    reference: Annotated[Path | None, Parameter(help="Reference plan, or folder of reference plans.")] = None,
    k: Annotated[int | None, Parameter(name=("-k", "--top"), help="Count only the first k entries.")] = None,
    judge: Annotated[tuple[str, ...], Parameter(help="Chat model that matches (repeat: they vote).")] = (),
    base_url: BaseUrl = None,
    votes: Annotated[int, Parameter(help="Votes of each judge on each pair.")] = 1,
    seed: Annotated[int, Parameter(help="Of the order in which a pair is shown.")] = 0,
    labels: Annotated[Path | None, Parameter(help="Labelled pairs (JSONL): measure the matcher instead.")] = None,
    store: StoreDir = None,
    json: AsJson = False,
) -> int:
    """Score a plan against a reference: precision, recall, F1 and nDCG; matched by words, or by chat models' votes.

    With two folders, files of the same name (without ending) are compared and averaged over papers; a plan that is
    missing or cannot be read counts as zero, is named, and makes the exit code 1. So do judges' replies that cannot be
    read; they are no votes.

    Parameters
    ----------
    plan
        A plan in any shape that `plan parse` reads, `-` for standard input, or a folder of plans.
    """
    from optaware.cli._plan_score import measure_matcher, open_matcher, score_file, score_two_folders
    from optaware.errors import InputError

    if (labels is None) != (plan is not None and reference is not None) or (labels is not None and plan is not None):
        why = "a plan is scored against a reference, or a matcher against labels"
        raise InputError.of("score-what", "these options", why, "Give PLAN and --reference, or --labels alone.")
    matcher = open_matcher(judge, base_url, votes, seed, store_at(store).chat_cache())
    if labels is not None:
        return measure_matcher(labels, matcher, json)
    assert plan is not None
    assert reference is not None
    if plan.is_dir() != reference.is_dir():
        raise InputError.of(
            "score-file-and-folder", f"{plan} and {reference}", "one is a folder, the other not", "Give two of a kind."
        )
    if plan.is_dir():
        return score_two_folders(plan, reference, k, matcher, json)
    document, wanted = _read(plan), _read(reference)
    code = score_file(document.plan, wanted.plan, k, matcher, json)
    _tell(document, plan)
    _tell(wanted, reference)
    return code if document.understood and wanted.understood else 1


def _read(file: Path) -> PlanDocument:
    from optaware.plan import MAX_BYTES, parse_plan, read_plan

    if str(file) == "-":
        return parse_plan(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")
    return read_plan(file)


def _write(text: str) -> None:
    """Print text as UTF-8 bytes, without a line end of its own: a page has none."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def _tell(document: PlanDocument, file: Path) -> None:
    for found in document.all_diagnostics:
        place = f"{file}:{found.line}" if found.line else str(file)
        print(f"{found.level}: {place}: {found.given}: {found.why}. {found.next} [{found.code}]", file=sys.stderr)


def _print_check(report: CheckReport) -> None:
    rows = [
        [
            entry.rank,
            entry.name,
            entry.action,
            (entry.component or "-") + ("" if entry.sure or not entry.component else "?") if report.method else None,
            ", ".join(f"{value.text} (baseline)" if value.baseline else value.text for value in entry.values),
            ", ".join(dict.fromkeys(metric.name or f"{metric.text} (unknown)" for metric in entry.metrics)),
            entry.runs,
        ]
        for entry in report.entries
    ]
    print_table(["rank", "name", "action", "component", "values", "metrics", "runs"], rows)
    for finding in report.findings:
        hint = f" Suggested name: {finding.suggestion}." if finding.suggestion else ""
        place = f"{finding.level}: rank {finding.rank}: {finding.given}"
        print(f"{place}: {finding.why}. {finding.next}{hint} [{finding.code}]")
    seeds = f" for {report.seeds} seeds" if report.seeds > 1 else ""
    errors = sum(finding.level == "error" for finding in report.findings)
    print(f"{errors} errors, {len(report.findings) - errors} warnings; {report.runs} runs with the baseline{seeds}.")
    if report.forwards is not None:
        print(
            f"{report.forwards:,} forward passes of a batch in {report.steps:,} steps each (a backward counts as two)."
        )
