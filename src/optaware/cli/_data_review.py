from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.data.review import Review
    from optaware.records import ReviewPair

__all__ = ["agreement", "review"]


def review(
    source: str,
    /,
    *,
    task: Annotated[str | None, Parameter(help="Task of the pairs, for rows that give ids instead of texts.")] = None,
    labels: Annotated[
        Path | None, Parameter(help="Labels file to append to. Default: beside the source, NAME.labels.jsonl.")
    ] = None,
    labeller: Annotated[str | None, Parameter(help="Whose labels they are. Default: the user's name.")] = None,
    terminal: Annotated[bool, Parameter(negative=(), help="Label in the terminal instead of the browser.")] = False,
    outcome: Annotated[
        Literal["accepted", "rejected"] | None, Parameter(help="Only rewrites of a corpus that the gate treated so.")
    ] = None,
    sample: Annotated[int | None, Parameter(help="Only so many pairs, drawn at random.")] = None,
    seed: Annotated[int, Parameter(help="Draws the sample.")] = 0,
    port: Annotated[int, Parameter(help="Port of the page on this machine; 0: any free one.")] = 0,
    browser: Annotated[bool, Parameter(help="Open the page in the browser.")] = True,
    approved: Annotated[
        Path | None,
        Parameter(help="Corpus only: ask nothing, write its training rows with the rewrites labelled `same`."),
    ] = None,
    store: StoreDir = None,
    data: DataDir = None,
) -> int:
    """Compare rewrites with their originals, side by side, and label them `same` or `not the same`.

    The page is served to this machine only. Labels are appended to a JSONL file as they are made; the same command
    goes on where you stopped.

    Parameters
    ----------
    source
        Corpus id or folder; or a JSONL file of pairs (`original` or `example_id`, and `rewritten`).
    """
    from optaware.data.review import LabelsFile, Review, review_in_terminal

    pairs, where, title = _pairs(source, task, store, data)
    if outcome is not None:
        pairs = [pair for pair in pairs if pair.outcome == outcome]
    path = labels or where
    name = labeller or _user()
    if approved is not None:
        return _write_approved(source, path, labeller, approved, store, data)
    if sample is not None:
        import random

        kept = set(random.Random(seed).sample(range(len(pairs)), min(max(sample, 0), len(pairs))))
        pairs = [pair for number, pair in enumerate(pairs) if number in kept]
    with LabelsFile(path, name) as file:
        session = Review(pairs, file, title)
        if terminal:
            review_in_terminal(session)
        else:
            _serve(session, port, browser)
        counts = session.counts()
    print(
        f"{path}: {counts['pairs'] - counts['open']} of {counts['pairs']} done, {counts['same']} same, "
        f"{counts['not the same']} not the same, {counts['skipped']} skipped"
    )
    return 0


def agreement(
    labels: list[Path],
    /,
    *,
    labellers: Annotated[
        tuple[str, str] | None, Parameter(help="The two to compare, when there are labels by more.")
    ] = None,
    json: AsJson = False,
) -> int:
    """How far two labellers agree: share with interval, Cohen's kappa, and where they differ.

    Parameters
    ----------
    labels
        Labels files.
    """
    from optaware.data.review import agreement as compare
    from optaware.data.review import read_labels

    first, second = labellers or (None, None)
    found = compare([label for path in labels for label in read_labels(path)], first, second)
    if json:
        print_json(found.to_json())
        return 0
    share = found.share
    print(
        f"{found.first} and {found.second} agree on {found.agreed} of {found.pairs} pairs: "
        f"{100 * share.estimate:.1f} % (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f}), "
        f"kappa {found.kappa:.2f}"
    )
    answers = list(found.table)
    print_table(
        [f"{found.first} \\ {found.second}", *answers],
        [[answer, *(found.table[answer][other] for other in answers)] for answer in answers],
    )
    if found.differ:
        print("They differ on: " + " ".join(found.differ))
    return 0


def _pairs(source: str, task: str | None, store: Path | None, data: Path | None) -> tuple[list[ReviewPair], Path, str]:
    from optaware.data.review import RowFinder, corpus_pairs, read_pairs
    from optaware.tasks import get_task

    path = Path(source)
    if path.is_file():
        chosen = None if task is None else get_task(task)
        pairs = read_pairs(path, chosen, find=None if chosen is None else RowFinder(chosen, data_dir(data)))
        return pairs, path.with_name(f"{path.stem}.labels.jsonl"), path.name
    folder = path if path.is_dir() else store_at(store).find_corpus(source)
    return corpus_pairs(folder)[1], folder / "review.labels.jsonl", folder.name


def _write_approved(
    source: str, labels: Path, labeller: str | None, out: Path, store: Path | None, data: Path | None
) -> int:
    from optaware._io import write_jsonl
    from optaware.data import corpus_rows, read_corpus_spec
    from optaware.data.review import agreed_labels, approved_rows, read_labels
    from optaware.errors import InputError
    from optaware.tasks import get_task

    path = Path(source)
    if path.is_file():
        raise InputError.of(
            "approved-source", source, "training rows are those of a corpus", "Give a corpus id or folder."
        )
    folder = path if path.is_dir() else store_at(store).find_corpus(source)
    spec = read_corpus_spec(folder)
    task = get_task(spec.task)
    examples = corpus_rows(folder, spec, task, data_dir=data_dir(data)).train
    chosen, differ = agreed_labels(read_labels(labels), labeller)
    rows = approved_rows(task, examples, chosen)
    write_jsonl(out, rows)
    used = len({label.example_id for label in chosen if label.verdict == "same"} & {row["example_id"] for row in rows})
    print(f"{out}: {len(rows)} rows, {used} with an approved rewrite, {len(differ)} pairs left out (labellers differ)")
    return 0


def _serve(session: Review, port: int, browser: bool) -> None:
    import time

    from optaware.cli._open_page import opened
    from optaware.data.review import serving
    from optaware.study import stop_requests

    with stop_requests() as should_stop, serving(session, port) as server:
        print(f"Review {server.url}\nOnly this machine can open it. Ctrl-C ends; labels are saved as you make them.")
        sys.stdout.flush()
        with opened(server.url, browser):
            while not should_stop():
                time.sleep(0.1)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user on this system: `LabelsFile` asks for a name
        return ""
