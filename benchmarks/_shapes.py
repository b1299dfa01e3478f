"""Models of known shapes with random weights, and the variants of a training step that are compared on them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from optaware.models import EncodedExample, OptionScorer
from optaware.records import Fast, FOFull, FOLoRA, Method, MeZO
from optaware.train import PlainMeZO, TaskObjective
from optaware.train._fused import fused_learner
from optaware.train._methods import make_learner, prepare_model
from optaware.train.schedules import Settings

__all__ = ["METHODS", "SEED", "SHAPES", "VARIANTS", "Step", "empty", "llama", "make_step", "rows_of", "timed"]

LR, EPS, RANK, REFRESH_EVERY, SEED = 1e-7, 1e-3, 8, 10, 0

SHAPES: dict[str, dict[str, int]] = {
    # Llama-3.2-1B: 1.236 billion parameters, embeddings tied
    "llama-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49152,
    },
    # for a look at the benchmark itself
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 512,
    },
}

_ZO: dict[str, Any] = {"lr": LR, "eps": EPS}
_LOW: dict[str, Any] = {**_ZO, "rank": RANK, "refresh_every": REFRESH_EVERY}

METHODS: dict[str, Method] = {
    "dense": MeZO(**_ZO),
    "dense-stochastic": MeZO(**_ZO, precision="stochastic"),
    "rademacher-stochastic": MeZO(**_ZO, direction="rademacher", precision="stochastic"),
    "low-rank": Fast(**_LOW),
    "low-rank-stochastic": Fast(**_LOW, precision="stochastic"),
    "hooks-dense-stochastic": MeZO(**_ZO, precision="stochastic", fused="off"),
    "hooks-low-rank": Fast(**_LOW, fused="off"),
    "adamw": FOFull(lr=1e-5),
    "lora": FOLoRA(),
}

VARIANTS = ("two-forwards", "two-forwards-graphed", "original", "original-one-row", *METHODS, "low-rank-host")
"""`original` has one row per answer option, as MeZO's own code batches; `…-one-row` one row per example;
`low-rank-host` is `low-rank` with its residuals in the host's memory."""


@dataclass
class Step:
    """One variant, ready to run.

    Attributes:
        run: Makes the step of a number.
        engine: What makes it: "fused", "modules" (hooks), "plain" or "forward".
        learner: The learner, where there is one.
    """

    run: Callable[[int], object]
    engine: str
    learner: Any = None


def llama(shape: str, device: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A model of a shape with random weights (the same at every call), in evaluation mode."""
    config = LlamaConfig(
        **SHAPES[shape],  # type: ignore[arg-type]
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        use_cache=False,
    )
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[torch.device(device)] if device != "cpu" else []), torch.device(device):
        torch.manual_seed(SEED)
        try:
            torch.set_default_dtype(dtype)
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
    return model.to(dtype).eval()


def rows_of(count: int, length: int, vocabulary: int) -> list[EncodedExample]:
    """Random prompts of one length with two options of one token."""
    source = torch.Generator().manual_seed(0)
    prompts = torch.randint(10, vocabulary, (count, length), generator=source).tolist()
    return [EncodedExample(f"r/{at}", tuple(prompt), ((7,), (9,)), at % 2) for at, prompt in enumerate(prompts)]


def make_step(variant: str, model: Any, rows: list[EncodedExample]) -> Step:
    """The step of a variant on a model and a batch."""
    scorer = OptionScorer(model, SimpleNamespace(pad_token_id=0, eos_token_id=0))
    loss = TaskObjective(scorer, "options")
    if variant == "two-forwards":
        return Step(_two_forwards(lambda: float(loss(rows))), "forward")
    if variant == "two-forwards-graphed":
        return Step(_graphed(model, rows), "forward")
    if variant.startswith("original"):
        return Step(
            _plain(PlainMeZO(model, loss if variant.endswith("row") else _by_option(scorer), lr=LR, eps=EPS), rows),
            "plain",
        )
    if variant == "low-rank-host":
        return _with_host_residuals(model, rows)
    method = METHODS[variant]
    scorer.model = model = prepare_model(model, method, SEED)
    learner: Any = fused_learner(model, loss, method, SEED, 10**6, rows)[0]
    learner = learner or make_learner(model, loss, method, SEED, 10**6)
    engine = "fused" if getattr(learner, "fused", False) else "modules"

    def run(step: int) -> None:
        with learner.training():
            learner.step(step, [rows])

    return Step(run, engine, learner)


def _with_host_residuals(model: Any, rows: list[EncodedExample]) -> Step:
    from optaware.train.gpu import FusedLearner

    learner = FusedLearner(
        model,
        "options",
        direction="low-rank",
        settings=lambda step: Settings(LR, EPS, 1),
        rank=RANK,
        refresh_every=REFRESH_EVERY,
        rounding="residual",
        host_residuals=True,
    )
    return Step(lambda step: learner.step(step, [rows]), "fused", learner)


def _plain(learner: PlainMeZO, rows: list[EncodedExample]) -> Callable[[int], object]:
    return lambda step: learner.step(step, [rows])


def _two_forwards(loss: Callable[[], float]) -> Callable[[int], object]:
    @torch.no_grad()
    def run(_: int) -> None:
        loss()
        loss()

    return run


def _by_option(scorer: OptionScorer) -> Any:
    def loss(batch: Any) -> torch.Tensor:
        flat = [EncodedExample(row.id, row.prompt_ids, (option,), 0) for row in batch for option in row.option_ids]
        scores = scorer.option_logprobs(flat).reshape(len(batch), -1)
        return torch.nn.functional.cross_entropy(
            scores, torch.tensor([row.label for row in batch], device=scores.device)
        )

    return loss


@torch.no_grad()
def _graphed(model: Any, rows: list[EncodedExample]) -> Callable[[int], object]:
    """Two bare forward passes and their losses in one CUDA graph."""
    device = next(model.parameters()).device
    ids = torch.tensor([row.prompt_ids for row in rows], device=device)
    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    labels = torch.tensor([row.label for row in rows], device=device)
    options = torch.tensor([option[0] for option in rows[0].option_ids], device=device)

    def loss() -> torch.Tensor:
        out = model(input_ids=ids, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1]
        return torch.nn.functional.cross_entropy(out.index_select(1, options).float(), labels)

    if device.type != "cuda":
        return _two_forwards(lambda: float(loss()))
    for _ in range(2):
        loss()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both = torch.stack((loss(), loss()))

    def run(_: int) -> None:
        graph.replay()
        both.tolist()

    return run


def empty() -> None:
    """Free what nothing holds any more, the scratch memory of cuBLAS too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        drop = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if drop is not None:
            drop()
        torch.cuda.empty_cache()


def timed(run: Callable[[int], object], rounds: int, first: int, device: str) -> list[float]:
    """Wall-clock milliseconds of each call, the device idle before and after."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    found = []
    for at in range(rounds):
        wait()
        started = time.perf_counter()
        run(first + at)
        wait()
        found.append(1e3 * (time.perf_counter() - started))
    return found
