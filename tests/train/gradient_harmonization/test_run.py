"""Whole runs on toy episodes: to the end, resumed to the same bits, diverged; and data that cannot be used."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from optaware.errors import InputError, StoppedBySignal
from optaware.records import Episodes, GradientHarmonization, ModelRef, RunSpec, Schedule
from optaware.store import Store
from optaware.study import train_one
from optaware.train.methods.gradient_harmonization import load_classes
from optaware.train.methods.gradient_harmonization._tasks import draw_tasks, images_of


def drawings(classes=12, count=6, side=8):
    """Classes that can be told apart: each has its own bright bar."""
    source = np.random.default_rng(0)
    images = source.integers(0, 60, (classes, count, side, side), dtype=np.uint8)
    for index in range(classes):
        images[index, :, index % side, : 4 + index // side] += 150
    return images


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("episodes") / "bars.npz"
    np.savez_compressed(path, images=drawings())
    return path


def spec_of(data_file, steps=6, data=None, every=2, **method):
    small = {"ways": 2, "queries": 2, "validation_classes": 2, "test_shots": (1, 2)}
    small |= {"test_episodes": 4, "validation_episodes": 3, **(data or {})}
    return RunSpec(
        model=ModelRef(name="conv4-3", dtype="fp32"),
        data=Episodes(source=str(data_file), **small),
        method=GradientHarmonization(**method),
        schedule=Schedule(steps=steps, batch_size=3, eval_every=every),
        device="cpu",
    )


def bytes_of(folder):
    rows = [json.loads(line) for line in folder.steps.read_text().splitlines()]
    weights = next((folder.path / "weights").glob("*.safetensors")).read_bytes()
    return [{**row, "step_s": 0} for row in rows], weights, (folder.path / "episodes.jsonl").read_bytes()


@pytest.mark.parametrize(
    "method", [{"mode": "sample", "score": "cosine"}, {"aggregator": "pcgrad"}, {"aggregator": "gradvac"}]
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(data_file, tmp_path, method):
    spec = spec_of(data_file, **method)
    train_one(spec, Store(tmp_path / "whole"))
    store = Store(tmp_path / "parts")
    for stop_after in (1, 2):
        asked = []

        def stop(asked=asked, stop_after=stop_after):
            asked.append(None)
            return len(asked) > stop_after

        with pytest.raises(StoppedBySignal, match="told to stop"):
            train_one(spec, store, should_stop=stop)
    result = train_one(spec, store)
    whole = Store(tmp_path / "whole").run_folder(spec)
    assert bytes_of(store.run_folder(spec)) == bytes_of(whole)
    other = whole.read_result()
    assert result.metrics == other.metrics
    assert {"2-way-1-shot accuracy", "2-way-2-shot accuracy ci95", "GCI", "nGCI after", "weight entropy"} <= set(
        result.metrics
    )
    assert not (whole.path / "checkpoint-last").exists()


@pytest.mark.parametrize("inner", ["fomaml", "anil", "reptile"])
def test_training_learns_the_toy_classes(data_file, tmp_path, inner):
    spec = spec_of(data_file, steps=60, every=60, inner=inner, inner_steps=2, lr=0.02)
    events = []
    result = train_one(spec, Store(tmp_path), on_event=events.append)
    losses = [event.record.loss for event in events if hasattr(event.record, "skipped")]
    assert len(losses) == 60
    assert sum(losses[-10:]) < sum(losses[:10])
    assert result.outcome == "done"


def test_gradients_that_are_not_finite_end_a_run_as_diverged(data_file, tmp_path):
    result = train_one(spec_of(data_file, steps=60, every=60, inner_lr=1e38, inner_steps=2), Store(tmp_path))
    assert result.outcome == "diverged"
    assert result.skipped >= 50
    assert "no finite gradient" in result.detail


def test_tasks_are_functions_of_their_seed_and_mixes_do_what_they_say():
    kwargs = {"available": (9, 7), "ways": 3, "shots": 1, "queries": 2}
    both = draw_tasks([5, 6], **kwargs)
    alone = draw_tasks([6], **kwargs)
    assert torch.equal(both.classes[1:], alone.classes)
    assert torch.equal(both.drawings[1:], alone.drawings)
    assert all(len(set(row)) == 3 for row in both.classes.tolist())
    corrupted = draw_tasks(range(40), **kwargs, mix="corrupted")
    odd = (corrupted.query_labels != both.query_labels[0]).any(1)
    assert 10 < int(odd.sum()) < 30
    assert not (
        draw_tasks(range(40), **kwargs, mix="corrupted", training=False).query_labels[odd] != both.query_labels[0]
    ).any()
    inverted = draw_tasks(range(40), **kwargs, mix="inverted")
    images = torch.full((9, 7, 4, 4, 1), 51, dtype=torch.uint8)
    support, labels, query = images_of(images, inverted.classes, inverted.drawings, inverted.inverted, 1)
    assert support.shape == (40, 3, 4, 4, 1)
    assert query.shape == (40, 6, 4, 4, 1)
    assert labels[0].tolist() == [0, 1, 2]
    assert {round(value, 3) for value in support.flatten().unique().tolist()} == {0.2, 0.8}


def test_the_three_class_sets_do_not_overlap(data_file):
    marked = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((12, 6, 8, 8), np.uint8)
    path = data_file.with_name("marked.npz")
    np.savez(path, images=marked)
    classes = load_classes(Episodes(source=str(path), ways=2, queries=1, validation_classes=3, test_shots=(1,)), None)
    sets = [set(part[:, 0, 0, 0, 0].tolist()) for part in (classes.train, classes.validation, classes.test)]
    assert [len(found) for found in sets] == [6, 3, 3]
    assert set.union(*sets) == set(range(12))
    assert len(classes.train) == 4 * 6
    assert "6 for training (times 4 rotations), 3 for validation, 3 for test" in classes.split


def test_an_image_folder_a_tensor_file_and_an_archive_give_the_same_episodes(tmp_path):
    from PIL import Image

    images = np.kron(drawings(8, 3, 7), np.ones((4, 4), np.uint8))
    np.savez(tmp_path / "a.npz", images=images)
    save_file({"images": torch.from_numpy(images).unsqueeze(-1) / 255}, tmp_path / "a.safetensors")
    for index, rows in enumerate(images):
        folder = tmp_path / "tree" / "alphabet" / f"class{index}"
        folder.mkdir(parents=True)
        for number, row in enumerate(rows):
            Image.fromarray(row).save(folder / f"{number}.png")
    small = {"ways": 2, "queries": 1, "validation_classes": 2, "test_shots": (1,)}
    found = [load_classes(Episodes(source=name, **small), tmp_path) for name in ("a.npz", "a.safetensors", "tree")]
    assert torch.equal(found[0].train, found[1].train)
    assert torch.equal(found[0].test, found[2].test)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"ways": 5}, "episodes-classes", "fewer than the 5 of a task"),
        ({"shots": 5}, "episodes-drawings", "6 drawings, fewer than 5 shots and 2 queries"),
        ({"train_classes": 40}, "episodes-classes", "there are 12 classes"),
        ({"validation_classes": 9}, "episodes-classes", "training classes are left"),
        ({"source": "nowhere"}, "episodes-missing", "nowhere"),
        ({"source_sha256": "0" * 64}, "episodes-changed", "content hash"),
    ],
)
def test_data_that_do_not_suffice_are_said(data_file, change, code, said):
    values = {"source": str(data_file), "ways": 2, "queries": 2, "validation_classes": 2, "test_shots": (1, 2)}
    with pytest.raises(InputError, match=said) as caught:
        load_classes(Episodes(**{**values, **change}), None)
    assert code in {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((4, 4, 8), np.uint8), "episodes-shape"),
        (np.zeros((4, 4, 8, 9), np.uint8), "episodes-shape"),
        (np.full((4, 4, 8, 8), 2.0), "episodes-range"),
        (np.full((4, 4, 8, 8), np.nan), "episodes-range"),
        (np.array([{"a": 1}], dtype=object), "episodes-unreadable"),
    ],
)
def test_arrays_that_are_no_images_are_said(tmp_path, array, code):
    np.savez(tmp_path / "bad.npz", images=array)
    with pytest.raises(InputError) as caught:
        load_classes(Episodes(source=str(tmp_path / "bad.npz")), None)
    assert caught.value.code == code


def test_a_file_without_images_or_that_is_no_archive_is_said(tmp_path):
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(InputError) as caught:
            load_classes(Episodes(source=str(tmp_path / name)), None)
        assert caught.value.code == "episodes-unreadable"


@pytest.mark.parametrize(
    ("model", "code"), [({"name": "resnet"}, "network-unknown"), ({"name": "mlp", "dtype": "bf16"}, "network-dtype")]
)
def test_other_networks_are_turned_down(data_file, tmp_path, model, code):
    spec = spec_of(data_file).model_copy(update={"model": ModelRef(**{"dtype": "fp32", **model})})
    with pytest.raises(InputError) as caught:
        train_one(spec, Store(tmp_path))
    assert caught.value.code == code
