"""Memory that runs out in the middle of a study's runs: fewer rows go through the model at once, and it is said."""

import pytest
import torch

from optaware._io import write_json
from optaware.cli._app import invoke
from optaware.errors import MemoryUsedUp
from optaware.execute import InProcess
from optaware.models import OptionScorer
from optaware.store import Store
from optaware.study import run_study


@pytest.fixture
def small_device(monkeypatch):
    """A device on which a loss over more than so many rows runs out of memory, from the fourth loss on."""
    fits = {"rows": 4, "losses": 0}
    for name in ("loss", "copies"):
        monkeypatch.setattr(OptionScorer, name, _limited(getattr(OptionScorer, name), fits))
    return fits


def _limited(whole, fits):
    def limited(self, batch, *arguments, **options):
        fits["losses"] += 1
        if fits["losses"] > 3 and len(batch) > fits["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")
        return whole(self, batch, *arguments, **options)

    return limited


def run(graph, store):
    return run_study(graph, store, InProcess(invoke, lambda: False), report=False)


def test_a_study_goes_on_with_fewer_rows_at_once(graph, small_device, tmp_path):
    apart, store = Store(tmp_path / "apart"), Store(tmp_path / "store")
    assert not run(graph, apart).failures
    small_device |= {"rows": 1, "losses": 0}
    assert not run(graph, store).failures
    for spec in graph.runs:
        result = store.run_folder(spec).read_result()
        assert "out of memory: at most 1 rows at once" in result.detail
        assert result.steps == 6
        # The mathematics is that of the whole batch.
        assert result.dev.loss == pytest.approx(apart.run_folder(spec).read_result().dev.loss, abs=1e-4)
        assert apart.run_folder(spec).read_result().detail == ""


def test_what_does_not_fit_row_by_row_fails_with_the_reason_and_the_study_goes_on(graph, small_device, tmp_path):
    small_device["rows"] = 0
    outcome = run(graph, Store(tmp_path / "store"))
    assert len(outcome.failures) == 2
    assert all("out of memory" in detail.lower() for detail in outcome.failures.values())


def test_a_run_without_room_says_what_to_do_and_leaves_with_a_code_of_its_own(graph, small_device, tmp_path):
    small_device["rows"] = 0
    store = Store(tmp_path / "store")
    spec = tmp_path / "spec.json"
    write_json(spec, graph.runs[0].to_json())
    with pytest.raises(MemoryUsedUp, match=r"out of memory.*--workers.*\[memory-used-up\]") as caught:
        invoke(["train", str(spec), "--store", str(store.root), "--quiet"])
    assert caught.value.exit_code == 4
    assert "memory-used-up" in store.run_folder(graph.runs[0]).read_status().detail


def test_every_command_says_it_in_these_words(monkeypatch):
    def full(*arguments, **options):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr("optaware.cli._app.app", full)
    with pytest.raises(MemoryUsedUp, match=r"^data rewrite: CUDA error"):
        invoke(["data", "rewrite", "--task", "sst2"])


def test_another_fault_is_not_taken_for_it(graph, monkeypatch, tmp_path):
    def broken(self, *arguments, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(OptionScorer, "loss", broken)
    monkeypatch.setattr(OptionScorer, "copies", broken)
    outcome = run(graph, Store(tmp_path / "store"))
    assert len(outcome.failures) == 2
    assert all("shapes do not match" in detail for detail in outcome.failures.values())
