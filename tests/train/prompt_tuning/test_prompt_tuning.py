"""Complementary prompt tuning: projections by hand, the budget, every proposer, every arm at toy size, PEFT."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from optaware.errors import InputError, StoppedBySignal
from optaware.models import load_model
from optaware.records import (
    ChatReply,
    ComplementaryPromptTuning,
    FewShot,
    ModelRef,
    RunResult,
    RunSpec,
    Schedule,
)
from optaware.store import Store
from optaware.train.methods.prompt_tuning import run
from optaware.train.methods.prompt_tuning._ledger import Ledger
from optaware.train.methods.prompt_tuning._rows import draw
from optaware.train.methods.prompt_tuning._soft import SoftPrompt, nearest
from optaware.train.methods.prompt_tuning._state import Adam
from optaware.train.methods.prompt_tuning.proposers import Candidate, History, Proposed, Proposer, Trial, make_proposer
from optaware.train.methods.prompt_tuning.proposers._llm import LLM, parse_templates

N = 3


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "super_ni").mkdir()
    rows = [
        {"id": str(n), "input": f"{'good' if n % 2 else 'bad'} {n}", "output": ["yes" if n % 2 else "no"]}
        for n in range(40)
    ]
    text = json.dumps({"Definition": ["Is it good?"], "Instances": rows})
    (root / "super_ni" / "mood.json").write_text(text)
    (root / "super_ni" / "rare.json").write_text(
        json.dumps({"Definition": ["x"], "Instances": [*rows[:9], {"id": "r", "input": "r", "output": ["perhaps"]}]})
    )
    return root


@pytest.fixture
def make(tiny_model_dir: Path, tmp_path: Path) -> Any:
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps({"text": "1. say yes\n2. ...\n3. it is good\n4. say yes"}) + "\n")

    def spec(steps: int = 20, keep: bool = False, data: dict[str, Any] | None = None, **method: Any) -> RunSpec:
        options: dict[str, Any] = {
            "virtual_tokens": N,
            "rounds": 2,
            "round_steps": 2,
            "proposals": 2,
            "search_asks": 2,
            "candidates": 2,
            "starts": 2,
            "subspace": 2,
            "lr": 0.05,
            "llm": str(script),
            "llm_provider": "scripted",
            **method,
        }
        rows = {"task": "super_ni/mood", "per_class": 2, "fitness_per_class": 2, "test": 6, **(data or {})}
        return RunSpec(
            model=ModelRef(name=str(tiny_model_dir), dtype="fp32"),
            data=FewShot(**rows),
            method=ComplementaryPromptTuning(**options),
            schedule=Schedule(steps=steps, batch_size=4, max_length=64),
            device="cpu",
            keep_weights=keep,
        )

    return spec


def do(spec: RunSpec, root: Path, data_dir: Path, stop_at: int | None = None) -> RunResult:
    folder = Store(root).run_folder(spec)
    folder.path.mkdir(parents=True, exist_ok=True)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return stop_at is not None and len(asked) > stop_at

    return run(spec, folder, data_dir=data_dir, on_event=lambda event: None, should_stop=stop)


# projections


def test_projection_takes_the_most_similar_allowed_token() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 3.0]])
    rows = torch.tensor([[0.1, 0.0], [5.0, 4.0], [-0.2, 0.1]])
    assert nearest(rows, table, torch.arange(4)).tolist() == [0, 3, 2]
    assert nearest(rows, table, torch.tensor([1, 2, 3])).tolist() == [3, 3, 2]
    assert nearest(torch.tensor([[-1.0, -1.0]]), table, torch.tensor([1, 3])).tolist() == [1]


@pytest.fixture
def soft(tiny_model_dir: Path, data_dir: Path) -> SoftPrompt:
    loaded = load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32"), device="cpu")
    rows = draw(
        FewShot(task="super_ni/mood", per_class=2, fitness_per_class=2, test=4), 0, loaded.tokenizer, 64, data_dir
    )
    return SoftPrompt(loaded, N, [*rows.train, *rows.fitness, *rows.test])


def test_a_text_survives_embedding_and_projection(soft: SoftPrompt) -> None:
    ids = soft.ids_of("yes")
    assert soft.project(soft.embed(ids) * 1.7) == ids
    assert soft.text(ids) == "yes"
    assert soft.ids_of("ab") == (*soft.ids_of("ab")[:2], soft.ids_of("ab")[0])
    assert len(soft.ids_of("far too long")) == N
    assert not set(soft.allowed.tolist()) & set(soft.tokenizer.all_special_ids)


def test_token_embeddings_as_soft_prompt_score_like_the_tokens(soft: SoftPrompt, data_dir: Path) -> None:
    rows = draw(
        FewShot(task="super_ni/mood", test=4, per_class=2, fitness_per_class=2), 0, soft.tokenizer, 64, data_dir
    )
    ids = soft.ids_of("abc")
    written = [replace(row, prompt_ids=(*ids, *row.prompt_ids)) for row in rows.test]
    placed, _ = soft.predict(soft.embed(ids), rows.test, "options")
    plain, _ = soft.scorer.predict(written, "options")
    for ours, theirs in zip(placed, plain, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_the_gradient_of_the_prompt_is_that_of_finite_differences(soft: SoftPrompt, data_dir: Path) -> None:
    rows = draw(
        FewShot(task="super_ni/mood", test=4, per_class=2, fitness_per_class=2), 0, soft.tokenizer, 64, data_dir
    )
    prompt = soft.embed(soft.ids_of("abc")).requires_grad_()
    (gradient,) = torch.autograd.grad(soft.loss(prompt, rows.train, "options"), prompt)
    direction = gradient / gradient.norm()
    step = 1e-2
    with torch.no_grad():
        ahead = float(soft.loss(prompt + step * direction, rows.train, "options"))
        behind = float(soft.loss(prompt - step * direction, rows.train, "options"))
    assert (ahead - behind) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.05)


def test_adam_is_torchs() -> None:
    ours = Adam(torch.tensor([[1.0, -2.0]]), 0.1)
    theirs = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for number in range(1, 5):
        gradient = torch.tensor([[0.3 * number, -0.1]])
        ours.step(gradient, number)
        theirs.grad = gradient
        optimizer.step()
    assert torch.allclose(ours.prompt, theirs.detach(), atol=1e-6)


def test_a_restart_forgets_the_moments() -> None:
    used, fresh = (Adam(torch.tensor([[1.0, -2.0]]), 0.1) for _ in range(2))
    for number in range(1, 4):
        used.step(torch.tensor([[5.0, -5.0]]), number)
    used.restart(torch.tensor([[0.5, 0.5]]))
    fresh.restart(torch.tensor([[0.5, 0.5]]))
    for adam in (used, fresh):
        adam.step(torch.tensor([[-0.2, 0.1]]), 1)
    assert torch.equal(used.prompt, fresh.prompt)


# rows


def test_training_fitness_and_test_rows_are_disjoint_and_balanced(soft: SoftPrompt, data_dir: Path) -> None:
    data = FewShot(task="super_ni/mood", per_class=3, fitness_per_class=4, test=100)
    rows = draw(data, 1, soft.tokenizer, 64, data_dir)
    parts = [{row.id for row in part} for part in (rows.train, rows.fitness, rows.test)]
    assert [len(part) for part in parts] == [6, 8, 26]
    assert len(set().union(*parts)) == 40
    assert sum(row.label for row in rows.train) == 3
    other = draw(data, 2, soft.tokenizer, 64, data_dir)
    assert {row.id for row in other.train} != parts[0]


def test_too_few_rows_of_a_label_are_said(soft: SoftPrompt, data_dir: Path) -> None:
    with pytest.raises(InputError, match="too-few-rows"):
        draw(FewShot(task="super_ni/rare", per_class=2, fitness_per_class=2), 0, soft.tokenizer, 64, data_dir)


# the budget


def test_the_ledger_refuses_what_is_not_there() -> None:
    ledger = Ledger.of_steps(2, 4)
    assert ledger.budget == 24
    ledger.spend(20)
    assert ledger.affords(4)
    assert not ledger.affords(5)
    assert not ledger.affords(4, limit=23)
    with pytest.raises(ValueError):
        ledger.spend(5)


ARMS: dict[str, dict[str, Any]] = {
    "single": {"proposer": "none"},
    "multi-start": {"search": "multi-start"},
    "llm": {"proposer": "llm"},
    "llm only": {"proposer": "llm", "search": "proposals-only"},
    "evolutionary": {"proposer": "evolutionary"},
    "evolutionary only": {"proposer": "evolutionary", "search": "proposals-only"},
    "bayesian": {"proposer": "bayesian"},
    "cma-es": {"proposer": "cma-es"},
    "perturbation": {"proposer": "perturbation", "accept": "if-better"},
    "random-tokens": {"proposer": "random-tokens"},
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_spends_what_it_says_and_no_more_than_the_budget(
    arm: str, make: Any, tmp_path: Path, data_dir: Path
) -> None:
    spec = make(**ARMS[arm])
    result = do(spec, tmp_path, data_dir)
    folder = Store(tmp_path).run_folder(spec)
    steps = len(folder.steps.read_text().splitlines()) if folder.steps.exists() else 0
    judged = len(folder.evals.read_text().splitlines()) if folder.evals.exists() else 0
    assert result.steps == steps
    assert result.metrics["forward examples"] == 3 * 4 * steps + 4 * judged
    assert result.metrics["budget"] == 3 * 4 * 20
    spent = result.metrics["forward examples"]
    assert spent is not None
    assert spent <= 240
    if "only" not in arm:
        assert spent > 240 - 3 * 4 * 2  # less than one step is left, by start
    assert result.test.n == 6
    assert result.metrics["accuracy"] == result.test.accuracy


def test_a_hybrid_restarts_at_the_best_proposal_with_fresh_moments(make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make(proposer="evolutionary")
    result = do(spec, tmp_path, data_dir)
    rounds = [
        json.loads(line)
        for line in (Store(tmp_path).run_folder(spec).path / "proposals.jsonl").read_text().splitlines()
    ]
    assert len(rounds) == 2
    for row in rounds:
        assert len(row["texts"]) == 4  # two asks of two
        assert row["losses"][row["chosen"]] == min(row["losses"])
        losses = [each["loss"] for each in row["candidates"]]
        assert losses == sorted(losses, reverse=True)
        assert len(losses) <= 2
    assert result.metrics["restarts"] == 2


def test_a_proposer_that_returns_nothing_usable_is_counted_and_the_run_goes_on(
    make: Any, tmp_path: Path, data_dir: Path
) -> None:
    script = tmp_path / "bad.jsonl"
    script.write_text(json.dumps({"text": "1. ...\n2. !!!"}) + "\n")
    result = do(make(llm=str(script)), tmp_path, data_dir)
    assert result.metrics["unusable proposals"] == 4
    assert result.metrics["rounds without a proposal"] == 2
    assert result.metrics["restarts"] == 0
    only = do(make(llm=str(script), search="proposals-only"), tmp_path, data_dir)
    assert only.metrics["rounds"] == 3  # it gives up after three empty rounds
    assert only.steps == 0


def test_a_recording_is_replayed(make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make()
    first = do(spec, tmp_path, data_dir)
    recording = Store(tmp_path).run_folder(spec).path / "proposals.jsonl"
    again = do(make(proposer="replay", replay=str(recording)), tmp_path, data_dir)
    assert again.test == first.test
    assert again.metrics["restarts"] == 2
    with pytest.raises(InputError, match="replay-changed"):
        do(make(proposer="replay", replay=str(recording), replay_sha256="0" * 64), tmp_path, data_dir)


def test_of_a_recording_of_two_llms_the_named_one_is_replayed(tmp_path: Path) -> None:
    recording = tmp_path / "two.jsonl"
    rows = [{"task": "t", "seed": 0, "round": 0, "llm": name, "texts": [f"by {name}"]} for name in ("big", "small")]
    recording.write_text("\n".join(map(json.dumps, rows)))
    for name in ("big", "small"):
        method = ComplementaryPromptTuning(proposer="replay", replay=str(recording), llm=name)
        (proposal,) = make_proposer(method, Words(), None).propose(history(), 3).proposals
        assert proposal.text == f"by {name}"
    with pytest.raises(InputError, match="replay-other-llm"):
        make_proposer(method.model_copy(update={"llm": "another"}), Words(), None)


@pytest.mark.parametrize("arm", ["llm", "multi-start", "evolutionary only", "cma-es"])
def test_a_stopped_arm_goes_on_to_the_same_bits(arm: str, make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make(**ARMS[arm])
    whole = do(spec, tmp_path / "whole", data_dir)
    stops = 0
    for after in (1, 3, 2, 4):
        try:
            stopped = do(spec, tmp_path / "stopped", data_dir, stop_at=after)
            break
        except StoppedBySignal:
            stops += 1
    else:
        stopped = do(spec, tmp_path / "stopped", data_dir)
    assert stops >= 2
    assert stopped.test == whole.test
    assert stopped.metrics == whole.metrics
    files = [Store(tmp_path / which).run_folder(spec).path / "predictions.jsonl" for which in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_saved_prompt_in_peft_gives_the_scores_that_were_reported(
    make: Any, tmp_path: Path, data_dir: Path, tiny_model_dir: Path
) -> None:
    from peft import PeftModel

    spec = make(keep=True, proposer="none")
    do(spec, tmp_path, data_dir)
    folder = Store(tmp_path).run_folder(spec)
    reported = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    loaded = load_model(spec.model, device="cpu")
    rows = draw(spec.data, spec.seed, loaded.tokenizer, 64, data_dir)
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        model = PeftModel.from_pretrained(loaded.model, str(folder.path / "weights")).eval()
    for row, said in zip(rows.test, reported, strict=True):
        for option, score in zip(row.option_ids, said["scores"], strict=True):
            ids = torch.tensor([[*row.prompt_ids, *option]])
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            assert logits.shape[1] == N + ids.shape[1]
            logprobs = logits[0, -len(option) - 1 : -1].float().log_softmax(-1)
            mean = logprobs[range(len(option)), list(option)].mean()
            assert float(mean) == pytest.approx(score, abs=1e-4)


def test_a_budget_that_cannot_hold_the_rounds_is_refused(make: Any, tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(InputError, match="budget-too-small"):
        do(make(steps=3), tmp_path, data_dir)


# proposers


@dataclass
class Words:
    length: int = N
    spread: float = 0.5
    allowed: Tensor = field(default_factory=lambda: torch.arange(5, 60))


class Chat:
    identity = "test"

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.asked: list[Any] = []

    def complete(self, requests: Any) -> Any:
        for request in requests:
            self.asked.append(request)
            error = None if self.text else "no answer"
            yield ChatReply(
                key=request.key, request_id="r", model="m", text=self.text, error=error, error_code=error and "x"
            )


def history(**changes: Any) -> History:
    candidates = (Candidate((5, 6, 7), "worst words", 2.0, 0.25), Candidate((8, 9, 10), "best words", 1.0, 0.75))
    given: dict[str, Any] = {
        "task": "t",
        "description": "Judge.",
        "labels": ("yes", "no"),
        "manual": "By hand",
        "seed": 0,
        "round": 0,
        "candidates": candidates,
        "current": torch.zeros(N, 4),
    }
    return History(**{**given, **changes})


def proposer(name: str, tmp_path: Path) -> Proposer:
    if name == "llm":
        return LLM(Chat("1. one thing\n2. another thing\n3. third thing"), 0.0)  # type: ignore[arg-type]
    recording = tmp_path / "r.jsonl"
    recording.write_text(json.dumps({"task": "t", "seed": 0, "round": 0, "texts": ["a b", "c d", "e f"]}) + "\n")
    method = ComplementaryPromptTuning(proposer=name, replay=str(recording), subspace=3)  # type: ignore[arg-type]
    return make_proposer(method, Words(), None)


@pytest.mark.parametrize("name", get_args(get_type_hints(ComplementaryPromptTuning)["proposer"]))
class TestContract:
    def told(self, name: str, tmp_path: Path, **changes: Any) -> Proposed:
        return proposer(name, tmp_path).propose(history(**changes), 3)

    def test_at_most_k_each_of_one_form(self, name: str, tmp_path: Path) -> None:
        answer = self.told(name, tmp_path)
        assert len(answer.proposals) == (0 if name == "none" else 3)
        for each in answer.proposals:
            assert sum(form is not None for form in (each.text, each.ids, each.prompt)) == 1
            assert each.ids is None or (len(each.ids) == N and set(each.ids) <= set(range(5, 60)))
            assert each.prompt is None or each.prompt.shape == (N, 4)

    def test_the_same_history_gives_the_same_answer(self, name: str, tmp_path: Path) -> None:
        first, second = self.told(name, tmp_path), self.told(name, tmp_path)
        for a, b in zip(first.proposals, second.proposals, strict=True):
            assert (a.text, a.ids, a.point) == (b.text, b.ids, b.point)
            assert a.prompt is None or (b.prompt is not None and torch.equal(a.prompt, b.prompt))

    def test_no_global_generator_is_touched(self, name: str, tmp_path: Path) -> None:
        import random

        import numpy as np

        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]
        self.told(name, tmp_path)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
        assert before[2] == random.getstate()

    def test_an_empty_trajectory_will_do(self, name: str, tmp_path: Path) -> None:
        self.told(name, tmp_path, candidates=())


@pytest.mark.parametrize("name", ["bayesian", "cma-es"])
def test_searchers_learn_within_a_round(name: str, tmp_path: Path) -> None:
    searcher = proposer(name, tmp_path)
    trials: tuple[Trial, ...] = ()
    best: list[float] = []
    for _ in range(5 if name == "bayesian" else 10):
        answer = searcher.propose(history(trials=trials), 3)
        for each in answer.proposals:
            assert each.point is not None
            loss = sum((value - 1.0) ** 2 for value in each.point)
            trials += (Trial(each, None, loss, 0.0),)
        best.append(min(trial.loss for trial in trials if trial.loss is not None))
    assert best[-1] < 0.5 * best[0]


def test_the_llm_is_shown_the_trajectory_from_the_worst_to_the_best() -> None:
    chat = Chat("1. new words")
    LLM(chat, 0.3).propose(history(), 3)  # type: ignore[arg-type]
    said = chat.asked[0].messages[0].content
    assert said.index("worst words") < said.index("best words")
    for part in ("By hand", "Judge.", "yes, no", "loss: 2.000", "accuracy: 75%"):
        assert part in said
    assert chat.asked[0].temperature == 0.3


def test_a_failed_call_is_said() -> None:
    answer = LLM(Chat(None), 0.0).propose(history(), 3)  # type: ignore[arg-type]
    assert answer.proposals == ()
    assert "no answer" in answer.unusable[0]


@pytest.mark.parametrize(
    ("text", "usable", "unusable"),
    [
        ('1. "Be kind."\n2) judge it\n- Third', ["Be kind.", "judge it", "Third"], 0),
        ("Sure! Here they are:\n1. one\n2. One!\n3. 123", ["one"], 2),
        ("one\ntwo", ["one", "two"], 0),
        ("I cannot help with that.", [], 1),
        ("1. By hand\n2. best words", [], 2),
        ("\n".join(["prose"] * 9), [], 1),
        ("", [], 1),
        (f"1. {'x' * 201}", [], 1),
        ('1. prompt: "go slow" | loss: 0.2 | accuracy: 90%\n2. Loss: (0.910 | Accuracy: 50%', ["go slow"], 1),
        ('1. "best words" | loss: 0.1\n2. What a loss!', ["What a loss!"], 1),
    ],
)
def test_replies_are_read(text: str, usable: list[str], unusable: int) -> None:
    answer = parse_templates(text, 3, {"By hand", "best words"})
    assert [each.text for each in answer.proposals] == usable
    assert len(answer.unusable) == unusable


def test_children_are_made_of_the_better_parents(tmp_path: Path) -> None:
    from optaware.train.methods.prompt_tuning.proposers._evolutionary import Evolutionary

    many = tuple(Candidate((5 + n,) * N, str(n), float(n), 0.0) for n in range(8))
    children = Evolutionary(Words(), 1, mutation=0.0).propose(history(candidates=many), 20).proposals
    tokens = [token for child in children for token in child.ids or ()]
    better = sum(token in (5, 6, 7, 8) for token in tokens)
    assert better >= len(tokens) - 20 - 3  # but for the one token that is new in each child
