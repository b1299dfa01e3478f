from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from optaware.cli._options import (
    AsJson,
    BaseUrl,
    DataDir,
    ProtocolName,
    Rewriter,
    StoreDir,
    chat_ref,
    data_dir,
    print_json,
    store_at,
)

if TYPE_CHECKING:
    from optaware.records import CorpusSpec, DatasetCard

__all__ = ["rewrite"]

Preference = Literal["gradient-noise", "sharpness", "loss", "perplexity", "first"]


def rewrite(
    task: str,
    /,
    *,
    template: Annotated[str, Parameter(help="Rewriter template: `oat`, `paraphrase` or a Jinja file.")] = "oat",
    llm: Rewriter = None,
    base_url: BaseUrl = None,
    judge: Annotated[str | None, Parameter(help="Another chat model as judge. Default: the rewriter.")] = None,
    judge_base_url: Annotated[str | None, Parameter(help="Endpoint that serves --judge.")] = None,
    judge_file: Annotated[
        Path | None, Parameter(help="A calibrated judge: `judge.json` of `optaware data calibrate`.")
    ] = None,
    key_env: Annotated[str, Parameter(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    out: Annotated[
        Path | None, Parameter(name=("--out", "-o"), help="Folder of the corpus. Default: in --store.")
    ] = None,
    protocol: ProtocolName = None,
    rows: Annotated[int | None, Parameter(name=("--rows", "-n"), help="Only the first rows.")] = None,
    retries: Annotated[int, Parameter(help="Further tries for a rejected row, each told why.")] = 0,
    search: Annotated[int, Parameter(help="Rewrites of each row, of which one is kept (1: no search).")] = 1,
    prefer: Annotated[
        Preference, Parameter(help="What a search wants low; `first` keeps the first.")
    ] = "gradient-noise",
    model: Annotated[str | None, Parameter(help="Model to be trained, with which a search measures.")] = None,
    temperature: Annotated[float | None, Parameter(help="Of the rewriter. Default: 0; 0.8 with --search.")] = None,
    accept_at: Annotated[float, Parameter(help="Rewriter accuracy from which the corpus counts as accepted.")] = 0.9,
    concurrency: Annotated[int, Parameter(help="Requests in flight at once.")] = 8,
    timeout_s: Annotated[float, Parameter(help="Seconds until a request is given up.")] = 120.0,
    price: Annotated[
        tuple[float, float] | None, Parameter(negative=(), help="US dollars per million prompt and new tokens.")
    ] = None,
    budget_usd: Annotated[float | None, Parameter(help="Stop before more is spent (needs --price).")] = None,
    budget_tokens: Annotated[int | None, Parameter(help="Stop before more tokens are used.")] = None,
    give_up: Annotated[
        bool, Parameter(negative=(), help="Finish although calls failed; those rows keep the original.")
    ] = False,
    store: StoreDir = None,
    data: DataDir = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Say what would be done and asked for; call nothing.")
    ] = False,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but the result.")] = False,
    json: AsJson = False,
) -> int:
    """Make a rewritten corpus of a task's training rows: rewrite, judge, gate. The same command resumes.

    Finished replies are kept in the store and never paid for twice, also between corpora. A spec (YAML or JSON, as
    `optaware run` writes it) in place of the task makes the corpus that it describes.

    Parameters
    ----------
    task
        Built-in task, task file, or corpus spec.
    """
    from optaware.errors import InputError
    from optaware.study import rewrite_one

    at = store_at(store)
    if llm is None:
        spec = _read_spec(task)
    else:
        limits = {
            "api_key_env": key_env,
            "concurrency": concurrency,
            "timeout_s": timeout_s,
            "budget_usd": budget_usd,
            "budget_tokens": budget_tokens,
            "usd_per_million_prompt_tokens": price[0] if price else None,
            "usd_per_million_completion_tokens": price[1] if price else None,
        }
        warmth = temperature if temperature is not None else (0.8 if search > 1 else 0.0)
        if judge_base_url is not None and judge is None:
            raise InputError.of("judge-missing", "--judge-base-url", "it serves no model", "Name the model: --judge.")
        spec = _make_spec(
            task,
            template,
            rewriter=chat_ref(llm, base_url, temperature=warmth, **limits),
            # The judge is asked the same at temperature 0, whoever it is.
            judge=chat_ref(judge or llm, judge_base_url or (base_url if judge is None else None), **limits),
            rows=(protocol, rows, data_dir(data)),
            choice=(retries, search, prefer, model),
            accept_at=accept_at,
            judge_file=judge_file,
        )
    folder = out or at.corpus_folder(spec)
    if dry_run:
        return _say(spec, folder, json)
    with _progress(spec, folder, quiet) as moved:
        card = rewrite_one(spec, at, data_dir=data_dir(data), on_progress=moved, folder=folder, give_up=give_up)
    if json:
        print_json(card.to_json())
    else:
        _print_card(folder, card)
    return 0


def _read_spec(name: str) -> CorpusSpec:
    from optaware._io import read_yaml
    from optaware.errors import InputError
    from optaware.records import CorpusSpec, parse_record

    path = Path(name)
    content = read_yaml(path) if path.is_file() else None
    if not isinstance(content, dict) or "rewriter" not in content:
        raise InputError.of(
            "rewriter-missing",
            name,
            "a task needs a rewriter, and this is no corpus spec that names one",
            "Name a chat model: --llm NAME (and --base-url URL for an endpoint).",
        )
    return parse_record(CorpusSpec, content, name)


def _make_spec(
    name: str,
    template: str,
    *,
    rewriter: Any,
    judge: Any,
    rows: tuple[Literal["oat", "mezo"] | None, int | None, Path | None],
    choice: tuple[int, int, Preference, str | None],
    accept_at: float,
    judge_file: Path | None,
) -> CorpusSpec:
    from optaware.data import HeldOut, make_corpus_spec
    from optaware.errors import InputError
    from optaware.records import GateSpec, Protocol, SearchSpec, parse_record
    from optaware.tasks import get_task, load_splits

    protocol, first, folder = rows
    retries, candidates, prefer, model = choice
    if protocol is not None and first is not None:
        raise InputError.of(
            "protocol-sizes", f"--protocol {protocol} with --rows", "a protocol brings its own rows", "Leave one out."
        )
    search = None
    if candidates > 1:
        measuring = {"model": {"name": model, "dtype": "fp32"}} if model is not None and prefer != "first" else {}
        given = {"candidates": candidates, "prefer": prefer, **measuring}
        search = parse_record(SearchSpec, given, "--search/--prefer/--model")
    task = get_task(name)
    which = Protocol(name=protocol) if protocol else Protocol(name="all", train=first)
    splits = load_splits(task, which, data_dir=folder)
    where = f"{splits.drawn_from['train']} ({splits.source.kind})"
    print(f"{task.name}: {len(splits.train)} training rows, from {where}", file=sys.stderr)
    held_out = (*splits.dev, *splits.test)
    path = Path(name)
    return make_corpus_spec(
        task=task,
        task_name=str(path.resolve()) if path.is_file() else name,
        protocol=which,
        variant=_variant(template),
        template=template,
        examples=splits.train,
        rewriter=rewriter,
        judge=judge,
        gate=GateSpec(accept_at=accept_at),
        retries=retries,
        search=search,
        held_out=HeldOut.of(task, held_out) if held_out else None,
        judge_file=judge_file,
    )


def _variant(template: str) -> str:
    stem = Path(template).stem.lower()
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in stem)
    return plain.strip("-_") or "rewritten"


