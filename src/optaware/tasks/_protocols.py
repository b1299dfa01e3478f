"""Which rows of which split a protocol takes: pure arithmetic on row numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from optaware.errors import InputError, ProblemList
from optaware.records import Protocol
from optaware.tasks._task import Task

__all__ = ["ROLES", "Chosen", "Role", "choose", "source_of"]

Role = Literal["train", "dev", "test"]
ROLES: tuple[Role, ...] = ("train", "dev", "test")
Chosen = dict[Role, tuple[str, list[int]]]
"""For each role the source split and the row numbers in it, in order."""

_MEZO_TRAIN, _MEZO_DEV, _MEZO_TEST = 1000, 500, 1000


def choose(task: Task, protocol: Protocol, sizes: Mapping[str, int]) -> Chosen:
    """Choose the rows of `train`, `dev` and `test`.

    `oat`: fixed rows, as OAT-Rephrase has them: the first of train, the last of train for dev, and validation (BoolQ: a
    fixed 1000 of it). For a task file: its splits as they are; without a dev file the last fifth of train, at most 500.

    `mezo`: as MeZO draws them: a permutation of train by the seed, of which the first 1000 + dev rows are taken (or all
    there are), the last 500 of those (CB, COPA: 100) for dev; test: up to 1000 of validation by the same seed.

    `free`: the sizes that the protocol gives, by a permutation by the seed; a size left open takes what is left.
    When the source has only one split, all three are cut out of it, without overlap.

    `all`: every row of the split that serves train, or the first `train` of them; dev and test are the splits that are
    left to them, and empty where there are none.

    Args:
        task: The task.
        protocol: Which protocol, and for `free` the sizes.
        sizes: Number of rows of each split that the source has.

    Raises:
        InputError: Splits are missing, or fewer rows are there than asked for.
    """
    given = [role for role in ROLES if getattr(protocol, role) is not None]
    if protocol.name == "free":
        return _free(task, protocol, sizes)
    if protocol.name == "all":
        return _all(protocol, source_of(task, sizes), sizes)
    if given:
        raise InputError.of(
            "protocol-sizes",
            f"protocol {protocol.name} with sizes for {', '.join(given)}",
            "a published protocol brings its own sizes",
            "Leave the sizes out, or use protocol free.",
        )
    pools = _pools(task, sizes)
    if missing := sorted({pool for pool in pools.values() if pool not in sizes}):
        raise InputError.of(
            "split-missing",
            f"protocol {protocol.name} for task {task.name}",
            f"it needs the split {' and '.join(missing)}, and this source has only {_listed(sizes)}",
            "Give a data directory with the full data set (or `datasets` and OPTAWARE_USE_HUB=1), or protocol free.",
        )
    return _oat(task, pools, sizes) if protocol.name == "oat" else _mezo(task, pools, sizes, protocol.seed)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{split} ({n} rows)" for split, n in sizes.items())


def _pools(task: Task, sizes: Mapping[str, int]) -> dict[Role, str]:
    """The source split that each role is served from."""
    if task.rows is not None:
        return {"train": "train", "dev": "train", "test": "validation"}
    test = "test" if "test" in sizes or "validation" not in sizes else "validation"
    dev = "dev" if "dev" in sizes else "validation" if "validation" in sizes and test != "validation" else "train"
    return {"train": "train", "dev": dev, "test": test}


def permutation(n: int, seed: int) -> list[int]:
    """Numpy's legacy permutation, the generator that MeZO and OAT-Rephrase drew with; no global state is touched."""
    import numpy as np

    return [int(row) for row in np.random.RandomState(seed % 2**32).permutation(n)]


