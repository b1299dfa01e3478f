"""What one machine has finished is carried to another in one file, and the study goes on there."""

import io
import json
import tarfile

import pytest

from optaware.cli._app import invoke
from optaware.errors import InputError
from optaware.execute import InProcess
from optaware.records import RunStatus
from optaware.store import Store, pack_store, unpack_store
from optaware.study import run_study


def run_graph(graph, store):
    return run_study(graph, store, InProcess(invoke, lambda: False), report=False)


def names(archive):
    with tarfile.open(archive) as file:
        return file.getnames()


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for kind in ("runs", "corpora")
        for path in (root / kind).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def here(tmp_path, graph):
    """A results folder with two finished runs and one corpus, and beside them what is not to travel."""
    store = Store(tmp_path / "here")
    run_graph(graph, store)
    corpus = store.root / "corpora" / "0123456789ab-copa-oat"
    corpus.mkdir(parents=True)
    for name in ("card.json", "rows.jsonl", "DONE"):
        (corpus / name).write_text("{}", "utf-8")
    (store.root / "chat-cache").mkdir()
    (store.root / "chat-cache" / "reply.json").write_text("{}", "utf-8")
    begun = store.root / "runs" / "abcdefabcdef-begun"
    (begun / "checkpoint-3").mkdir(parents=True)
    (begun / "checkpoint-3" / "state.json").write_text("{}", "utf-8")
    (begun / "spec.json").write_text("{}", "utf-8")
    left = store.run_folder(graph.runs[0]).path / "checkpoint-9"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"0" * 1000)
    return store


def test_what_is_finished_travels_and_nothing_of_it_is_made_again(here, graph, tmp_path, capsys):
    archive = tmp_path / "results.tar.gz"
    assert invoke(["runs", "pack", str(archive), "--store", str(here.root)]) == 0
    assert "1 corpora, 2 runs" in capsys.readouterr().out
    assert not [name for name in names(archive) if "checkpoint" in name or "begun" in name or "chat-cache" in name]
    there = Store(tmp_path / "there")
    assert invoke(["runs", "unpack", str(archive), "--store", str(there.root)]) == 0
    assert "1 corpora, 2 runs put in place, 0 were there" in capsys.readouterr().out
    packed = {name: data for name, data in files(here.root).items() if "checkpoint" not in name and "begun" not in name}
    assert files(there.root) == packed
    before = {run.path: run.result.stat().st_mtime_ns for run in there.runs()}
    outcome = run_graph(graph, there)
    assert not outcome.failures
    assert {run.path: run.result.stat().st_mtime_ns for run in there.runs()} == before


def test_what_is_there_stays_and_a_second_archive_adds_to_it(here, graph, tmp_path):
    archive, there = tmp_path / "results.tar.gz", Store(tmp_path / "there")
    pack_store(here, archive)
    kept = there.run_folder(graph.runs[0]).path
    kept.mkdir(parents=True)
    (kept / "spec.json").write_text("mine", "utf-8")
    first = unpack_store(archive, there)
    assert first.begun == (f"runs/{kept.name}",)
    assert (first.taken["runs"], first.taken["corpora"]) == (1, 1)
    assert (kept / "spec.json").read_text("utf-8") == "mine"
    second = unpack_store(archive, there)
    assert sum(second.taken.values()) == 0
    assert len(second.there) == 2


def test_a_run_that_its_grid_has_no_use_for_travels_too(here, graph, tmp_path):
    pruned = here.run_folder(graph.runs[0])
    pruned.done.unlink()
    pruned.result.unlink()
    pruned.write_status(RunStatus(state="pruned", step=3, steps=6))
    archive, there = tmp_path / "results.tar.gz", Store(tmp_path / "there")
    assert pack_store(here, archive).folders["runs"] == 2
    unpacked = unpack_store(archive, there)
    assert (unpacked.taken["runs"], unpacked.refused) == (2, {})
    assert there.run_folder(graph.runs[0]).read_status().state == "pruned"
    assert len(unpack_store(archive, there).there) == 3


def test_a_run_that_lost_bytes_is_neither_packed_nor_taken(here, graph, tmp_path, capsys):
    archive, there = tmp_path / "results.tar.gz", Store(tmp_path / "there")
    hurt = here.run_folder(graph.runs[0])
    whole = hurt.evals.read_bytes()
    hurt.evals.write_bytes(whole[:-3])
    assert pack_store(here, archive).damaged == (f"runs/{hurt.path.name}",)
    hurt.evals.write_bytes(whole)
    pack_store(here, archive)
    with tarfile.open(archive) as old, tarfile.open(tmp_path / "hurt.tar.gz", "w:gz") as new:
        for info in old:
            data = old.extractfile(info).read()
            if info.name == f"runs/{hurt.path.name}/eval.jsonl":
                data = data[:-3]
            elif info.name.startswith("runs/") and info.name.endswith("spec.json") and hurt.path.name not in info.name:
                data = data.replace(b'"seed": 0', b'"seed": 7')
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    assert invoke(["runs", "unpack", str(tmp_path / "hurt.tar.gz"), "--store", str(there.root), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["taken"]["runs"], said["taken"]["corpora"]) == (0, 1)
    assert any("eval.jsonl is not as long" in why for why in said["refused"].values())
    assert not there.runs()


def test_of_an_archive_that_was_cut_off_or_changed_nothing_is_taken(here, tmp_path):
    archive, there = tmp_path / "results.tar.gz", Store(tmp_path / "there")
    pack_store(here, archive)
    whole = archive.read_bytes()
    changed = bytearray(whole)
    changed[-6] ^= 1  # the checksum at the end: tar itself does not read so far
    for hurt in (whole[:-600], whole[:-4], bytes(changed), whole[: len(whole) // 2], b"", b"not an archive"):
        archive.write_bytes(hurt)
        with pytest.raises(InputError, match=r"nothing of it was taken.*\[pack-damaged\]"):
            unpack_store(archive, there)
    assert not there.root.exists()


@pytest.mark.parametrize("name", ["../../x", "runs/a/../../../x", "elsewhere/a/b", "/runs/a/DONE", "runs/a\\b/c"])
def test_a_name_that_would_lie_elsewhere_is_refused(tmp_path, name):
    archive = tmp_path / "bad.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for member in ("corpora/0123456789ab-a/DONE", name):
            info = tarfile.TarInfo(member)
            info.size = 1
            file.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(InputError, match=r"no file of a run or corpus; nothing of it was taken"):
        unpack_store(archive, Store(tmp_path / "there"))
    assert not (tmp_path / "there").exists()
    assert not list(tmp_path.rglob("x"))


def test_a_link_is_refused(tmp_path):
    archive = tmp_path / "bad.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        info = tarfile.TarInfo("runs/a/DONE")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(InputError, match="no file of a run or corpus"):
        unpack_store(archive, Store(tmp_path / "there"))


def test_what_cannot_be_packed_or_unpacked_is_said(tmp_path):
    with pytest.raises(InputError, match="no run and no corpus"):
        pack_store(Store(tmp_path), tmp_path / "a.tar.gz")
    with pytest.raises(InputError, match=r"\.tar\.gz"):
        pack_store(Store(tmp_path), tmp_path / "a.zip")
    with pytest.raises(InputError, match="no such file"):
        unpack_store(tmp_path / "a.tar.gz", Store(tmp_path / "there"))
