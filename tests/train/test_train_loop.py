from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from optaware._io import read_jsonl
from optaware.errors import InputError, IntegrityError, StoppedBySignal, StorageError
from optaware.records import FOFull, FOLoRA, MeZO
from optaware.train import EvalEvent, StepEvent, discard_checkpoints, read_journal, train
from optaware.train._checkpoint import Checkpoint

LOW_RANK = MeZO(lr=1e-2, eps=1e-2, direction="low-rank", rank=2, refresh_every=2, weight_decay=0.1, queries=2)
METHODS = {
    "plain": MeZO(lr=1e-2, eps=1e-2, apply="in-place", precision="none"),
    "low-rank": LOW_RANK,
    "fo-full": FOFull(lr=1e-2),
    "fo-lora": FOLoRA(lr=1e-2, rank=2, dropout=0.2),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def go(kit: Any, spec: Any, path: Path, stop_after: int | None = None, **more: Any) -> tuple[Any, Any]:
    """Train a fresh tiny model; returns the outcome and the model."""
    loaded = kit.Loaded(more.pop("model", None) or kit.llama(DTYPES[spec.model.dtype]), kit.Tokenizer())
    scorer = more.pop("scorer", kit.Scorer)(loaded.model)
    seen: list[Any] = []
    outcome = train(
        spec,
        kit.RunFolder(path),
        loaded=loaded,
        scorer=scorer,
        train_rows=more.pop("train_rows", kit.rows(10)),
        dev_rows=more.pop("dev_rows", kit.rows(6, seed=1)),
        objective="options",
        on_event=seen.append,
        should_stop=lambda: stop_after is not None and sum(isinstance(each, StepEvent) for each in seen) >= stop_after,
    )
    go.events = seen  # type: ignore[attr-defined]
    return outcome, loaded.model


def same(a: Any, b: Any) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_stopped_run_resumes_to_the_same_bits(
    kit: Any, tmp_path: Path, name: str, dtype: str, stop_after: int
) -> None:
    spec = kit.run_spec(METHODS[name], dtype, steps=7, eval_every=3)
    whole, expected = go(kit, spec, tmp_path / "whole")
    with pytest.raises(StoppedBySignal):
        go(kit, spec, tmp_path / "parts", stop_after=stop_after)
    parts, model = go(kit, spec, tmp_path / "parts")
    assert same(model, expected)
    for log in ("steps.jsonl", "eval.jsonl"):
        timed = [read_jsonl(tmp_path / run / log) for run in ("whole", "parts")]
        for row in [row for each in timed for row in each]:
            row.pop("step_s", None), row.pop("wall_s", None)
        assert timed[0] == timed[1]
    if name in ("plain", "low-rank"):
        assert (tmp_path / "whole/journal.bin").read_bytes() == (tmp_path / "parts/journal.bin").read_bytes()
    for group in ("weights", "state"):
        last = [load_file(next((tmp_path / run / "checkpoint-last").glob(f"{group}-*"))) for run in ("whole", "parts")]
        assert last[0].keys() == last[1].keys()
        assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    ignored = {"train_s", "eval_s", "step_s_median", "peak_memory_bytes"}
    assert whole.model_dump(exclude=ignored) == parts.model_dump(exclude=ignored)


@pytest.mark.parametrize("name", METHODS)
def test_training_moves_the_weights_and_leaves_the_global_generator_alone(kit: Any, tmp_path: Path, name: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    outcome, model = go(kit, kit.run_spec(METHODS[name]), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert outcome.outcome == "done"
    assert outcome.steps == 6
    assert outcome.forwards == {"plain": 12, "low-rank": 24, "fo-full": 18, "fo-lora": 18}[name]
    trained = {
        key.replace(".base_layer", "").removeprefix("base_model.model."): v for key, v in model.state_dict().items()
    }
    base = kit.llama().state_dict()
    changed = [key for key in base if not torch.equal(base[key], trained[key])]
    assert bool(changed) == (name != "fo-lora")
    if name == "fo-lora":
        assert any(key.endswith("lora_B.default.weight") and value.any() for key, value in trained.items())


@pytest.mark.parametrize("name", METHODS)
def test_eight_rows_are_two_parts_of_four(kit: Any, tmp_path: Path, name: str) -> None:
    method = METHODS[name].model_copy(update={"dropout": 0.0} if name == "fo-lora" else {})
    states = []
    for parts in (1, 2):
        spec = kit.run_spec(method, batch_size=8, accumulation=parts, steps=4)
        model = kit.llama().double()
        states.append(go(kit, spec, tmp_path / str(parts), model=model)[1].state_dict())
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-5)


def test_the_best_dev_loss_is_chosen_and_patience_ends_the_run(kit: Any, tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 1.0, 2.0])

    class Scripted(kit.Scorer):  # type: ignore[name-defined, misc]
        def predict(self, rows: Any, objective: str) -> Any:
            self.seen = {name: value.clone() for name, value in self.model.state_dict().items()}
            kept.append(self.seen)
            return [], super().predict(rows, objective)[1].model_copy(update={"loss": next(losses)})

    kept: list[Any] = []
    spec = kit.run_spec(METHODS["low-rank"], steps=20, eval_every=2, patience=2)
    outcome, model = go(kit, spec, tmp_path, scorer=Scripted)
    assert (outcome.steps, outcome.best_step, outcome.dev.loss) == (8, 4, 1.0)
    assert "stopped early" in outcome.detail
    assert [row["best"] for row in read_jsonl(tmp_path / "eval.jsonl")] == [True, True, False, False]
    assert all(torch.equal(kept[1][name], value) for name, value in model.state_dict().items())
    again, loaded = go(kit, spec, tmp_path, scorer=Scripted)
    assert again.model_dump(exclude={"peak_memory_bytes"}) == outcome.model_dump(exclude={"peak_memory_bytes"})
    assert same(loaded, model)


def test_steps_without_a_finite_loss_are_skipped_counted_and_end_as_diverged(kit: Any, tmp_path: Path) -> None:
    class Broken(kit.Scorer):  # type: ignore[name-defined, misc]
        calls = 0

        def loss(self, batch: Any, objective: str) -> Any:
            type(self).calls += 1
            self.broken = lambda: type(self).calls in (5, 6)  # two look at the model, then two a step
            return super().loss(batch, objective)

    outcome, _ = go(
        kit, kit.run_spec(MeZO(lr=1e-3, eps=1e-3, direction="low-rank"), steps=3), tmp_path / "a", scorer=Broken
    )
    assert (outcome.outcome, outcome.skipped, outcome.steps) == ("done", 1, 3)
    record = read_jsonl(tmp_path / "a/steps.jsonl")[1]
    assert (record["loss"], record["coefficients"], record["skipped"]) == (None, [None], True)
    assert [value == value for (value,) in read_journal(tmp_path / "a/journal.bin")[1]] == [True, False, True]

    class Dead(kit.Scorer):  # type: ignore[name-defined, misc]
        def loss(self, batch: Any, objective: str) -> Any:
            return super().loss(batch, objective) * torch.nan

    for name, method in METHODS.items():
        spec = kit.run_spec(method, steps=80, eval_every=80)
        outcome, model = go(kit, spec, tmp_path / name, scorer=Dead)
        assert (outcome.outcome, outcome.skipped, outcome.steps, outcome.dev) == ("diverged", 50, 50, None)
        if name == "low-rank":
            assert same(model, kit.llama())
        assert go(kit, spec, tmp_path / name, scorer=Dead)[0].outcome == "diverged"


def test_a_run_without_a_finite_dev_loss_has_diverged_and_nan_is_never_the_best(kit: Any, tmp_path: Path) -> None:
    def scorer(losses: list[float | None]) -> Any:
        given = iter(losses)

        class Scripted(kit.Scorer):  # type: ignore[name-defined, misc]
            def predict(self, rows: Any, objective: str) -> Any:
                return [], super().predict(rows, objective)[1].model_copy(update={"loss": next(given)})

        return Scripted

    spec = kit.run_spec(METHODS["low-rank"], steps=4, eval_every=1)
    for dead in (None, float("nan"), float("inf")):
        folder = tmp_path / str(dead)
        outcome, _ = go(kit, spec, folder, scorer=scorer([dead] * 4))
        assert (outcome.outcome, outcome.dev, outcome.steps) == ("diverged", None, 4)
        assert "no evaluation on the dev rows had a finite loss" in outcome.detail
    outcome, _ = go(kit, spec, tmp_path / "mixed", scorer=scorer([float("nan"), 3.0, float("nan"), float("-inf")]))
    assert (outcome.outcome, outcome.best_step, outcome.dev.loss) == ("done", 2, 3.0)


def test_arms_see_the_same_rows(kit: Any, tmp_path: Path) -> None:
    orders: dict[str, list[list[str]]] = {name: [] for name in METHODS}
    for name, order in orders.items():

        class Watching(kit.Scorer):  # type: ignore[name-defined, misc]
            seen = order

            def loss(self, batch: Any, objective: str) -> Any:
                ids = [row.id for row in batch]
                if len(ids) == 4 and self.seen[-1:] != [ids]:
                    self.seen.append(ids)
                return super().loss(batch, objective)

        go(kit, kit.run_spec(METHODS[name], eval_every=6), tmp_path / name, scorer=Watching)
    assert len(orders["plain"]) == 6
    assert all(order == orders["plain"] for order in orders.values())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_weights_are_kept_in_a_folder_that_hugging_face_loads(kit: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    _, model = go(kit, kit.run_spec(METHODS["low-rank"], "bf16", keep_weights=True), tmp_path / "full")
    folder = tmp_path / "full/weights"
    assert same(LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), model)
    assert (folder / "tokenizer.json").exists()
    _, adapted = go(kit, kit.run_spec(METHODS["fo-lora"], keep_weights=True), tmp_path / "lora")
    assert isinstance(adapted, PeftModel)
    loaded = PeftModel.from_pretrained(kit.llama(), tmp_path / "lora/weights")
    assert same(loaded, adapted)
    discard_checkpoints(tmp_path / "full")
    assert not list((tmp_path / "full").glob("checkpoint-*"))
    assert folder.is_dir()


def test_events_tell_of_every_step_and_evaluation(kit: Any, tmp_path: Path) -> None:
    go(kit, kit.run_spec(METHODS["plain"]), tmp_path)
    events = go.events  # type: ignore[attr-defined]
    assert [event.record.step for event in events if isinstance(event, StepEvent)] == [1, 2, 3, 4, 5, 6]
    assert [event.record.step for event in events if isinstance(event, EvalEvent)] == [3, 6]


def test_without_dev_rows_the_last_weights_are_chosen(kit: Any, tmp_path: Path) -> None:
    spec = kit.run_spec(METHODS["low-rank"], steps=5)
    outcome, model = go(kit, spec, tmp_path, dev_rows=[])
    assert (outcome.dev, outcome.best_step) == (None, 5)
    assert same(go(kit, spec, tmp_path, dev_rows=[])[1], model)


def test_no_training_rows_is_an_input_error(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-training-rows"):
        go(kit, kit.run_spec(METHODS["plain"]), tmp_path, train_rows=[])


def test_fp16_is_refused_for_first_order_methods(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="underflow"):
        go(kit, kit.run_spec(METHODS["fo-full"], "bf16"), tmp_path, model=kit.llama(torch.float16))


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in read_jsonl(path)]


DAMAGED = (
    "checkpoint-last/weights-*",
    "checkpoint-last/state-*",
    "checkpoint-last/state.json",
    "checkpoint-best/weights-*",
    "checkpoint-best/state.json",
    "steps.jsonl",
    "eval.jsonl",
    "journal.bin",
)


@pytest.mark.parametrize("name", ["low-rank", "fo-full"])
def test_a_file_that_has_lost_bytes_is_told_and_its_work_done_again(
    kit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    spec = kit.run_spec(METHODS[name], steps=7, eval_every=2)
    _, expected = go(kit, spec, tmp_path / "whole")
    with pytest.raises(StoppedBySignal):
        go(kit, spec, tmp_path / "stopped", stop_after=5)
    for number, pattern in enumerate(DAMAGED):
        for share in (0.0, 0.6):
            folder = tmp_path / f"damaged-{number}-{share}"
            shutil.copytree(tmp_path / "stopped", folder)
            for path in folder.glob(pattern):
                path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
                caplog.clear()
                assert same(go(kit, spec, folder)[1], expected), (pattern, share)
                assert "goes on without it" in caplog.text, (pattern, share)
                for log in ("steps.jsonl", "eval.jsonl"):
                    assert timeless(folder / log) == timeless(tmp_path / "whole" / log), (pattern, share)


def test_a_checkpoint_of_other_base_weights_is_refused(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(StoppedBySignal):
        go(kit, kit.run_spec(METHODS["plain"]), tmp_path, stop_after=4)
    with pytest.raises(IntegrityError, match="another spec"):
        go(kit, kit.run_spec(METHODS["plain"], seed=4), tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_run_goes_on_from_its_last_evaluation(kit: Any, tmp_path: Path, name: str) -> None:
    class Killed(Exception):
        pass

    class Killing(kit.Scorer):  # type: ignore[name-defined, misc]
        kill_at = 0

        def loss(self, batch: Any, objective: str) -> Any:
            if len(read_jsonl(tmp_path / "parts/steps.jsonl")) >= self.kill_at and len(batch) == 4:
                raise Killed
            return super().loss(batch, objective)

    spec = kit.run_spec(METHODS[name], "bf16", steps=7, eval_every=3)
    _, expected = go(kit, spec, tmp_path / "whole")
    for kill_at in (2, 5):
        Killing.kill_at = kill_at
        with pytest.raises(Killed):
            go(kit, spec, tmp_path / "parts", scorer=Killing)
        with (tmp_path / "parts/steps.jsonl").open("a") as file:
            file.write('{"step": 6, "lo')
    assert same(go(kit, spec, tmp_path / "parts")[1], expected)
    assert [row["step"] for row in read_jsonl(tmp_path / "parts/steps.jsonl")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("logged", [0, 2])
def test_a_step_of_the_journal_that_the_log_misses_is_made_whole(kit: Any, tmp_path: Path, logged: int) -> None:
    class Killed(Exception):
        pass

    class Killing(kit.Scorer):  # type: ignore[name-defined, misc]
        def loss(self, batch: Any, objective: str) -> Any:
            if len(batch) == 4 and len(read_jsonl(tmp_path / "parts/steps.jsonl")) > logged:
                raise Killed
            return super().loss(batch, objective)

    spec = kit.run_spec(METHODS["low-rank"], steps=4, eval_every=4)
    _, expected = go(kit, spec, tmp_path / "whole")
    with pytest.raises(Killed):
        go(kit, spec, tmp_path / "parts", scorer=Killing)
    log = tmp_path / "parts/steps.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))  # the disk took the journal's row only
    assert same(go(kit, spec, tmp_path / "parts")[1], expected)
    assert timeless(log) == timeless(tmp_path / "whole/steps.jsonl")


def test_a_full_disk_under_a_checkpoint_is_a_storage_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # what safetensors meets is an error of the system
    try:
        with pytest.raises(StorageError, match="File too large"):
            Checkpoint(tmp_path / "checkpoint").save(1, {"weights": {"w": torch.zeros(4096)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not Checkpoint(tmp_path / "checkpoint").exists()
