"""A kill at the worst moment: right before the marker, or between a reply and the record of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from optaware._io import read_json, write_json
from optaware.data import make_corpus_spec
from optaware.data._ledger import Ledger
from optaware.records import ChatModelRef, CorpusSpec, DataRef, MeZO, ModelRef, Protocol, RunSpec, Schedule
from optaware.report import load_report_run
from optaware.store import RunFolder, Store
from optaware.study import _rewrite_one, _train_one, rewrite_one, train_one
from optaware.tasks import get_task, load_splits

TASK = Path(__file__).parents[2] / "examples" / "tasks" / "ticket_routing.yaml"
PROTOCOL = Protocol(name="free", train=12, dev=6, test=9)


class Killed(BaseException):
    pass


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def spec_of(model: Path) -> RunSpec:
    return RunSpec(
        model=ModelRef(name=str(model), dtype="fp32"),
        data=DataRef(task=str(TASK), protocol=PROTOCOL),
        method=MeZO(lr=1e-3),
        schedule=Schedule(steps=3, batch_size=4, max_length=64),
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run."""
    root = tmp_path_factory.mktemp("finished") / "store"
    train_one(spec_of(tiny_model_dir), Store(root))
    return root


def test_a_run_killed_before_its_marker_is_only_marked(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tiny_model_dir)
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


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("name", ["steps.jsonl", "eval.jsonl", "predictions.jsonl", "journal.bin", "env.json"])
def test_a_finished_run_whose_file_lost_bytes_is_made_again(
    tmp_path: Path, finished: Path, name: str, marked: bool
) -> None:
    shutil.copytree(finished, tmp_path / "store")
    store = Store(tmp_path / "store")
    (place,) = (store.root / "runs").iterdir()
    folder = RunFolder(place)
    spec, before, text = folder.read_spec(), folder.read_result(), (place / name).read_bytes()
    (place / name).write_bytes(text[: len(text) // 2])
    if not marked:
        folder.done.unlink()
    assert not folder.is_done
    if marked:
        assert f"{name} is not as long as it was" in load_report_run(place).detail
    assert train_one(spec, store).test == before.test
    assert folder.is_done
    assert load_report_run(place).state == "done"
    if name.startswith(("predictions", "journal")):  # the others hold times
        assert (place / name).read_bytes() == text


def test_a_run_of_a_version_that_kept_no_sizes_stays_done(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "store")
    (place,) = (tmp_path / "store" / "runs").iterdir()
    result = read_json(place / "result.json")
    write_json(place / "result.json", {key: value for key, value in result.items() if key != "files"})
    assert RunFolder(place).is_done
    (place / "result.json").write_text("{")
    assert not RunFolder(place).is_done