def _say(spec: CorpusSpec, folder: Path, json: bool) -> int:
    if json:
        print_json({"folder": str(folder), "spec": spec.to_json()})
        return 0
    tries = spec.search.candidates if spec.search else 1
    print(f"{folder}: not made; each row would cost {tries} rewrites and up to {2 * tries} judgements")
    if spec.search:
        print(f"kept: {spec.search.words}")
    if spec.retries:
        print(f"rejected rows: up to {spec.retries} further tries")
    return 0


@contextmanager
def _progress(spec: CorpusSpec, folder: Path, quiet: bool) -> Iterator[Callable[..., None]]:
    from optaware._io import write_json
    from optaware.errors import StoppedBySignal
    from optaware.study import stop_requests

    written = 0.0
    with stop_requests() as should_stop:

        def moved(done: int, total: int, what: str = "") -> None:
            nonlocal written
            if should_stop():
                raise StoppedBySignal.of(
                    "stopped", spec.slug, "a stop was asked for", "The same command goes on from here."
                )
            if time.monotonic() - written >= 1.0 or done == total:
                written = time.monotonic()
                write_json(folder / "progress.json", {"done": done, "total": total, "part": what})
                if not quiet:
                    print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

        yield moved


def _print_card(folder: Path, card: DatasetCard) -> None:
    interval = ""
    if card.accuracy_low is not None and card.accuracy_high is not None:
        interval = f", 95 % interval {100 * card.accuracy_low:.1f} to {100 * card.accuracy_high:.1f}"
    wanted = 100 * (card.accept_at or 0.9)
    print(
        f"{folder}: {card.accepted} of {card.rows} rewrites accepted ({100 * card.rewriter_accuracy:.1f} %{interval})"
    )
    if not card.is_accepted:
        kept = card.rows - card.accepted
        print(f"Below the {wanted:.0f} % asked for: {kept} rows are the original ones; the corpus is a mixture.")
    for reason, count in sorted(card.reasons.items(), key=lambda item: -item[1]):
        print(f"  {count:>6}  {reason}")
    cost = "price not known" if card.cost_usd is None else f"{card.cost_usd:.4f} US dollars"
    print(
        f"  {card.calls} calls ({card.cached_calls} cached), "
        f"{card.prompt_tokens + card.completion_tokens} tokens, {cost}"
    )