def _oat(task: Task, pools: Mapping[Role, str], sizes: Mapping[str, int]) -> Chosen:
    n = sizes[pools["train"]]
    if task.rows is None:
        shared = pools["dev"] == pools["train"]
        n_dev = max(1, min(_MEZO_DEV, n // 5)) if shared else sizes[pools["dev"]]
        n_train, n_test = (n - n_dev if shared else n), None
    else:
        n_train, n_dev, n_test = task.rows.oat_train, task.rows.oat_dev, task.rows.oat_test
        shared = True
    in_test = sizes[pools["test"]]
    problems = ProblemList()
    needed = n_train + n_dev if shared else n_train
    if needed > n or n_train < 1:
        _too_few(problems, "oat", pools["train"], max(needed, 2), n)
    if n_test is not None and n_test > in_test:
        _too_few(problems, "oat", pools["test"], n_test, in_test)
    problems.raise_if_any()
    dev_end = sizes[pools["dev"]]
    return {
        "train": (pools["train"], list(range(n_train))),
        "dev": (pools["dev"], list(range(dev_end - n_dev, dev_end))),
        "test": (pools["test"], list(range(in_test)) if n_test is None else permutation(in_test, 0)[:n_test]),
    }


def _mezo(task: Task, pools: Mapping[Role, str], sizes: Mapping[str, int], seed: int) -> Chosen:
    n_dev = task.rows.oat_dev if task.rows is not None else _MEZO_DEV
    n = sizes[pools["train"]]
    if pools["dev"] != pools["train"]:
        train, dev = permutation(n, seed)[:_MEZO_TRAIN], permutation(sizes[pools["dev"]], seed)[:n_dev]
    else:
        if task.rows is None:
            n_dev = min(n_dev, max(1, n // 3))
        taken = permutation(n, seed)[: _MEZO_TRAIN + n_dev]
        train, dev = taken[: len(taken) - n_dev], taken[len(taken) - n_dev :]
        if not train:
            problems = ProblemList()
            _too_few(problems, "mezo", pools["train"], n_dev + 1, n)
            problems.raise_if_any()
    test = permutation(sizes[pools["test"]], seed)[:_MEZO_TEST]
    return {"train": (pools["train"], train), "dev": (pools["dev"], dev), "test": (pools["test"], test)}


def _too_few(problems: ProblemList, protocol: str, split: str, needed: int, there: int) -> None:
    problems.add(
        "too-few-rows",
        f"protocol {protocol}: {needed} rows of {split}",
        f"the source has {there}",
        "Use the full data set, or protocol free with smaller sizes.",
    )


def _free(task: Task, protocol: Protocol, sizes: Mapping[str, int]) -> Chosen:
    pools = source_of(task, sizes)
    problems = ProblemList()
    wanted: dict[Role, int] = {}
    for split in dict.fromkeys(pools.values()):
        roles = [role for role in ROLES if pools[role] == split]
        wanted.update(_shares(protocol, split, roles, sizes[split], problems))
    problems.raise_if_any()
    chosen: Chosen = {}
    start = dict.fromkeys(sizes, 0)
    order = {split: permutation(sizes[split], protocol.seed) for split in set(pools.values())}
    for role in ROLES:
        split = pools[role]
        chosen[role] = (split, order[split][start[split] : start[split] + wanted[role]])
        start[split] += wanted[role]
    return chosen


def _all(protocol: Protocol, pools: Mapping[Role, str], sizes: Mapping[str, int]) -> Chosen:
    there = sizes[pools["train"]]
    wanted = there if protocol.train is None else protocol.train
    problems = ProblemList()
    if not 1 <= wanted <= there:
        _too_few(problems, "all", pools["train"], wanted, there)
    for role in ("dev", "test"):
        if getattr(protocol, role) is not None:
            problems.add(
                "protocol-sizes", f"protocol all with a size for {role}", "it takes whole splits", "Leave the size out."
            )
    problems.raise_if_any()
    chosen: Chosen = {"train": (pools["train"], list(range(wanted)))}
    taken = {pools["train"]}
    for role in ROLES[1:]:
        split = pools[role]
        chosen[role] = (split, [] if split in taken else list(range(sizes[split])))
        taken.add(split)
    return chosen


def source_of(task: Task, sizes: Mapping[str, int]) -> dict[Role, str]:
    """The source split that serves each role, whatever splits there are; one split alone serves all three."""
    if len(sizes) == 1:
        (only,) = sizes
        return dict.fromkeys(ROLES, only)
    pools = _pools(task, sizes)
    # A source without the usual split serves that role from what it has; rows are still used once only.
    spare = next(iter(sizes))
    return {role: split if split in sizes else spare for role, split in pools.items()}


def _shares(protocol: Protocol, split: str, roles: list[Role], there: int, problems: ProblemList) -> dict[Role, int]:
    asked = {role: size for role in roles if (size := getattr(protocol, role)) is not None}
    still_open = [role for role in roles if role not in asked]
    left = there - sum(asked.values())
    for role, size in asked.items():
        if size < 1:
            problems.add("size-not-positive", f"{role}: {size}", "a split needs at least one row", "Ask for more rows.")
    if len(still_open) > 1:
        problems.add(
            "sizes-missing",
            f"protocol free without sizes for {' and '.join(still_open)}",
            f"both are taken from the {there} rows of {split}, so at most one size may be left open",
            "Give the sizes.",
        )
    if left < len(still_open):
        asked_text = " + ".join(f"{role} {size}" for role, size in asked.items())
        problems.add(
            "too-few-rows",
            f"protocol free: {asked_text}",
            f"the source's {split} split has {there} rows",
            f"Ask for at most {there} rows from it together, or use a larger source.",
        )
    return {**asked, **dict.fromkeys(still_open, max(left, 0))}
