"""100,000 requests against an endpoint that fails in every way: rows, budgets, memory and throughput.

    python benchmarks/torture/endpoint.py                        # 100,000 requests: about ten minutes on two cores
    python benchmarks/torture/endpoint.py --count 5000 --seed 1

The endpoint (`_faulty_server.py`) is a process of its own on this machine. A share of its answers fails at random: rate
limits with and without a wait, server errors, no answer, half an answer, resets, slow answers, no HTTP at all, garbage,
wrong schemas, and answers that are sent twice. What is looked at:

- `rows`: every row gets exactly one reply, the answer to that row or an error in words; what failed is asked again by
  the same command, and nothing else is (reply cache). 5 % faults for three quarters of the requests, 40 % for a fifth.
- `throughput`: blocks with 5 % faults and blocks without take turns in one process.
- `memory`: of that process, at the first and the last tenth of the faulty requests.
- `budget`: runs with token limits at 20 % faults; what the endpoint billed beyond the limit, beside what may be in
  flight.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from _faulty_server import COMPLETION_TOKENS, PROMPT_TOKENS, serve  # noqa: E402

from _result import RESULTS, write_result  # noqa: E402
from optaware.errors import BudgetExhausted  # noqa: E402
from optaware.llm import Chat, open_chat  # noqa: E402
from optaware.records import ChatMessage, ChatModelRef, ChatReply, ChatRequest  # noqa: E402

__all__ = ["campaign"]

IN_FLIGHT = 64
TIMEOUT_S = 2.0
DELAY_S = 0.02
BLOCKS = 4
TOKENS = PROMPT_TOKENS + COMPLETION_TOKENS
BAD_BODIES = 3
"""A request may be billed for so many answers that cannot be used, or one that can: see `RetryPolicy`."""


class Endpoint:
    """The server's process."""

    def __init__(self, seed: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        context = multiprocessing.get_context("spawn")
        port = context.Value("i", 0)
        self.process = context.Process(target=serve, args=(seed, DELAY_S, port), daemon=True)
        self.process.start()
        while not port.value:
            time.sleep(0.01)
        self.port = port.value

    def faults(self, share: float | None = None) -> dict[str, Any]:
        """Set the share of requests that fail, and read the counts."""
        query = "" if share is None else f"?share={share}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/control{query}", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def chat(self, cache: Path | None, **changes: Any) -> Chat:
        fields = {"provider": "openai", "model": "m", "base_url": f"http://127.0.0.1:{self.port}/v1"}
        fields |= {"api_key_env": "OPTAWARE_TORTURE_KEY", "concurrency": IN_FLIGHT, "timeout_s": self.timeout_s}
        return open_chat(ChatModelRef.model_validate({**fields, **changes}), cache=cache)

    def close(self) -> None:
        self.process.terminate()
        self.process.join()


def asks(name: str, numbers: Iterable[int]) -> Iterator[ChatRequest]:
    """Requests named after their row; every fiftieth is asked for twice under another key."""
    for number in numbers:
        turn = ChatMessage(role="user", content=f"{name} {number}")
        yield ChatRequest(key=f"{name} {number}", messages=(turn,), max_tokens=8)
        if number % 50 == 0:
            yield ChatRequest(key=f"{name} {number} again", messages=(turn,), max_tokens=8)


class Account:
    """What became of the rows: one byte a row, so that the memory that is measured is the library's."""

    def __init__(self) -> None:
        self.counts: dict[str, bytearray] = {}
        self.wrong = 0
        self.errors: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.asked = self.attempts = 0

    def add(self, reply: ChatReply) -> None:
        row = reply.key.removesuffix(" again")
        group, number = _place(reply.key)
        counts = self.counts.setdefault(group, bytearray())
        if number >= len(counts):
            counts.extend(bytes(max(number + 1 - len(counts), 4096)))
        counts[number] = min(255, counts[number] + 1)
        if not reply.cached:
            self.asked += 1
            self.attempts += reply.attempts
        if reply.text is None:
            self.errors[reply.error_code or "?"] += 1
            self.failed.add(row)
        else:
            self.wrong += reply.text != f"answer to {row}"

    def figures(self, wanted: Iterable[str]) -> dict[str, Any]:
        expected = {_place(key) for key in wanted}
        seen = {(group, at): n for group, counts in self.counts.items() for at, n in enumerate(counts) if n}
        return {
            "rows": len(expected),
            "lost": len(expected - seen.keys()),
            "unasked": len(seen.keys() - expected),
            "answered_twice": sum(count - 1 for count in seen.values()),
            "wrong": self.wrong,
            "errors": sum(self.errors.values()),
            "asked": self.asked,
            "attempts": self.attempts,
        }


def _place(key: str) -> tuple[str, int]:
    """Group and number of a key."""
    name, _, number = key.removesuffix(" again").rpartition(" ")
    return name + " again" * key.endswith(" again"), int(number)


def resident_bytes() -> int:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def steady(endpoint: Endpoint, count: int, share: float, folder: Path, blocks: int) -> list[dict[str, Any]]:
    """Blocks with faults and blocks without in turns, in this process."""
    account, chat, clean = Account(), endpoint.chat(folder / "steady"), endpoint.chat(None)
    walls, done = {"faults": 0.0, "none": 0.0}, {"faults": 0, "none": 0}
    memory: list[tuple[int, int]] = []
    size = max(1, count // blocks)
    list(clean.complete(asks("warm", range(min(200, count // 10)))))
    for block in range(blocks):
        for kind in ("none", "faults") if block % 2 else ("faults", "none"):
            endpoint.faults(share if kind == "faults" else 0.0)
            numbers = range(block * size, (block + 1) * size) if kind == "faults" else range(max(1, size // 2))
            began = time.perf_counter()
            for number, reply in enumerate(
                (chat if kind == "faults" else clean).complete(asks(f"{kind} {block}", numbers))
            ):
                done[kind] += 1
                if kind == "faults":
                    account.add(reply)
                    if number % 500 == 0:
                        memory.append((done[kind], resident_bytes()))
            walls[kind] += time.perf_counter() - began
            print(f"block {block + 1} of {blocks}, {kind}: {done[kind] / walls[kind]:.0f} a second", flush=True)
    wanted = [
        each.key for block in range(blocks) for each in asks(f"faults {block}", range(block * size, (block + 1) * size))
    ]
    rate = {kind: done[kind] / walls[kind] for kind in walls}
    tenth = max(1, len(memory) // 10)
    first, last = ([each[1] for each in part] for part in (memory[tenth : 2 * tenth] or memory, memory[-tenth:]))
    grown = sum(last) / len(last) - sum(first) / len(first)
    between = max(1, memory[-1][0] - memory[min(tenth, len(memory) - 1)][0])
    variant = f"{share:.0%} faults"
    return [
        {"case": "rows", "variant": variant, **account.figures(wanted)},
        {
            "case": "throughput",
            "variant": variant,
            "per_s": round(rate["faults"], 1),
            "without_faults_per_s": round(rate["none"], 1),
            "of_fault_free": round(rate["faults"] / rate["none"], 4),
        },
        {
            "case": "memory",
            "variant": variant,
            "grown_bytes": int(grown),
            "grown_bytes_per_row": round(grown / between, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    ]


def heavy(endpoint: Endpoint, count: int, share: float, folder: Path) -> list[dict[str, Any]]:
    """Many faults, then the same command again without any."""
    found = []
    wanted = [each.key for each in asks("heavy", range(count))]
    failed: set[str] = set()
    for variant, part in ((f"{share:.0%} faults", share), ("the same again, without faults", 0.0)):
        endpoint.faults(part)
        account = Account()
        for reply in endpoint.chat(folder / "heavy").complete(asks("heavy", range(count))):
            account.add(reply)
        figures = account.figures(wanted)
        if part == 0.0:
            figures["asked_without_need"] = account.asked - len(failed)
        failed = account.failed
        found.append({"case": "rows", "variant": variant, **figures})
        print(found[-1], flush=True)
    return found


def budgets(endpoint: Endpoint, count: int, runs: int, draw: random.Random) -> list[dict[str, Any]]:
    """Runs that a token limit ends; the endpoint's own bill is what counts."""
    over, early = [], 0
    for number in range(runs):
        limit = draw.randrange(TOKENS * count // 8, TOKENS * count * 3 // 4)
        before = endpoint.faults(0.2)["tokens"]
        chat = endpoint.chat(None, budget_tokens=limit)
        replies = 0
        try:
            for _ in chat.complete(asks(f"budget {number}", range(count))):
                replies += 1
        except BudgetExhausted:
            early += 1
        over.append(endpoint.faults()["tokens"] - before - limit)
    return [
        {
            "case": "budget",
            "variant": f"{runs} limits, 20% faults",
            "stopped": early,
            "most_tokens_over": max(over),
            "least_tokens_over": min(over),
            "in_flight_tokens": TOKENS * IN_FLIGHT * BAD_BODIES,
        }
    ]


def campaign(count: int, seed: int, *, timeout_s: float = TIMEOUT_S, blocks: int = BLOCKS) -> list[dict[str, Any]]:
    """The rows of the result."""
    os.environ["OPTAWARE_TORTURE_KEY"] = "torture"
    endpoint = Endpoint(seed, timeout_s)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows = steady(endpoint, 3 * count // 4, 0.05, folder, blocks)
            print(*rows, sep="\n", flush=True)
            rows += heavy(endpoint, count // 5, 0.4, folder)
            runs = 10 if count >= 10_000 else 1
            rows += budgets(endpoint, max(130, count // 20 // runs), runs, random.Random(f"budget/{seed}"))
            print(rows[-1], flush=True)
        counts = endpoint.faults(0.0)
        same = {name: counts[name] for name in ("requests", "answers", "answered_again", "peak")}
        rows.append({"case": "endpoint", "variant": "all", **same, "faults": sum(counts["faults"].values())})
        rows += [
            {"case": "fault", "variant": kind, "count": number} for kind, number in sorted(counts["faults"].items())
        ]
    finally:
        endpoint.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="requests (default 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "torture_endpoint.json")
    given = parser.parse_args()
    began = time.perf_counter()
    rows = campaign(given.count, given.seed)
    settings = {
        "count": given.count,
        "seed": given.seed,
        "in_flight": IN_FLIGHT,
        "timeout_s": TIMEOUT_S,
        "answer_s": DELAY_S,
    }
    notes = [
        "A fault costs throughput by what it holds up: no answer holds one of the places in flight for timeout_s.",
        "answered_again counts rows that the endpoint answered more than once: their first answer could not be "
        "told from a repeated one, or came on a connection that was out of step.",
        "in_flight_tokens: what may be billed for the requests in flight, each at most three times.",
        f"Whole campaign: {time.perf_counter() - began:.0f} s.",
    ]
    print(write_result("torture_endpoint", rows, out=given.out, settings=settings, notes=notes))


if __name__ == "__main__":
    main()
