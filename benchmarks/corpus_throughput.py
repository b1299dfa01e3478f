"""A corpus of many rows against an endpoint that answers in half a second: wall time over the ideal, and memory.

    python benchmarks/corpus_throughput.py                     # 10,000 rows, 64 in flight: about four minutes
    python benchmarks/corpus_throughput.py --rows 1000 --sizes 1000 4000

The endpoint is a process of its own on this machine (asyncio, no thread per request) that answers each request after
`--answer-s`. Every row takes one rewrite and two judgements, so the ideal is `calls · answer_s / in_flight`, plus one
answer for each of the three rounds that cannot begin before the one before is over.

Memory is that of the process that makes the corpus, for corpora of several sizes against an endpoint that answers at
once: rows are read when they are asked for, as from a file, so that what grows is the library's own. The figure to
look at is `bytes_per_row`, the slope of the peak between the smallest and the largest corpus.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from _result import write_result
from optaware.data import build_corpus, make_corpus_spec
from optaware.llm import open_chat
from optaware.records import ChatModelRef, DataSource, Example, Protocol
from optaware.tasks import get_task

SOURCE = DataSource(kind="local", location="made here", sha256={})
THINGS = ["lamp", "boat", "coat", "door", "clock", "chair", "horse", "letter", "ladder", "window"]


class Rows(Sequence[Example]):
    """Premises of COPA's kind that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.task = count, get_task("copa")

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(self.count))]
        if index >= self.count:
            raise IndexError(index)
        row = {
            "premise": f"Person {index} bought the old {THINGS[index % 10]} in town.",
            "choice1": "The price was low.",
            "choice2": "It rained hard.",
            "question": "cause",
            "label": index % 2,
        }
        return self.task.example(row, "train", index, "row")

    def __iter__(self) -> Iterator[Example]:
        return (self[n] for n in range(self.count))


def answer_to(body: dict[str, Any]) -> str:
    if "not the same" in body["messages"][0]["content"]:
        return "same"
    words = body["messages"][-1]["content"].split(":", 1)[-1].strip(" .").split()
    return f"In {words[-1]}, {' '.join(words[:-2])}."


async def serve(delay_s: float, port: Any) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            body = json.loads(await reader.readexactly(length))
            await asyncio.sleep(delay_s)
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer_to(body)}}
            usage = {"prompt_tokens": 400, "completion_tokens": 10, "total_tokens": 410}
            data = json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                }
            ).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            writer.write(head + data)
            await writer.drain()

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(quiet, "127.0.0.1", 0, backlog=1024)
    port.value = server.sockets[0].getsockname()[1]
    async with server:
        await server.serve_forever()


def endpoint(delay_s: float, port: Any) -> None:
    asyncio.run(serve(delay_s, port))


def make(count: int, delay_s: float, in_flight: int, folder: Path, out: Any = None) -> dict[str, Any]:
    """Make one corpus; returns its figures (through `out` when this runs in a process of its own)."""
    os.environ.setdefault("BENCH_KEY", "none")
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    server = context.Process(target=endpoint, args=(delay_s, port), daemon=False)
    server.start()
    try:
        while not port.value:
            time.sleep(0.01)
        rows = Rows(count)
        ref = ChatModelRef(
            provider="openai",
            model="m",
            base_url=f"http://127.0.0.1:{port.value}/v1",
            api_key_env="BENCH_KEY",
            concurrency=in_flight,
        )
        spec = make_corpus_spec(
            task=rows.task,
            task_name="copa",
            protocol=Protocol(),
            variant="oat",
            template="oat",
            examples=rows,
            rewriter=ref,
            judge=ref,
        )
        model = open_chat(ref, cache=folder / "cache")
        wall, cpu = time.perf_counter(), time.process_time()
        card = build_corpus(spec, rows.task, rows, rewriter=model, judge=model, folder=folder / "corpus", source=SOURCE)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        server.terminate()
        server.join()
    assert card.accepted == count, card.reasons
    assert card.calls == 3 * count
    found = {
        "rows": count,
        "calls": card.calls,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "call_cpu_ms": round(1000 * cpu / card.calls, 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if out is not None:
        out.send(found)
    return found


def apart(*arguments: Any) -> dict[str, Any]:
    """Make a corpus in a fresh process, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=make, args=(*arguments, theirs))
    process.start()
    found: dict[str, Any] = mine.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--answer-s", type=float, default=0.5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[500, 2000, 8000], help="corpora for the memory figure")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if args.rows:
            found = apart(args.rows, args.answer_s, args.in_flight, Path(folder) / "timed")
            ideal = found["calls"] * args.answer_s / args.in_flight
            ideal += 2 * args.answer_s  # the last answers of two rounds, which nothing can overlap
            rows.append(
                {
                    "case": "endpoint",
                    "variant": f"{args.in_flight} in flight",
                    **found,
                    "ideal_s": round(ideal, 3),
                    "times_ideal": round(found["wall_s"] / ideal, 4),
                    "rows_per_s": round(found["rows"] / found["wall_s"], 2),
                }
            )
            print(rows[-1], flush=True)
        memory = []
        for size in args.sizes:
            memory.append(apart(size, 0.0, args.in_flight, Path(folder) / f"memory-{size}"))
            rows.append({"case": "memory", "variant": f"{size} rows", **memory[-1]})
            print(rows[-1], flush=True)
        if len(memory) > 1:
            grown = memory[-1]["peak_bytes"] - memory[0]["peak_bytes"]
            per_row = grown / (memory[-1]["rows"] - memory[0]["rows"])
            rows.append({"case": "memory", "variant": "growth", "bytes_per_row": round(per_row, 1)})
            print(rows[-1], flush=True)
    settings = {"rows": args.rows, "in_flight": args.in_flight, "answer_s": args.answer_s, "sizes": args.sizes}
    notes = [
        "wall_s moves with what else the machine does (device.load_average); the endpoint shares its cores.",
        "bytes_per_row holds the index of the reply cache (some 250 bytes a reply, three replies a row).",
    ]
    print(write_result("corpus_throughput", rows, out=args.out, settings=settings, notes=notes))


if __name__ == "__main__":
    main()
