"""The journal of `ZerothOrder`: what is written, what is made again from it, and what is refused."""

from __future__ import annotations

import contextlib
import io
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from optaware.errors import InputError, IntegrityError
from optaware.records import Fast
from optaware.train import ZerothOrder, journal_probes, read_journal, replay
from optaware.train._journal import Journal, read_records
from optaware.train._journal_header import JournalHeader
from optaware.train._journal_records import Mark, Step
from optaware.train.optim import _record

torch.set_num_threads(1)

LOW = {"lr": 1e-3, "rank": 2, "refresh_every": 2}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fast": ("fast", {**LOW, "queries": 2}),
    "dense": ("mezo", {"lr": 1e-4, "weight_decay": 0.1}),
    "rademacher": ("fzoo", {"lr": 1e-3, "queries": 3}),
    "masked": ("sparse-mezo", {"lr": 1e-4}),
    "random-mask": ("mezo", {"lr": 1e-4, "mask": "random"}),
    "layers": ("mezo", {"lr": 1e-4, "layers": 1}),
    "stored-noise": ("mezo", {"lr": 1e-4, "noise": "store"}),
    "dense-adam": ("mezo-adam", {"lr": 1e-4, "window": 3}),
    "one-sided": ("lozo", {**LOW, "estimator": "one-sided", "normalise": True, "queries": 3}),
    "one-point": ("lozo", {**LOW, "estimator": "one-point"}),
    "residual": ("lozo", {**LOW, "estimator": "one-point-residual", "queries": 2}),
    "momentum": ("lozo", {**LOW, "update": "momentum", "clip": 0.5}),
    "adam": ("lozo", {**LOW, "update": "adam", "weight_decay": 0.1}),
    "sign": ("lozo", {**LOW, "update": "sign"}),
    "scheduled": ("fast", {**LOW, "queries": 3, "query_schedule": "linear", "eps_schedule": "linear", "steps": 8}),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def batches(count: int, rows: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(5)
    return [torch.randint(0, 250, (rows, 7), generator=source) for _ in range(count)]


def loss_of(model: Any, ids: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(
        model(input_ids=ids).logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten()
    )


class Killed(Exception):
    pass


def loop(model: Any, path: Path, method: tuple[Any, dict[str, Any]], *, kill: int = 99, resume: bool = False) -> Any:
    """Eight steps with a scheduler, accumulation, a look at the model after step 3, and one loss that is not finite."""
    name, changes = method
    optimizer = ZerothOrder(model, name, seed=3, journal=path, resume=resume, **changes)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=6)
    calls = 0

    def closure(ids: Tensor, step: int) -> Any:
        nonlocal calls
        calls += 1
        return loss_of(model, ids) if step != 5 else torch.tensor(torch.nan)

    for step, ids in enumerate(batches(8), start=1):
        if step == kill:
            raise Killed
        optimizer.estimate(lambda ids=ids, step=step: closure(ids[:1], step))
        optimizer.estimate(lambda ids=ids, step=step: closure(ids[1:], step))
        optimizer.step()
        scheduler.step()
        if step == 3:
            model(input_ids=ids)
    optimizer.close()
    optimizer.calls = calls
    return optimizer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_the_base_model_and_the_journal_are_the_training(
    tiny_model_dir: Path, tmp_path: Path, name: str, dtype: str
) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir, DTYPES[dtype])
    base = weights(model)
    optimizer = loop(model, path, METHODS[name])
    again = load(tiny_model_dir, DTYPES[dtype])
    outcome = replay(path, again)
    assert (outcome.step, outcome.exact, outcome.bound, outcome.identical) == (8, True, 0.0, True)
    assert same(weights(again), weights(model))
    assert not same(base, weights(model))
    assert not any(module._forward_hooks for module in again.modules())
    probes = [each for each in journal_probes(path) if each.step == 8]
    assert tuple(each.coefficient for each in probes) == optimizer.probe.coefficients
    assert probes[0].lr == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("dtype", ["bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_loop_that_was_killed_goes_on_from_its_journal(
    tiny_model_dir: Path, tmp_path: Path, name: str, dtype: str
) -> None:
    whole = load(tiny_model_dir, DTYPES[dtype])
    expected = loop(whole, tmp_path / "whole.bin", METHODS[name])
    path = tmp_path / "journal.bin"
    with pytest.raises(Killed):
        loop(load(tiny_model_dir, DTYPES[dtype]), path, METHODS[name], kill=7)
    path.write_bytes(path.read_bytes() + b"xx")  # a step torn by the kill
    model = load(tiny_model_dir, DTYPES[dtype])
    again = loop(model, path, METHODS[name], resume=True)
    assert same(weights(model), weights(whole))
    assert path.read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert again.calls < expected.calls / 2
    assert (again.forwards, again.skipped) == (expected.forwards, expected.skipped)


def take(model: Any, optimizer: ZerothOrder, data: list[Tensor]) -> None:
    for ids in data:
        optimizer.estimate(lambda ids=ids: loss_of(model, ids))
        optimizer.step()


def test_groups_have_rates_of_their_own_and_the_journal_tells_what_was_trained(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "journal.bin"
    model = load(tiny_model_dir)
    model.get_input_embeddings().requires_grad_(False)
    matrices = [each for each in model.parameters() if each.requires_grad and each.ndim > 1]
    vectors = [each for each in model.parameters() if each.requires_grad and each.ndim < 2]
    groups = [{"params": vectors, "lr": 1e-2}, {"params": matrices, "weight_decay": 0.5}]
    optimizer = ZerothOrder(model, "fast", groups, lr=1e-3, journal=path)
    data = batches(6)
    take(model, optimizer, data[:2])
    optimizer.param_groups[1]["weight_decay"] = 0.25
    take(model, optimizer, data[2:4])
    optimizer.param_groups[0]["lr"] = 3e-3
    take(model, optimizer, data[4:])
    optimizer.close()
    again = load(tiny_model_dir)
    assert replay(path, again).identical
    assert same(weights(again), weights(model))
    assert not again.get_input_embeddings().weight.requires_grad
    rates = [record.rates for record in read_records(path)[1] if isinstance(record, Step)]
    assert (
        rates
        == [((1e-2, 0.0), (1e-3, 0.5))] * 2 + [((1e-2, 0.0), (1e-3, 0.25))] * 2 + [((3e-3, 0.0), (1e-3, 0.25))] * 2
    )


def test_what_cannot_be_replayed_is_refused_with_the_reason(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir)
    optimizer = ZerothOrder(model, "fast", lr=1e-3, journal=path)
    take(model, optimizer, batches(3))
    optimizer.settle()
    whole = path.read_bytes()
    with pytest.raises(IntegrityError, match=r"it starts from weights .*journal-foreign"):
        replay(path, model)  # it is trained already
    with pytest.raises(IntegrityError, match="journal-foreign"):
        replay(path, load(tiny_model_dir, torch.bfloat16))
    with pytest.raises(InputError, match=r"holds 3 steps.*journal-short"):
        replay(path, load(tiny_model_dir), upto=4)
    size = struct.unpack("<8sHH", whole[:12])[2]
    for damaged, why in (
        (whole[:size] + struct.pack("<I", 0xFFFF0077) + whole[size:], "after its step 0 comes what is no record"),
        (whole[:size] + whole[size + 20 :], "after its step 0 comes what is no record"),  # it tells of no rates
        (whole[:8] + b"\x63" + whole[9:], "its version is 99"),
        (whole.replace(b'"groups":[[0,', b'"groups":[[1,'), "its header is damaged"),
        (whole[:20], "within its header"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=rf"{why}.*journal-unreadable"):
            replay(path, load(tiny_model_dir))
    fewer = whole.replace(b'"groups":[[0,20]]', b'"groups":[[0,19]]')
    assert fewer != whole
    path.write_bytes(fewer)
    with pytest.raises(IntegrityError, match=r"not those of a model with 20 parameters.*journal-unreadable"):
        replay(path, load(tiny_model_dir))
    path.write_bytes(whole.replace(b'"name":"fast"', b'"name":"gone"'))
    with pytest.raises(InputError, match="journal-method"):
        replay(path, load(tiny_model_dir))
    path.write_bytes(whole.replace(b'"device":"cpu"', b'"device":"gpu"'))
    with pytest.raises(IntegrityError, match="noise was drawn on gpu"):
        replay(path, load(tiny_model_dir))
    for arguments, code in (
        ({"resume": True}, "journal-missing"),
        ({"journal": path, "direction": "rademacher", "apply": "in-place"}, "journal-in-place"),
    ):
        with pytest.raises(InputError, match=code):
            ZerothOrder(load(tiny_model_dir), "mezo", **arguments)


def test_a_torn_tail_is_left_out_wherever_it_is_torn(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    optimizer = loop(load(tiny_model_dir), path, METHODS["fast"])
    whole = path.read_bytes()
    _, records = read_records(path)
    size = struct.unpack("<8sHH", whole[:12])[2]
    for end in range(size, len(whole)):
        path.write_bytes(whole[:end])
        kept = read_records(path)[1]
        assert repr(kept) == repr(records[: len(kept)])  # a NaN is no other NaN's equal
        assert len(kept) < len(records)
    assert optimizer.steps_done == 8


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(
        st.tuples(
            st.one_of(st.sampled_from([0.0, 1e-3, 2e-5]), st.floats(allow_nan=False, width=64)),
            st.sampled_from([0.0, 0.1]),
            st.floats(0, 1e-2),
        ),
        min_size=1,
        max_size=12,
    ),
    settled=st.sets(st.integers(0, 11)),
)
def test_any_rates_come_back_to_the_bit(tmp_path_factory: Any, rates: list[Any], settled: set[int]) -> None:
    path = tmp_path_factory.mktemp("rates") / "journal.bin"
    header = JournalHeader("", "ab", 3, Fast(queries=2).to_json(), 0, 0, groups=((0, 1), (-1, 2), (1, 4)), version=3)
    journal = Journal(path, header, 0)
    wanted: list[Any] = []
    for number, (lr, decay, other) in enumerate(rates):
        step = Step((0.5, -2.0), ((lr, decay), (other, 0.1)))
        journal.append(step.kept, step.rates)
        wanted.append(step)
        if number in settled:
            journal.mark(Mark("settled"))
            wanted.append(Mark("settled"))
    journal.close()
    found, records = read_records(path)
    assert (found, records) == (header, wanted)
    middle = len(rates) // 2
    if middle:
        Journal(path, header, middle).close()
        assert len(read_journal(path)[1]) == middle


@pytest.mark.parametrize(("schedule", "most"), [("constant", 81_500), ("linear", 101_500), ("cosine", 104_000)])
def test_twenty_thousand_steps_take_a_tenth_of_a_megabyte(tmp_path: Path, schedule: str, most: int) -> None:
    count = 20_000
    shape = {
        "constant": lambda at: 1.0,
        "linear": lambda at: (count - at) / count,
        "cosine": lambda at: 0.5 * (1 + math.cos(math.pi * at / count)),
    }[schedule]
    header = JournalHeader("", "ab" * 16, 3, Fast().to_json(), 0, 0, groups=((0, 20),), version=3, platform="x" * 60)
    journal = Journal(tmp_path / "j", header, 0)
    rates = [2e-5 * shape(at) for at in range(count)]
    for rate in rates:
        journal.append((rate,), ((rate, 0.1),))
    journal.close()
    assert (tmp_path / "j").stat().st_size < most
    assert [record.rates[0][0] for record in read_records(tmp_path / "j")[1] if isinstance(record, Step)] == rates


def test_the_bytes_are_those_of_version_3(tmp_path: Path) -> None:
    """What earlier releases wrote must stay readable; another layout needs another version."""
    header = JournalHeader("", "ab", 3, {"name": "mezo"}, 0, 0, groups=((0, 1),), version=3)
    journal = Journal(tmp_path / "j", header, 0)
    for lr in (1.0, 1.0, 0.5, 0.0, 0.0):
        journal.append((2.0,), ((lr, 0.25),))
    journal.mark(Mark("settled"))
    journal.mark(Mark("moved"))
    journal.append((math.inf,), ((0.0, 0.25),))
    journal.mark(Mark("ended", "00" * 15 + "ff"))
    journal.close()
    words = (
        "0100ffff 000000000000f03f 000000000000d03f 00000040 00000040 0200ffff 00000040 ffffffffffffff0f 00000040 00"
    )
    words += "0300ffff 00000040 0400ffff 0500ffff 0000c07f 0600ffff" + "00" * 15 + "ff"
    text = (
        b'{"base":"ab","device":"cpu","dtype":"","groups":[[0,1]],"method":{"name":"mezo"},"platform":"","seed":3,'
        b'"settle_every":0,"spec":"","steps":0}'
    )
    head = struct.pack("<8sHH", b"OAWJRNL\0", 3, 12 + len(text)) + text
    assert (tmp_path / "j").read_bytes() == head + bytes.fromhex(words.replace(" ", ""))


def test_a_loop_that_does_something_else_trains_on_from_there(tiny_model_dir: Path, tmp_path: Path) -> None:
    """It looks at the model where it did not before: what was recorded afterwards belongs to other weights."""

    def run(path: Path | None, look: int, steps: int, rate: int = 0, resume: bool = False) -> Any:
        model = load(tiny_model_dir, torch.bfloat16)
        optimizer = ZerothOrder(model, "fast", **LOW, seed=3, journal=path, resume=resume)
        for step, ids in enumerate(batches(8)[:steps], start=1):
            if step == rate:
                optimizer.param_groups[0]["lr"] = 5e-3
            take(model, optimizer, [ids])
            if step == look:
                model(input_ids=ids)
        optimizer.close()
        return model, optimizer

    path = tmp_path / "journal.bin"
    for look, rate, steps, repeated in ((3, 0, 8, 3), (3, 0, 4, 3), (5, 0, 8, 7), (0, 4, 8, 3)):
        path.unlink(missing_ok=True)
        run(path, 5, 7)
        model, optimizer = run(path, look, steps, rate, resume=True)
        assert optimizer.repeated == repeated
        assert same(weights(model), weights(run(None, look, steps, rate)[0]))
        assert same(weights(model), weights(replay(path, load(tiny_model_dir, torch.bfloat16)).model))


def test_a_loop_that_stops_early_leaves_the_rest_of_the_journal(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir)
    optimizer = ZerothOrder(model, "fast", **LOW, journal=path)
    take(model, optimizer, batches(5))
    optimizer.close()
    held = path.read_bytes()
    path.write_bytes(held + b"xx")  # a torn tail is cut all the same
    again = load(tiny_model_dir)
    optimizer = ZerothOrder(again, "fast", **LOW, journal=path, resume=True)
    take(again, optimizer, batches(3))
    optimizer.close()
    assert path.read_bytes() == held
    assert same(weights(again), weights(replay(path, load(tiny_model_dir), upto=3).model))


def test_resuming_is_refused_where_it_would_not_be_the_same_training(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir)
    take(model, ZerothOrder(model, "fast", lr=1e-3, seed=3, journal=path), batches(2))
    held = path.read_bytes()

    def resumed(model: Any, **changes: Any) -> None:
        optimizer = ZerothOrder(model, "fast", journal=path, resume=True, **{"lr": 1e-3, "seed": 3, **changes})
        take(model, optimizer, batches(1))

    frozen = load(tiny_model_dir)
    frozen.get_input_embeddings().requires_grad_(False)
    for other, changes, why in (
        (load(tiny_model_dir), {"seed": 4}, "another seed"),
        (load(tiny_model_dir), {"rank": 3}, "another method"),
        (load(tiny_model_dir, torch.bfloat16), {}, "other base weights"),
        (frozen, {}, "other parameters or parameter groups"),
    ):
        with pytest.raises(IntegrityError, match=rf"{why}.*journal-foreign"):
            resumed(other, **changes)
    monkeypatch.setattr(_record, "platform_of", lambda device: "cpu of another kind")
    with pytest.raises(InputError, match=r"cpu of another kind.*journal-inexact"):
        resumed(load(tiny_model_dir))
    assert path.read_bytes() == held


def test_a_state_brings_its_journal_along(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = batches(6)
    model = load(tiny_model_dir)
    optimizer = ZerothOrder(model, "fast", **LOW, journal=tmp_path / "journal.bin")
    take(model, optimizer, data[:3])
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    take(model, optimizer, data[3:])
    optimizer.close()
    written = (tmp_path / "journal.bin").read_bytes()

    def resumed(path: Path) -> None:
        other = load(tiny_model_dir)
        again = ZerothOrder(other, "fast", **LOW, journal=path)
        file.seek(0)
        states = torch.load(file, weights_only=True)
        other.load_state_dict(states[0])
        again.load_state_dict(states[1])
        take(other, again, data[3:])
        again.close()
        assert same(weights(other), weights(model))

    for name in ("journal.bin", "elsewhere.bin"):
        resumed(tmp_path / name)
        assert (tmp_path / name).read_bytes() == written
    (tmp_path / "elsewhere.bin").write_bytes(written[:-100])  # a machine that stopped has lost its end
    resumed(tmp_path / "elsewhere.bin")
    assert (tmp_path / "elsewhere.bin").read_bytes() == written
    (tmp_path / "elsewhere.bin").write_bytes(b"of something else")
    resumed(tmp_path / "elsewhere.bin")
    assert (tmp_path / "elsewhere-1.bin").read_bytes() == b"of something else"
    monkeypatch.setattr(_record, "platform_of", lambda device: "cpu of another kind")
    resumed(tmp_path / "journal.bin")
    outcome = replay(tmp_path / "journal.bin", load(tiny_model_dir))
    assert (outcome.exact, outcome.identical) == (False, True)  # it was this processor after all
    assert outcome.bound == pytest.approx(2 * 6 * 2.0**-24)
    assert replay(tmp_path / "journal.bin", load(tiny_model_dir), upto=2).exact


def test_a_journal_that_cannot_lead_to_the_weights_ends_with_a_warning(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir)
    optimizer = ZerothOrder(model, "fast", **LOW, journal=path)
    take(model, optimizer, batches(2))
    state = optimizer.state_dict()
    held = path.read_bytes()
    model.load_state_dict(load(tiny_model_dir).state_dict())
    with pytest.warns(UserWarning, match="not written any further: other weights were loaded"):
        take(model, optimizer, batches(2))
    optimizer.close()
    assert path.read_bytes() == held
    del state["zeroth_order"]["journal"]
    other = load(tiny_model_dir)
    again = ZerothOrder(other, "fast", **LOW, journal=tmp_path / "other.bin")
    with pytest.warns(UserWarning, match="not written any further: the state that was loaded holds none"):
        again.load_state_dict(state)
    take(other, again, batches(1))
    assert not (tmp_path / "other.bin").exists()


def test_a_process_that_does_not_write_follows(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir)
    optimizer = ZerothOrder(model, "fast", **LOW, journal=path)
    take(model, optimizer, batches(3))
    held = path.read_bytes()
    other = load(tiny_model_dir)
    for resume in (True, False):
        again = ZerothOrder(other, "fast", **LOW, journal=path, resume=resume)
        assert again._record is not None
        again._record._writes = False
        take(other, again, batches(4))
        assert again.repeated == (3 if resume else 0)
        assert path.read_bytes() == held
        other = load(tiny_model_dir)
    assert [each.name for each in tmp_path.iterdir()] == ["journal.bin"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=9), st.integers(0xFFFF0000, 0xFFFF0008)), max_size=12))
def test_whatever_follows_the_header_is_read_or_told_of(tmp_path_factory: Any, parts: list[bytes | int]) -> None:
    path = tmp_path_factory.mktemp("bytes") / "journal.bin"
    header = JournalHeader("", "ab", 3, Fast().to_json(), 0, 0, groups=((0, 1),), version=3)
    body = b"".join(struct.pack("<I", each) if isinstance(each, int) else each for each in parts)
    path.write_bytes(header.pack() + body)
    records: list[Any] = []
    with contextlib.suppress(IntegrityError):  # nothing else may be raised
        _, records = read_records(path)
    steps = [record for record in records if isinstance(record, Step)]
    assert all(len(step.kept) == 1 and len(step.rates) == 1 for step in steps)
