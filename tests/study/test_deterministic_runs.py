"""`deterministic: true` reaches the kernels of a run, is part of its identity, and leaves earlier ids as they were."""

from __future__ import annotations

import torch

from optaware.records import short_id
from optaware.store import Store
from optaware.study import load_study, plan_study, train_one


def test_a_run_uses_the_kernels_that_its_study_asks_for(write_study, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    study = load_study(write_study(tmp_path / "study.yaml", "http://127.0.0.1:1/v1"))
    asked = study.model_copy(update={"deterministic": True})
    [plain, *_], [spec, *_] = (
        [run for run in plan_study(each).runs if run.method.name == "mezo" and run.corpus_id is None]
        for each in (study, asked)
    )
    assert spec.deterministic
    assert short_id(spec) != short_id(plain)
    seen: dict[str, set[bool]] = {}
    for name, run in (("plain", plain), ("deterministic", spec)):
        told = seen.setdefault(name, set())
        train_one(
            run,
            Store(tmp_path / "store"),
            on_event=lambda _, told=told: told.add(torch.are_deterministic_algorithms_enabled()),
        )
    assert seen == {"plain": {False}, "deterministic": {True}}
