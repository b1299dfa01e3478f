"""Both ways of perturbing, on causal models of many families: with stacked experts, learnt positions, state spaces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from optaware.train import ZerothOrder
from optaware.train.directions import Dense, LowRank

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

# What is special about each: the parameters that no linear, Conv1D or embedding module applies.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},  # norms of queries and keys
    "gemma2": {},  # embeddings are scaled; norms that multiply by 1 + scale
    "phi": {},  # biases, layer norms
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # positions looked up by a module of its own kind
    "mixtral": EXPERTS,  # stacked experts
    "gpt_oss": EXPERTS,  # experts with biases, a vector that belongs to the attention itself
    "mamba": {"state_size": 4},  # weights and biases of linear modules that are never called
}
SEEN_BY_ROW = {"qwen3", "gemma2", "phi", "gpt_neox", "bloom"}

IDS = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(0))

MAKERS = {
    "gaussian": Dense,
    "low-rank": lambda model: LowRank(model, rank=2, refresh_every=2, seed=0),
}


def made(family: str, dtype: torch.dtype = torch.float64) -> Any:
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family]})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def exact(family: str) -> torch.dtype:
    """The widest dtype that the family computes with: experts are multiplied in fp32 at most."""
    return torch.float32 if "num_local_experts" in FAMILIES[family] else torch.float64


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_probe_computes_with_the_written_out_perturbation(family: str, kind: str) -> None:
    model = made(family, exact(family))
    bare, before = logits(model), {name: each.data.clone() for name, each in model.named_parameters()}
    direction: Any = MAKERS[kind](model)
    direction.begin(1)
    direction.prepare(lambda: logits(model))
    assert direction.supports_batch == (family in SEEN_BY_ROW)
    z = direction.written_out(5)
    assert z.keys() == before.keys()
    assert all(z[name].shape == each.shape for name, each in before.items())
    with direction.at(5, 0.05):
        found = logits(model)
    if direction.supports_batch:
        with direction.batched([(5, 0.05), (7, -0.05)]):
            both = logits(model, IDS.repeat(2, 1))
        torch.testing.assert_close(both[:3], found, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(each.data, before[name]) for name, each in model.named_parameters())
    assert torch.equal(logits(model), bare)
    direction.close()
    other = copy.deepcopy(model)
    for name, each in other.named_parameters():
        each.data.add_(z[name].to(each.dtype) * 0.05)
    wide = exact(family) == torch.float64
    torch.testing.assert_close(found, logits(other), rtol=1e-6 if wide else 1e-4, atol=1e-6 if wide else 1e-4)
    assert (found - bare).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["opt", "mixtral", "mamba"])
def test_every_parameter_learns_by_low_rank_steps_and_resumes(family: str) -> None:
    """In bf16: what is exchanged is merged with a residual, saved and taken up as other matrices are."""

    def steps(model: Any, optimizer: ZerothOrder, count: int) -> None:
        for _ in range(count):
            optimizer.estimate(lambda: model(input_ids=IDS, labels=IDS, use_cache=False).loss.float())
            optimizer.step()

    settings: dict[str, Any] = {"lr": 1e-2, "rank": 2, "refresh_every": 2}
    whole = made(family, torch.bfloat16)
    start = copy.deepcopy(whole)
    straight = ZerothOrder(whole, "fast", **settings)
    steps(whole, straight, 3)
    state = straight.state_dict()
    other = copy.deepcopy(start)
    other.load_state_dict(whole.state_dict())
    resumed = ZerothOrder(other, "fast", **settings)
    resumed.load_state_dict(state)
    steps(whole, straight, 2)
    steps(other, resumed, 2)
    for optimizer in (straight, resumed):
        optimizer.close()
    for (name, one), two, bare in zip(whole.named_parameters(), other.parameters(), start.parameters(), strict=True):
        assert torch.equal(one, two), name
        assert not torch.equal(one, bare), name


def test_a_norm_may_be_called_by_keyword_and_with_a_gate_for_each_row() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, dtype=torch.float64))

        def forward(self, value: Tensor, gate: Tensor, power: int = 1) -> Tensor:
            return self.scale**power * value * gate

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Gated()

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.norm(value=x, gate=x.cos(), power=2)
            return found

    model, x = Model(), torch.arange(8.0, dtype=torch.float64).view(2, 4)
    direction = Dense(model)
    direction.begin(1)
    z = direction.written_out(3)["norm.scale"].double()
    with torch.no_grad(), direction.batched([(3, 0.1), (3, -0.1)]):
        found = model(x.repeat(2, 1))
    wanted = torch.cat([(1 + scale * z) ** 2 * x * x.cos() for scale in (0.1, -0.1)])
    torch.testing.assert_close(found, wanted)
