"""DONE is the last thing that is written: a kill right before it leaves nothing that the next call would not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optaware.data import make_corpus_spec
from optaware.records import ChatModelRef, DataRef, MeZO, ModelRef, Protocol, RunSpec, Schedule
from optaware.store import RunFolder, Store
from optaware.study import _rewrite_one, _train_one, rewrite_one, train_one
from optaware.tasks import get_task, load_splits

TASK = Path(__file__).parents[2] / "examples" / "tasks" / "ticket_routing.yaml"
PROTOCOL = Protocol(name="free", train=12, dev=6, test=9)


class Killed(BaseException):
    pass


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_run_killed_before_its_marker_is_only_marked(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(
        model=ModelRef(name=str(tiny_model_dir), dtype="fp32"),
        data=DataRef(task=str(TASK), protocol=PROTOCOL),
        method=MeZO(lr=1e-3),
        schedule=Schedule(steps=3, batch_size=4, max_length=64),
        device="cpu",
    )
    store = Store(tmp_path)
    folder = store.run_folder(spec)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "mark_done", killed)
        with pytest.raises(Killed):
            train_one(spec, store)
    assert not folder.is_done
    assert not list(folder.path.glob("checkpoint-*"))  # a marked run is never looked at again, so they go before
    before = folder.result.read_bytes()
    (folder.path / ".tmp-abc-DONE").write_bytes(b"")
    monkeypatch.setattr(_train_one, "run_in", killed)  # nothing is trained again
    assert train_one(spec, store).steps == 3
    assert folder.is_done
    assert folder.result.read_bytes() == before
    assert folder.read_status().state == "done"  # type: ignore[union-attr]
    assert not list(folder.path.glob(".tmp-*"))


def test_a_corpus_is_not_done_before_its_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task(str(TASK))
    script = tmp_path / "script.jsonl"
    # Answers rewriter and judge alike: every rewrite fails its form, and all rows keep the original.
    script.write_text('{"text": "same"}\n')
    chat = ChatModelRef(provider="scripted", model=str(script))
    spec = make_corpus_spec(
        task=task,
        task_name=str(TASK),
        protocol=PROTOCOL,
        variant="paraphrase",
        template="paraphrase",
        examples=load_splits(task, PROTOCOL).train,
        rewriter=chat,
        judge=chat,
    )
    store = Store(tmp_path / "store")
    folder = store.corpus_folder(spec)
    with monkeypatch.context() as patched:
        patched.setattr(_rewrite_one, "write_evidence", killed)
        with pytest.raises(Killed):
            rewrite_one(spec, store)
    assert (folder / "card.json").exists()
    assert not (folder / "DONE").exists()
    rewrite_one(spec, store)
    assert (folder / "DONE").exists()
    assert (folder / "evidence.json").exists()
