from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from optaware.records import DataRef, Method, ModelRef, RunSpec, Schedule, Score
from optaware.store import RunFolder

torch.set_num_threads(1)


@dataclass(frozen=True)
class Row:
    """What the stand-in scorer needs of an encoded example."""

    id: str
    prompt_ids: tuple[int, ...]
    option_ids: tuple[tuple[int, ...], ...]
    label: int


class StandInScorer:
    """Cross-entropy over two one-token options after a prompt of fixed length; the two methods that training calls."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.broken: Callable[[], bool] = lambda: False

    def loss(self, batch: Sequence[Row], objective: str) -> Tensor:
        ids = torch.tensor([row.prompt_ids for row in batch])
        logits = self.model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        options = torch.stack([logits[i, [o[0] for o in row.option_ids]] for i, row in enumerate(batch)])
        loss = nn.functional.cross_entropy(options, torch.tensor([row.label for row in batch]))
        return loss * torch.nan if self.broken() else loss

    @torch.no_grad()
    def predict(self, rows: Sequence[Row], objective: str) -> tuple[list[Any], Score]:
        self.model.eval()
        loss = float(self.loss(rows, objective))
        return [], Score(accuracy=0.5, loss=loss if loss == loss else None, n=len(rows))


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "tokenizer.json").write_text("{}")


@dataclass
class Loaded:
    model: Any
    tokenizer: Any
    source: str = "test"
    sha256: str | None = "ab" * 32


def llama(dtype: torch.dtype = torch.float32, tied: bool = True, **changes: Any) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        **changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return LlamaForCausalLM(config).to(dtype).eval()


def gpt2(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    config = GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return GPT2LMHeadModel(config).to(dtype).eval()


def rows(count: int, seed: int = 0) -> list[Row]:
    source = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        prompt = torch.randint(4, 60, (6,), generator=source).tolist()
        made.append(Row(f"t/{index}", tuple(prompt), ((1,), (2,)), int(prompt[0] % 2)))
    return made


def run_spec(
    method: Method, dtype: str = "fp32", keep_weights: bool = False, seed: int = 3, **schedule: Any
) -> RunSpec:
    plan = {"steps": 6, "batch_size": 4, "eval_every": 3, **schedule}
    return RunSpec(
        model=ModelRef(name="tiny", dtype=dtype),  # type: ignore[arg-type]
        data=DataRef(task="toy"),
        method=method,
        schedule=Schedule(**plan),
        seed=seed,
        keep_weights=keep_weights,
    )


@pytest.fixture
def kit() -> Any:
    """The helpers above, as one namespace (test modules cannot import each other)."""

    class Kit:
        pass

    made = Kit()
    made.__dict__.update(
        llama=llama,
        gpt2=gpt2,
        rows=rows,
        Row=Row,
        Scorer=StandInScorer,
        Loaded=Loaded,
        Tokenizer=Tokenizer,
        run_spec=run_spec,
        RunFolder=RunFolder,
    )
    return made
