"""How inputs are made and watched: own mutations, structured exchange of values, or atheris (coverage-guided)."""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from _fuzz_targets import Target

MAX_BYTES = 1 << 16
"""Longest input: larger files are for the size limits' own tests."""
SLOW_S = 1.0
MEMORY_BYTES = 1 << 30
_HARD_S = 20.0
_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e308,
        "",
        " ",
        "\0",
        "\ud800",
        "x" * 3000,
        "../../x",
    ),
    *(
        "{{ 7 * 7 }}",
        "${HOME}",
        "no",
        "1e-3",
        "nan",
        [],
        {},
        [[]],
        {"": None},
        {"a": {"a": {"a": []}}},
        ["a", "a"],
        "é" * 40,
    ),
)


@dataclass
class Log:
    """What came of the inputs, kept in a file that the driver reads also when this process dies."""

    path: Path
    count: int = 0
    accepted: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    peak_growth_bytes: int = 0
    faults: dict[str, dict[str, str]] = field(default_factory=dict)

    def write(self) -> None:
        """Write the counts whole."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({key: value for key, value in vars(self).items() if key != "path"}))
        temporary.replace(self.path)


class _TooLong(BaseException):
    """The hard limit of one input: not an Exception, so that no handler of the code under test swallows it."""


class Watch:
    """Runs one input at a time: sorts what it raises, times it (CPU) and holds its memory to a limit."""

    def __init__(self, target: Target, folder: Path, log: Log, found: Path) -> None:
        from optaware.errors import OptawareError

        self._documented, self._log, self._found = OptawareError, log, found
        current = folder / "current"
        current.write_bytes(bytes(MAX_BYTES + 8))
        with current.open("r+b") as file:
            self._current = mmap.mmap(file.fileno(), MAX_BYTES + 8)
        work = folder / "work"
        work.mkdir()
        self._run = target.prepare(work)
        for seed in target.seeds:  # imports and caches are not an input's memory
            self._sort(seed)
        warnings.simplefilter("error")  # what numpy only warns of, as a user's strict run would see it
        self._before = _peak()
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGVTALRM, self._too_long)

    @staticmethod
    def _too_long(*_: object) -> NoReturn:
        raise _TooLong

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        data = data[:MAX_BYTES]
        self._current[:8] = len(data).to_bytes(8, "little")
        self._current[8 : 8 + len(data)] = data
        log = self._log
        began = time.process_time()
        fault = self._sort(data)
        spent = time.process_time() - began
        log.count += 1
        log.slowest_s = max(log.slowest_s, spent)
        growth = _peak() - self._before
        if fault is None and spent > SLOW_S:
            fault = ("slow", f"{spent:.1f} s of CPU")
        if fault is None and growth > MEMORY_BYTES:
            fault = ("memory", f"{growth >> 20} MiB")
        log.peak_growth_bytes = max(log.peak_growth_bytes, growth)
        if fault is not None:
            self._keep(data, *fault)
        if log.count % 500 == 0:
            log.write()

    def _sort(self, data: bytes) -> tuple[str, str] | None:
        signal.setitimer(signal.ITIMER_VIRTUAL, _HARD_S)
        try:
            self._run(data)
        except self._documented:
            self._log.refused += 1
        except _TooLong:
            return ("hang", traceback.format_exc(limit=-6))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)
            own = next((step for step in reversed(last) if "optaware" in step.filename), last[-1])
            return (f"{type(error).__name__}@{Path(own.filename).name}:{own.lineno}", traceback.format_exc(limit=-8))
        else:
            self._log.accepted += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return None

    def _keep(self, data: bytes, kind: str, detail: str) -> None:
        if kind in self._log.faults:
            return
        name = sha256(data).hexdigest()[:12]
        self._found.mkdir(parents=True, exist_ok=True)
        (self._found / f"{name}.bin").write_bytes(data)
        self._log.faults[kind] = {"input": f"{name}.bin", "detail": detail[-1500:]}
        self._log.write()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutations(target: Target, seed: int) -> Iterator[bytes]:
    """Inputs without end: seeds with bytes changed, cut, doubled, crossed, words put in; or whole values exchanged."""
    draw = random.Random(seed)
    documents = [value for text in target.seeds if (value := _document(text)) is not None] if target.structured else []
    while True:
        if documents and draw.random() < 0.5:
            yield _exchanged(draw.choice(documents), draw)
        else:
            yield _mutated(draw.choice(target.seeds), target, draw)


def _document(text: bytes) -> Any:
    from optaware._io import read_yaml

    return read_yaml(text.decode())


def _mutated(data: bytes, target: Target, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(1 << draw.randrange(5)):
        at = draw.randrange(len(made) + 1)
        kind = draw.randrange(8)
        if kind == 0:
            made[at:at] = draw.choice(target.words)
        elif kind == 1:
            made[at : at + draw.randrange(1, 9)] = b""
        elif kind == 2 and at < len(made):
            made[at] = draw.randrange(256)
        elif kind == 3 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif kind == 4:
            word = draw.choice(target.words)
            made[at : at + len(word)] = word
        elif kind == 5:
            other = draw.choice(target.seeds)
            start = draw.randrange(len(other) + 1)
            made[at:at] = other[start : start + draw.randrange(200)]
        elif kind == 6 and len(made) < MAX_BYTES // 4:
            length = draw.randrange(1, 64)
            made[at:at] = made[at : at + length] * draw.choice((1, 2, 3, 40))
        elif draw.random() < 0.1:
            del made[at:]
    return bytes(made[:MAX_BYTES])


def _exchanged(document: Any, draw: random.Random) -> bytes:
    """The document with some values replaced, removed, moved or renamed, as JSON, which is YAML."""
    value = json.loads(json.dumps(document))
    for _ in range(1 << draw.randrange(3)):
        places = list(_places(value))
        holder, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0:
            other, name = draw.choice(places)
            holder[key] = json.loads(json.dumps(other[name]))
        elif kind == 1 and isinstance(holder, dict):
            del holder[key]
        elif kind == 2 and isinstance(holder, dict):
            holder[draw.choice(("name", "x", "seed", "", str(key) + "s"))] = json.loads(json.dumps(holder[key]))
        else:
            holder[key] = json.loads(
                json.dumps(draw.choice(_ODD))
            )  # a list of its own, or it could come to hold itself
        if not list(_places(value)):
            break
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def run_mutations(target: Target, watch: Callable[[bytes], None], count: int, seed: int) -> None:
    """Run `count` mutated inputs."""
    for _, data in zip(range(count), mutations(target, seed), strict=False):
        watch(data)


def run_atheris(target: Target, watch: Watch, log: Log, count: int, seed: int, folder: Path) -> NoReturn:
    """Run `count` inputs under libFuzzer with Python coverage; it ends the process itself."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    words = folder / "words.dict"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words if len(word) < 60)
    words.write_text("".join(f'"{word}"\n' for word in quoted))

    def one(data: bytes) -> None:
        watch(data)
        if log.count >= count:
            log.write()
            os._exit(0)

    arguments = [sys.argv[0], str(corpus), f"-dict={words}", f"-seed={seed + 1}", "-max_len=8192", "-timeout=60"]
    atheris.Setup([*arguments, "-rss_limit_mb=0", "-verbosity=0", "-handle_segv=0", "-print_final_stats=0"], one)
    faulthandler.enable()
    atheris.Fuzz()
    raise AssertionError("libFuzzer came back")
