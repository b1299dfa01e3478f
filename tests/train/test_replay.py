from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optaware._io import read_jsonl
from optaware.errors import InputError, IntegrityError
from optaware.records import FZOO, LOZO, MeZO, MeZOAdam
from optaware.train import ZerothOrderLearner, journal_probes, read_journal, replay, train
from optaware.train._journal import HEADER_1, MAGIC, Journal
from optaware.train._methods import make_learner
from optaware.train._replay import replay_bound

LOW = {"direction": "low-rank", "rank": 2, "refresh_every": 2, "lr": 1e-2, "eps": 1e-2}
METHODS = {
    "paper": MeZO(lr=1e-2, eps=1e-2, weight_decay=0.1, apply="in-place", precision="none"),
    "in-place": MeZO(lr=1e-2, eps=1e-2, queries=2, apply="in-place", clip=1.0),
    "in-place-one-sided": FZOO(lr=1e-2, eps=1e-2, queries=3, apply="in-place", precision="none"),
    "dense": MeZO(lr=1e-2, eps=1e-2, weight_decay=0.1, queries=2),
    "rademacher": FZOO(lr=1e-2, eps=1e-2, queries=3),
    "dense-adam": MeZOAdam(lr=1e-2, eps=1e-2, window=3),
    "low-rank": LOZO(**LOW, weight_decay=0.1, queries=2),
    "scheduled": LOZO(**LOW, queries=3, query_schedule="linear", lr_schedule="cosine", warmup=2, eps_schedule="linear"),
    "momentum": LOZO(**LOW, update="momentum", clip=0.5),
    "adam": LOZO(**LOW, update="adam"),
    "replayed": LOZO(**LOW, update="adam", moments="replayed", window=3),
    "sign": LOZO(**LOW, update="sign"),
    "one-sided": LOZO(**LOW, estimator="one-sided", normalise=True, queries=3),
    "one-point": LOZO(**LOW, estimator="one-point"),
    "residual": LOZO(**LOW, estimator="one-point-residual", queries=2),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def go(kit: Any, spec: Any, path: Path, *, scorer: Any = None, sha256: str = "ab" * 32) -> tuple[Any, Any]:
    loaded = kit.Loaded(kit.llama(DTYPES[spec.model.dtype]), kit.Tokenizer(), sha256=sha256)
    outcome = train(
        spec,
        kit.RunFolder(path),
        loaded=loaded,
        scorer=(scorer or kit.Scorer)(loaded.model),
        train_rows=kit.rows(10),
        dev_rows=kit.rows(6, seed=1),
        objective="options",
    )
    return outcome, loaded.model


def same(a: Any, b: Any) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_the_journal_and_the_base_weights_are_the_run(kit: Any, tmp_path: Path, name: str, dtype: str) -> None:
    spec = kit.run_spec(METHODS[name], dtype, steps=7, eval_every=3)
    outcome, model = go(kit, spec, tmp_path)
    base = kit.llama(DTYPES[dtype])
    again = replay(tmp_path / "journal.bin", base, base="ab" * 32, upto=outcome.best_step)
    assert (again.step, again.exact, again.bound) == (outcome.best_step, True, 0.0)
    assert outcome.best_step == 0 or not same(kit.llama(DTYPES[dtype]), model)
    assert same(again.model, model)
    assert not any(module._forward_hooks for module in again.model.modules())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_before_its_first_checkpoint_goes_on_from_its_journal(
    kit: Any, tmp_path: Path, name: str, dtype: str
) -> None:
    class Killed(Exception):
        pass

    class Killing(kit.Scorer):  # type: ignore[name-defined, misc]
        def loss(self, batch: Any, objective: str) -> Any:
            if len(batch) == 4 and len(read_jsonl(tmp_path / "parts/steps.jsonl")) >= 5:
                raise Killed
            return super().loss(batch, objective)

    class Counting(kit.Scorer):  # type: ignore[name-defined, misc]
        calls = 0

        def loss(self, batch: Any, objective: str) -> Any:
            type(self).calls += len(batch) == 4
            return super().loss(batch, objective)

    spec = kit.run_spec(METHODS[name], dtype, steps=7, eval_every=7)
    _, expected = go(kit, spec, tmp_path / "whole")
    with pytest.raises(Killed):
        go(kit, spec, tmp_path / "parts", scorer=Killing)
    assert not list((tmp_path / "parts").glob("checkpoint-*"))
    journal = (tmp_path / "parts/journal.bin").read_bytes()
    (tmp_path / "parts/journal.bin").write_bytes(journal + b"xx")  # a step torn by the kill
    _, model = go(kit, spec, tmp_path / "parts", scorer=Counting)
    assert same(model, expected)
    assert (tmp_path / "parts/journal.bin").read_bytes() == (tmp_path / "whole/journal.bin").read_bytes()
    rows = [read_jsonl(tmp_path / run / "steps.jsonl") for run in ("whole", "parts")]
    assert [{**row, "step_s": 0} for row in rows[0]] == [{**row, "step_s": 0} for row in rows[1]]
    left = sum(row["forwards"] for row in rows[0][6:]) - rows[0][4]["forwards"]
    looks = 0 if name == "paper" else 2  # at the loss, to see that it is deterministic
    assert Counting.calls == left + looks


def test_every_probe_can_be_had_back(kit: Any, tmp_path: Path) -> None:
    for name in ("scheduled", "residual", "one-sided"):
        spec = kit.run_spec(METHODS[name], steps=5)
        go(kit, spec, tmp_path / name)
        rows = read_jsonl(tmp_path / name / "steps.jsonl")
        probes = list(journal_probes(tmp_path / name / "journal.bin"))
        assert [each.coefficient for each in probes] == [value for row in rows for value in row["coefficients"]]
        assert {each.step: each.lr for each in probes} == {row["step"]: row["lr"] for row in rows}
        assert len({each.seed for each in probes}) == len(probes)


def test_what_cannot_be_replayed_is_refused_with_the_reason(kit: Any, tmp_path: Path) -> None:
    spec = kit.run_spec(METHODS["low-rank"], steps=4, eval_every=9)
    go(kit, spec, tmp_path)
    path = tmp_path / "journal.bin"
    with pytest.raises(IntegrityError, match=r"starts from weights abab.*the model given has cdcd"):
        replay(path, kit.llama(), base="cd" * 32)
    with pytest.raises(InputError, match="holds 4 steps"):
        replay(path, kit.llama(), base=None, upto=5)
    header, _ = read_journal(path)
    for changes, why in (({"device": "cuda"}, "drawn on cuda"), ({"method": {"name": "gone"}}, "journal-method")):
        Journal(path, dataclasses.replace(header, **changes), 0).close()
        with pytest.raises((IntegrityError, InputError), match=why):
            replay(path, kit.llama(), base=None)
    old = HEADER_1.pack(MAGIC, 1, HEADER_1.size, 1, 0, 1e-6, 1e-3, bytes(32), bytes(32))
    path.write_bytes(old)
    with pytest.raises(InputError, match="version 1"):
        replay(path, kit.llama(), base=None)


def test_a_run_does_not_go_on_from_the_journal_of_another(kit: Any, tmp_path: Path) -> None:
    spec = kit.run_spec(METHODS["low-rank"], steps=4)
    go(kit, spec, tmp_path)
    for each in tmp_path.glob("checkpoint-*/*"):
        each.unlink()
    with pytest.raises(IntegrityError, match="other base weights"):
        go(kit, spec, tmp_path, sha256="cd" * 32)
    outcome, _ = go(kit, spec, tmp_path)
    assert outcome.steps == 4


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    coefficients=st.lists(
        st.one_of(st.floats(-20, 20, width=32), st.just(float("nan"))), min_size=2, max_size=8
    ).filter(lambda values: len(values) % 2 == 0),
    settle=st.integers(1, 5),
    other=st.integers(1, 5),
    dtype=st.sampled_from(["fp32", "bf16"]),
)
def test_when_what_was_learnt_is_stored_moves_the_weights_by_less_than_the_bound(
    kit: Any, tmp_path: Path, coefficients: list[float], settle: int, other: int, dtype: str
) -> None:
    """Sums taken in another order stand in for another processor."""
    steps = len(coefficients) // 2
    spec = kit.run_spec(METHODS["low-rank"], dtype, steps=steps)
    made: list[dict[str, Any]] = []
    for every in (settle, other):
        model = kit.llama(DTYPES[dtype])
        learner = make_learner(model, lambda batch: None, spec.method, 3, steps)
        assert isinstance(learner, ZerothOrderLearner)
        for step in range(1, steps + 1):
            learner.repeat(step, coefficients[2 * step - 2 : 2 * step])
            if step % every == 0:
                learner.settle()
        learner.settle()
        state = learner.state()
        learner.close()
        weights = {key: weight.double() for key, weight in learner.weights().items()}
        for key, residual in state.items():
            if key.startswith("residual."):
                weights[key.removeprefix("residual.")] += residual.double() / 1024
        made.append(weights)
    header, _ = read_journal(_journal(kit, spec, tmp_path))
    bound = replay_bound(header, steps, DTYPES[dtype])
    for name, weight in made[0].items():
        scale = float(weight.abs().max())
        assert float((weight - made[1][name]).abs().max()) <= bound * scale + (
            2.0**-8 * scale if weight.ndim < 2 else 0
        )


def _journal(kit: Any, spec: Any, folder: Path) -> Path:
    from optaware.train._journal import JournalHeader

    path = folder / "j"
    Journal(path, JournalHeader("12" * 32, "ab" * 32, 3, spec.method.to_json(), spec.schedule.steps, 3), 0).close()
    return path
