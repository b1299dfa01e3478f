from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, BaseUrl, DataDir, StoreDir, chat_ref, data_dir, print_json, store_at

__all__ = ["calibrate"]

_PACKAGED = "qwen2.5-coder-1.5b-instruct"


def calibrate(
    labels: list[Path] | None = None,
    /,
    *,
    task: Annotated[str, Parameter(help="Task of the pairs.")],
    llm: Annotated[
        str | None,
        Parameter("--llm", help="Judge: hub name, path or asset; a .jsonl file: scripted. Default: the packaged Qwen."),
    ] = None,
    base_url: BaseUrl = None,
    also: Annotated[
        tuple[str, ...], Parameter(help="A further judge that votes, named as for --llm. May be repeated.")
    ] = (),
    both_orders: Annotated[
        bool, Parameter(negative=(), help="Each judge reads every pair in both orders; both ballots count.")
    ] = False,
    rule: Annotated[
        Literal["all", "majority"], Parameter(help="`same` when all ballots say so, or more than half of them.")
    ] = "all",
    target: Annotated[float, Parameter(help="Share of pairs to be judged as people do.")] = 0.9,
    tuning: Annotated[float, Parameter(help="Share of the rows to refine on; 0: measure the judge as it is.")] = 1 / 3,
    rounds: Annotated[int, Parameter(help="Most rounds of refining.")] = 4,
    write_rules: Annotated[
        bool, Parameter(negative=(), help="Let the judge's model write rules where no note gives one.")
    ] = False,
    attacks: Annotated[
        bool, Parameter(negative=(), help="Also measure it on rewrites with orders to the judge in them.")
    ] = False,
    labeller: Annotated[str | None, Parameter(help="Only labels by this person. Default: what all agree on.")] = None,
    seed: Annotated[int, Parameter(help="Splits the pairs.")] = 0,
    out: Annotated[Path | None, Parameter(help="Folder of the result. Default: below the store, judges/.")] = None,
    max_tokens: Annotated[int, Parameter(help="Longest reply of a judge; more for models that reason first.")] = 16,
    store: StoreDir = None,
    data: DataDir = None,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but the result.")] = False,
    json: AsJson = False,
) -> int:
    """Measure a judge against people's labels, after refining it on labels that the measurement does not use.

    Exit code 0: the target is reached; 1: it is not, and the report says by how much. The same command again asks for
    nothing twice. `judge.json` in the result's folder is the judge, for `optaware data rewrite --judge-file`.

    Parameters
    ----------
    labels
        Labels files, as `optaware data review` writes them. Default: the project's own labels for a built-in task; they
        hold ids of the official train split, which --data-dir or the hub must have.
    """
    from optaware.data.judge import Refining, labelled_pairs, packaged_labels, render_calibration, write_calibration
    from optaware.data.judge import calibrate as run
    from optaware.data.review import RowFinder
    from optaware.errors import InputError
    from optaware.llm import open_chat
    from optaware.tasks import get_task

    _check(target, tuning, rounds)
    chosen = get_task(task)
    folder = data_dir(data)
    pairs, differ, people = labelled_pairs(
        labels or [packaged_labels(chosen.name)], chosen, RowFinder(chosen, folder), labeller=labeller
    )
    if base_url and not llm:
        raise InputError.of("llm-missing", "--base-url", "an endpoint serves models by name", "Give --llm NAME.")
    refs = [chat_ref(name, base_url, max_tokens=max_tokens) for name in (llm or _PACKAGED, *also)]
    cache = store_at(store).chat_cache()
    models = [open_chat(ref, cache=cache) for ref in refs]
    found = run(
        chosen,
        pairs,
        models,
        refs,
        how=Refining(target=target, rounds=rounds, writer=models[0] if write_rules else None),
        both_orders=both_orders,
        rule=rule,
        tuning_share=tuning,
        seed=seed,
        attacks=attacks,
        left_out=differ,
        labellers=people,
        on_progress=None if quiet else _progress(),
    )
    place = out or store_at(store).root / "judges" / f"{found.template_id[:12]}-{chosen.name}"
    write_calibration(place, found, pairs)
    if json:
        print_json(found.to_json())
    else:
        print(render_calibration(found))
        print(f"{place}")
    return 0 if found.reached else 1


def _check(target: float, tuning: float, rounds: int) -> None:
    from optaware.errors import ProblemList

    problems = ProblemList("options")
    if not 0 < target <= 1:
        problems.add("target-range", f"--target {target}", "it is a share above 0 and at most 1", "Give 0.9 for 90 %.")
    if not 0 <= tuning < 1:
        problems.add("tuning-range", f"--tuning {tuning}", "it is a share from 0 to below 1", "Give 0.33 for a third.")
    if rounds < 0:
        problems.add("rounds-range", f"--rounds {rounds}", "it counts rounds", "Give 0 or more.")
    problems.raise_if_any()


def _progress() -> Callable[[int, int, str], None]:
    said = 0.0

    def moved(done: int, total: int, what: str) -> None:
        nonlocal said
        if time.monotonic() - said >= 2.0 or done == total:
            said = time.monotonic()
            print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

    return moved
