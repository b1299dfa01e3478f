"""Valid files of the binary formats, for the fuzzed readers to begin from."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

__all__ = ["cache_seed", "gguf_seed", "index_seeds", "journal_seeds", "tar_seed", "wheel_seeds"]


def wheel_seeds() -> tuple[bytes, ...]:
    """One wheel for each way in which zip members are compressed."""
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("toy/data.bin", b"weights" * 20)
            archive.writestr("toy/__init__.py", b"1/0")
        made.append(buffer.getvalue())
    return tuple(made)


def tar_seed() -> bytes:
    """The members of an archive of results before they are compressed: a corpus and a run, each with its marker."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w") as archive:
        for folder in ("corpora/0123456789ab-a", "runs/0123456789ab-b"):
            for name, data in (("spec.json", b'{"seed": 1}'), ("result.json", b'{"files": {}}'), ("DONE", b"")):
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def gguf_seed() -> bytes:
    """A model of three weights, one of them quantised."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    keys = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"llama.attention.head_count") + struct.pack("<II", 4, 1),
        text(b"llama.attention.head_count_kv") + struct.pack("<II", 4, 1),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b"),
    ]
    weights = [
        (b"token_embd.weight", (4, 2), 0),
        (b"blk.0.attn_q.weight", (4, 4), 0),
        (b"output_norm.weight", (32,), 8),
    ]
    infos, offset = [], 0
    for name, shape, kind in weights:
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += 64
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(keys)) + b"".join(keys) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + bytes(range(192))


def journal_seeds() -> tuple[bytes, ...]:
    """Journals of all three versions."""
    from optaware.records import Fast, MeZO
    from optaware.train._journal import HEADER_1, MAGIC, JournalHeader
    from optaware.train._journal_header import OPTIMIZER
    from optaware.train._journal_records import Code, Mark, Place, Record, Step

    header = JournalHeader("0" * 64, "1" * 64, 3, MeZO().to_json(), 5, 2).pack()
    old = HEADER_1.pack(MAGIC, 1, HEADER_1.size, 1, 3, 1e-3, 1e-3, b"a" * 32, b"b" * 32)
    loop = JournalHeader("", "1" * 32, 3, Fast().to_json(), 0, 0, groups=((0, 2), (1, 1)), version=OPTIMIZER)
    rates = [((lr, 0.0), (2 * lr, 0.1)) for lr in (1e-3, 1e-3, 9e-4, 8e-4, 8e-4)]
    records: list[Record] = [Step((0.5,), pair) for pair in rates]
    records[2:2] = [Mark("settled"), Mark("moved")]
    body, place, code = b"", Place(), Code(loop, Path("journal.bin"))
    for record in [*records, Mark("ended", "2" * 32)]:
        made, place = code.encode(place, record)
        body += made
    return (header + struct.pack("<5f", *range(5)), old + struct.pack("<5f", *range(5)), loop.pack() + body)


def index_seeds() -> tuple[bytes, ...]:
    """An index and files of a run, behind a byte that says which of them it is."""
    import sqlite3
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.sqlite")
        database = sqlite3.connect(path)
        database.execute("create table runs (folder text primary key, stamp text not null, row text not null)")
        database.execute("insert into runs values ('0123456789ab-fuzz', '', '{\"run\": \"0123456789ab\"}')")
        database.execute("pragma user_version = 1")
        database.commit()
        database.close()
        file = path.read_bytes()
    status = b'{"state": "running", "step": 3, "updated": "2026-01-01T00:00:00Z"}'
    result = b'{"outcome": "done", "test": {"accuracy": 0.5}, "dev": {}, "steps": 3, "train_s": 1.5}'
    return (
        b"\0" + file,
        b"\1" + b'{"model": {"name": "m"}, "data": {"task": "copa"}, "seed": 1}',
        b"\2" + status,
        b"\3" + result,
    )


def cache_seed() -> bytes:
    """A segment of the reply cache."""
    name = "ab" * 32
    reply = {"request_id": name, "key": "", "model": "m", "text": "same", "finish_reason": "stop"}
    return json.dumps({"id": name, "reply": reply}).encode() + b"\n"
