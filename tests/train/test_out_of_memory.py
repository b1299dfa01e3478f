"""A device whose memory does not hold all rows of a batch at once, made on the CPU: a layer that refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from optaware._io import read_json, read_jsonl, write_json
from optaware.errors import StoppedBySignal
from optaware.records import FOFull, FOLoRA, MeZO
from optaware.train import StepEvent, train

METHODS = {
    "in place": MeZO(lr=1e-2, eps=1e-2, apply="in-place", precision="none"),
    "dense": MeZO(lr=1e-2, eps=1e-2, queries=2),
    "low-rank": MeZO(lr=1e-2, eps=1e-2, direction="low-rank", rank=2, refresh_every=2, queries=2),
    "low-rank, Adam": MeZO(lr=1e-3, eps=1e-2, direction="low-rank", rank=2, update="adam"),
    "one point": MeZO(lr=1e-3, eps=1e-2, estimator="one-point-residual"),
    "accuracy": MeZO(lr=1e-2, eps=1e-1, objective="accuracy"),
    "fo-full": FOFull(lr=1e-2),
    "fo-lora": FOLoRA(lr=1e-2, rank=2, dropout=0.0),
}


class Memory:
    """Refuses more than `rows` rows in the last layer of a model, from the `after`-th call on."""

    def __init__(self, model: Any, rows: int, after: int = 0) -> None:
        self.rows, self.after, self.calls, self.refused, self.most = rows, after, 0, 0, 0
        layer = list(model.modules())[-1] if not hasattr(model, "model") else model.model.layers[-1]
        layer.register_forward_pre_hook(self.look)

    def look(self, _: Any, args: Any) -> None:
        self.calls += 1
        if len(args[0]) > self.rows and self.calls > self.after:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        self.most = max(self.most, len(args[0]))


def go(kit: Any, spec: Any, path: Path, rows: int | None, stop_after: int | None = None, after: int = 0) -> Any:
    model = kit.llama().double()
    memory = Memory(model, 10**6 if rows is None else rows, after)
    path.mkdir(exist_ok=True)
    if not (path / "resolved.json").exists():
        write_json(path / "resolved.json", {})
    seen: list[Any] = []
    outcome = train(
        spec,
        kit.RunFolder(path),
        loaded=kit.Loaded(model, kit.Tokenizer()),
        scorer=Scorer(kit, model),
        train_rows=kit.rows(10),
        dev_rows=kit.rows(2, seed=1),
        objective="options",
        on_event=seen.append,
        should_stop=lambda: stop_after is not None and sum(isinstance(each, StepEvent) for each in seen) >= stop_after,
    )
    return outcome, {name: value.clone() for name, value in model.state_dict().items()}, memory


def Scorer(kit: Any, model: Any) -> Any:
    class WithOptions(kit.Scorer):  # type: ignore[name-defined, misc]
        def option_logprobs(self, batch: Any) -> Any:
            ids = torch.tensor([row.prompt_ids for row in batch])
            logits = self.model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1].float()
            return torch.stack([logits[i, [o[0] for o in row.option_ids]] for i, row in enumerate(batch)])

    return WithOptions(model)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rows", [2, 4])
def test_a_step_that_does_not_fit_is_made_in_parts_with_the_same_result(
    kit: Any, tmp_path: Path, name: str, rows: int
) -> None:
    spec = kit.run_spec(METHODS[name], batch_size=8, steps=4)
    usual, expected, _ = go(kit, spec, tmp_path / "usual", None)
    outcome, found, memory = go(kit, spec, tmp_path / "short", rows)
    assert memory.refused == {4: 1, 2: 2}[rows]  # and never again
    assert memory.most == rows
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)
    assert (outcome.outcome, outcome.steps, outcome.skipped) == ("done", usual.steps, usual.skipped)
    assert outcome.detail == f"out of memory: at most {rows} rows at once"
    assert read_json(tmp_path / "short/resolved.json")["out_of_memory"] == [{"step": 1, "most_rows": rows}]
    logged = read_jsonl(tmp_path / "short/steps.jsonl")
    assert [row["metrics"] for row in logged] == [{"rows at once": rows}] * 4
    assert [row["metrics"] for row in read_jsonl(tmp_path / "usual/steps.jsonl")] == [{}] * 4


@pytest.mark.parametrize("name", ["dense", "low-rank", "fo-full", "fo-lora"])
def test_the_parts_are_those_of_accumulation_to_the_bit(kit: Any, tmp_path: Path, name: str) -> None:
    method = METHODS[name]
    _, found, _ = go(kit, kit.run_spec(method, batch_size=8, steps=4), tmp_path / "short", 4)
    spec = kit.run_spec(method, batch_size=8, accumulation=2, steps=4)
    _, expected, _ = go(kit, spec, tmp_path / "parts", None)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(("name", "after"), [("low-rank", 9), ("fo-full", 2)])
def test_memory_that_runs_out_midway_is_remembered_when_the_run_resumes(
    kit: Any, tmp_path: Path, name: str, after: int
) -> None:
    spec = kit.run_spec(METHODS[name], batch_size=8, steps=6, eval_every=2)
    _, expected, _ = go(kit, spec, tmp_path / "usual", None)
    with pytest.raises(StoppedBySignal):
        go(kit, spec, tmp_path / "short", 4, stop_after=4, after=after)
    told = read_json(tmp_path / "short/resolved.json")["out_of_memory"]
    assert [each["most_rows"] for each in told] == [4]
    assert 1 < told[0]["step"] <= 4
    outcome, found, memory = go(kit, spec, tmp_path / "short", 4)
    assert memory.refused == 0
    assert outcome.steps == 6
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["in place", "low-rank", "fo-full"])
def test_where_not_even_one_row_fits_the_run_fails(kit: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        go(kit, kit.run_spec(METHODS[name], batch_size=8, steps=4), tmp_path, 0)


def test_scores_do_not_depend_on_how_many_rows_had_room(tiny_model_dir: Path) -> None:
    from optaware.models import OptionScorer, encode, load_model
    from optaware.records import ModelRef, RenderedExample

    loaded = load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32"))
    rendered = [
        RenderedExample(id=str(n), prompt=f"row number {n} is " + "long " * (n % 5), options=(" a", " b"), label=0)
        for n in range(12)
    ]
    rows = encode(rendered, loaded.tokenizer, 64)
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    expected = scorer.score(rows)
    memory = Memory(loaded.model, 2)
    found = OptionScorer.score(scorer, rows)
    assert memory.refused > 0
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-5)
