"""A kill at the worst moment: right before the marker, or between a reply and the record of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optaware.data import make_corpus_spec
from optaware.data._ledger import Ledger
from optaware.records import ChatModelRef, CorpusSpec, DataRef, MeZO, ModelRef, Protocol, RunSpec, Schedule
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
    monkeypatch.undo()
    folder.done.unlink()
    folder.result.write_bytes(before[:100])  # a result that has lost bytes is made again
    assert train_one(spec, store).test == folder.read_result().test
    assert json.loads(before)["test"] == folder.read_result().test.to_json()  # type: ignore[union-attr]


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusSpec:
    """A corpus whose rewriter and judge read from a script."""
    task = get_task(str(TASK))
    lines = []
    for row in load_splits(task, PROTOCOL).train:
        lines += [{"key": f"{question}:{row.id}", "text": "same"} for question in ("meaning", "role")]
        lines.append({"key": f"rewrite:{row.id}", "text": f"{task.span_text(row)} Please help."})
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chat = ChatModelRef(provider="scripted", model=str(script))
    return make_corpus_spec(
        task=task,
        task_name=str(TASK),
        protocol=PROTOCOL,
        variant="paraphrase",
        template="paraphrase",
        examples=load_splits(task, PROTOCOL).train,
        rewriter=chat,
        judge=chat,
    )


def test_a_corpus_is_not_done_before_its_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: CorpusSpec
) -> None:
    spec, store = corpus, Store(tmp_path / "store")
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


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_reply_whose_record_was_lost_is_still_on_the_bill(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: CorpusSpec
) -> None:
    whole = rewrite_one(corpus, Store(tmp_path / "whole"))
    assert whole.cached_calls == 0
    assert whole.accepted
    store, add, seen = Store(tmp_path / "killed"), Ledger.add, []

    def killed_at(ledger: Ledger[Any], record: Any) -> None:
        seen.append(record)
        if len(seen) == at:
            raise Killed
        add(ledger, record)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add", killed_at)
        with pytest.raises(Killed):
            rewrite_one(corpus, store)
    card = rewrite_one(corpus, store)
    assert card.model_copy(update={"wall_s": whole.wall_s}) == whole
    for name in ("candidates.jsonl", "verdicts.jsonl"):
        again = (store.corpus_folder(corpus) / name).read_bytes()
        assert again == (Store(tmp_path / "whole").corpus_folder(corpus) / name).read_bytes()
    # Another corpus that asks the same pays nothing.
    other = rewrite_one(corpus.model_copy(update={"variant": "other"}), store)
    assert other.cached_calls == other.calls == whole.calls
