"""Merging on ΔW: closed forms, a contract that every merger keeps, PEFT's own reading of what is written."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from optaware.errors import DivergedError, InputError
from optaware.records import Score, SeededLoRA
from optaware.train.merging import (
    Adapter,
    Layer,
    Validation,
    add_expert,
    applied,
    check_compatible,
    cosines,
    dare,
    gated,
    greedy_soup,
    identity_error,
    learned,
    read_adapter,
    scaled,
    ties,
    validation_softmax,
    weighted,
    write_adapter,
)

SHAPES = {"q": (6, 5), "up": (4, 7)}


def expert(seed: int, rank: int = 2, scale: float = 2.0, **changes: Any) -> Adapter:
    source = torch.Generator().manual_seed(seed)
    layers = {
        name: Layer(torch.randn(rank, into, generator=source), torch.randn(out, rank, generator=source), scale)
        for name, (out, into) in SHAPES.items()
    }
    return Adapter(f"e{seed}", layers, **{"base": "m", **changes})


def deltas(adapters: list[Adapter], name: str) -> torch.Tensor:
    return torch.stack([each.layers[name].delta(torch.float64) for each in adapters])


MERGERS: dict[str, Callable[[list[Adapter]], Adapter]] = {
    "uniform": weighted,
    "ties": lambda adapters: ties(adapters, density=1.0),
    "dare": lambda adapters: dare(adapters, density=1.0),
    "scaled": lambda adapters: weighted(adapters, scaled(adapters, FLAT, [1.0]).weights),
    "learned": lambda adapters: weighted(adapters, learned(adapters, FLAT, steps=2, lr=0.1).weights),
    "validation": lambda adapters: weighted(adapters, validation_softmax(adapters, FLAT, 0.1).weights),
    "greedy-soup": lambda adapters: weighted(adapters, greedy_soup(adapters, FLAT).weights),
}
FLAT = Validation(
    score=lambda adapter: Score(accuracy=0.5, loss=1.0, n=4),
    gradient=lambda weights, step: (1.0, torch.zeros_like(weights)),
    rows=4,
)


def test_every_way_of_merging_is_under_the_contract() -> None:
    assert set(MERGERS) == set(get_args(get_type_hints(SeededLoRA)["merge"]))


@pytest.mark.parametrize("merger", MERGERS)
class TestContract:
    def test_copies_of_one_adapter_merge_to_itself(self, merger: str) -> None:
        merged = MERGERS[merger]([expert(1), expert(1), expert(1)])
        assert identity_error(merged, [expert(1)], [1.0]) < 1e-5

    def test_the_order_of_experts_does_not_matter(self, merger: str) -> None:
        forth, back = MERGERS[merger]([expert(1), expert(2)]), MERGERS[merger]([expert(2), expert(1)])
        assert identity_error(forth, [back], [1.0]) < 1e-5

    def test_other_base_models_are_refused(self, merger: str) -> None:
        with pytest.raises(InputError, match="adapter-base-differs"):
            MERGERS[merger]([expert(1), expert(2, base="other")])

    def test_other_targets_are_refused(self, merger: str) -> None:
        other = expert(2)
        short = Adapter("short", {"q": other.layers["q"]}, "m")
        with pytest.raises(InputError, match="adapter-targets-differ"):
            MERGERS[merger]([expert(1), short])

    def test_it_is_written_and_read_without_loss(self, merger: str, tmp_path: Path) -> None:
        merged = MERGERS[merger]([expert(1, rank=1), expert(2, rank=3, scale=0.5)])
        write_adapter(merged, tmp_path / "out")
        assert identity_error(read_adapter(tmp_path / "out"), [merged], [1.0]) < 1e-6


def test_uniform_is_the_mean_of_the_deltas() -> None:
    experts = [expert(1), expert(2, rank=3), expert(3, scale=0.7)]
    merged = weighted(experts)
    for name in SHAPES:
        assert torch.allclose(merged.layers[name].delta(torch.float64), deltas(experts, name).mean(0), atol=1e-5)
        assert merged.layers[name].rank == 7
    averaged_factors = Adapter(
        "wrong",
        {
            name: Layer(
                (experts[0].layers[name].a + experts[2].layers[name].a) / 2,
                (experts[0].layers[name].b + experts[2].layers[name].b) / 2,
                2.0,
            )
            for name in SHAPES
        },
    )
    assert identity_error(averaged_factors, [experts[0], experts[2]], [0.5, 0.5]) > 0.1


def test_a_fourth_expert_added_later_gives_the_average_of_four() -> None:
    experts = [expert(seed) for seed in range(4)]
    assert identity_error(add_expert(weighted(experts[:3]), 3, experts[3]), experts, [0.25] * 4) < 1e-5


def plain(*matrices: list[list[float]]) -> list[Adapter]:
    made = [torch.tensor(values) for values in matrices]
    return [Adapter(f"p{n}", {"q": Layer(torch.eye(m.shape[1]), m)}, "m") for n, m in enumerate(made)]


def test_ties_by_hand() -> None:
    # Of four entries each, density 0.5 keeps two. Column by column: signs agree; conflict, the heavier wins; one kept.
    experts = plain([[4.0, -3.0, 1.0, 0.5]], [[2.0, 5.0, -1.0, 0.0]])
    merged = ties(experts, density=0.5)
    assert merged.layers["q"].delta().tolist() == [[3.0, 5.0, 0.0, 0.0]]


def test_dare_keeps_the_mean_and_drops_the_share() -> None:
    experts = plain([[1.0] * 4000])
    merged = dare(experts, density=0.25, seed=3).layers["q"].delta()
    assert set(merged.flatten().tolist()) == {0.0, 4.0}
    assert float(merged.mean()) == pytest.approx(1.0, abs=0.12)
    assert not torch.equal(merged, dare(experts, density=0.25, seed=4).layers["q"].delta())


def test_cosines_are_those_of_the_deltas() -> None:
    experts = [expert(1), expert(2), Adapter("minus", {n: Layer(x.a, -x.b, 2.0) for n, x in expert(1).layers.items()})]
    flat = torch.cat([deltas(experts, name).flatten(1) for name in SHAPES], dim=1)
    expected = nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1)
    assert torch.allclose(torch.tensor(cosines(experts)), expected.float(), atol=1e-6)
    assert cosines(experts)[0][2] == pytest.approx(-1.0)


def test_learned_weights_go_to_the_expert_that_lowers_the_loss() -> None:
    def score(adapter: Adapter) -> Score:
        good = float(adapter.layers["q"].delta()[0, 0])
        return Score(accuracy=good, loss=1 - good, n=4)

    experts = plain([[1.0]], [[0.0]])
    validation = Validation(score, lambda weights, step: (1 - float(weights[0]), torch.tensor([-1.0, 0.0])), 4)
    found = learned(experts, validation, steps=50, lr=0.2)
    assert found.weights[0] > 0.95
    assert sum(found.weights) == pytest.approx(1.0)
    assert greedy_soup(experts, validation).weights == (1.0, 0.0)
    assert validation_softmax(experts, validation, 1.0).weights[0] == pytest.approx(1 / (1 + 2.718281828**-1))
    assert scaled(experts, validation, [0.5, 2.0, 1.0]).weights == (1.0, 1.0)


def test_weights_that_do_harm_are_not_kept() -> None:
    validation = Validation(
        lambda adapter: Score(accuracy=0.0, loss=abs(float(adapter.layers["q"].delta()[0, 0]) - 0.5), n=1),
        lambda weights, step: (1.0, torch.tensor([-1.0, 0.0])),
        1,
    )
    assert learned(plain([[1.0]], [[0.0]]), validation, steps=20, lr=0.3).weights == (0.5, 0.5)


def not_a_number(first: float, second: float) -> Validation:
    """Adapters with anything of the second expert have scores that are no numbers, and an accuracy by chance."""

    def score(adapter: Adapter) -> Score:
        broken = float(adapter.layers["q"].delta()[0, 0]) < 1
        return Score(accuracy=second if broken else first, loss=math.nan if broken else 1.0, n=4)

    return Validation(score, lambda weights, step: (1.0, torch.full_like(weights, math.nan)), 4)


def test_what_has_no_finite_loss_is_never_chosen_however_right_it_looks() -> None:
    experts, validation = plain([[1.0]], [[0.0]]), not_a_number(0.5, 1.0)
    assert greedy_soup(experts, validation).weights == (1.0, 0.0)
    assert greedy_soup(experts[::-1], validation).weights == (0.0, 1.0)
    assert validation_softmax(experts, validation, 1.0).weights == (1.0, 0.0)
    assert scaled(experts, validation, [0.5, 1.0, 2.0]).weights == (1.0, 1.0)


def test_a_gradient_that_is_not_finite_ends_the_search_with_weights_that_are() -> None:
    finite = Validation(lambda adapter: Score(accuracy=0.5, loss=1.0, n=1), not_a_number(0, 0).gradient, 1)
    found = learned(plain([[1.0]], [[0.0]]), finite, steps=20, lr=0.3)
    assert found.weights == (0.5, 0.5)
    assert found.trace[0] == {"step": 1.0, "loss": None}


def test_where_nothing_has_a_finite_loss_nothing_is_chosen() -> None:
    experts, dead = plain([[0.5]], [[0.0]]), not_a_number(0.5, 1.0)
    for search in (
        lambda: greedy_soup(experts, dead),
        lambda: validation_softmax(experts, dead, 1.0),
        lambda: scaled(experts, dead, [0.5, 1.0]),
        lambda: learned(experts, dead, steps=2, lr=0.1),
    ):
        with pytest.raises(DivergedError, match="no choice of them has a finite loss"):
            search()


def test_an_empty_validation_mix_is_refused() -> None:
    empty = Validation(FLAT.score, FLAT.gradient, 0)
    with pytest.raises(InputError, match="validation-empty"):
        scaled([expert(1)], empty, [1.0])


def test_absent_layers_count_as_zero_when_asked() -> None:
    short = Adapter("short", {"q": expert(2).layers["q"]}, "m")
    merged = weighted([expert(1), short], missing="zero")
    assert torch.allclose(merged.layers["up"].delta(), expert(1).layers["up"].delta() / 2, atol=1e-6)


def test_known_checksums_decide_over_names() -> None:
    check_compatible([expert(1, base="a", base_sha256="x"), expert(2, base="b", base_sha256="x")])
    with pytest.raises(InputError, match="adapter-base-differs"):
        check_compatible([expert(1, base_sha256="x"), expert(2, base_sha256="y")])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.up = nn.Linear(5, 6), nn.Linear(7, 4)
        self.pad = nn.Linear(6, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.pad(self.q(x)))  # type: ignore[no-any-return]


def test_applied_computes_with_the_sum_of_weights_and_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    net, adapter, x = Net(), expert(1), torch.randn(3, 5)
    before = net(x)
    with applied(net, adapter):
        got = net(x)
    for name, layer in adapter.layers.items():
        net.get_submodule(name).weight.data += layer.delta()  # type: ignore[operator]
    assert torch.allclose(got, net(x), atol=1e-4)
    assert not torch.allclose(got, before, atol=1e-2)


def test_gates_have_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(0)
    net, experts, x = Net(), [expert(1), expert(2, rank=3)], torch.randn(3, 5)
    weights = torch.tensor([0.3, 0.7], requires_grad=True)
    with gated(net, experts, weights):
        net(x).square().mean().backward()
    assert weights.grad is not None
    for index in range(2):
        values = []
        for step in (1e-2, -1e-2):
            moved = weights.detach().clone()
            moved[index] += step
            with applied(net, weighted(experts, moved.tolist())):
                values.append(float(net(x).detach().square().mean()))
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(weights.grad[index]), rel=1e-2)


@pytest.mark.parametrize("stabilised", [False, True])
def test_adapters_made_by_peft_are_read_as_peft_reads_them(
    tmp_path: Path, tiny_model_dir: Path, stabilised: bool
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    from optaware.models import load_model
    from optaware.records import ModelRef

    def base() -> Any:
        return load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32"), device="cpu").model

    ids = torch.arange(3, 20)[None]
    folders = []
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        for seed, rank in ((1, 2), (2, 4)):
            torch.manual_seed(seed)
            settings = LoraConfig(
                task_type="CAUSAL_LM",
                r=rank,
                lora_alpha=6,
                use_rslora=stabilised,
                target_modules=["q_proj", "up_proj"],
                rank_pattern={"layers.0.self_attn.q_proj": 3},
                alpha_pattern={"up_proj": 10},
                init_lora_weights=False,
            )
            model = get_peft_model(base(), settings)
            model.save_pretrained(tmp_path / f"a{seed}")
            folders.append(tmp_path / f"a{seed}")
        for folder in folders:
            plain_model = base()
            with torch.no_grad(), applied(plain_model, read_adapter(folder)):
                ours = plain_model(ids).logits
                inside = ours.clone()
            with torch.no_grad():
                theirs = PeftModel.from_pretrained(base(), str(folder)).eval()(ids).logits
            assert torch.allclose(inside, theirs, atol=1e-4)
        experts = [read_adapter(folder) for folder in folders]
        write_adapter(weighted(experts, [0.6, 0.4]), tmp_path / "merged")
        assert identity_error(read_adapter(tmp_path / "merged"), experts, [0.6, 0.4]) < 1e-5
        with torch.no_grad():
            merged = PeftModel.from_pretrained(base(), str(tmp_path / "merged")).eval()(ids).logits
            plain_model = base()
            for name in experts[0].layers:
                target = plain_model.get_submodule(name)
                target.weight.data += sum(w * e.layers[name].delta() for w, e in zip((0.6, 0.4), experts, strict=True))
            assert torch.allclose(merged, plain_model(ids).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"use_dora": True}, "adapter-unsupported"),
        ({"bias": "all"}, "adapter-unsupported"),
        ({"modules_to_save": ["lm_head"]}, "adapter-unsupported"),
        ({"peft_type": "IA3"}, "adapter-unsupported"),
        ({"r": 5}, "adapter-keys"),
    ],
)
def test_what_is_no_delta_is_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    write_adapter(expert(1), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=code):
        read_adapter(tmp_path / "a")


def test_the_command_merges_and_says_how_exact_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from optaware.cli._app import invoke

    for seed in (1, 2):
        write_adapter(expert(seed, rank=seed), tmp_path / f"a{seed}")
    names = [str(tmp_path / "a1"), str(tmp_path / "a2")]
    assert invoke(["adapters", "merge", *names, "-o", str(tmp_path / "out"), "--weights", "0.7,0.3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["identity_error"] < 1e-5
    assert said["ranks"] == [3]
    assert identity_error(read_adapter(tmp_path / "out"), [expert(1, 1), expert(2, 2)], [0.7, 0.3]) < 1e-5
    assert invoke(["adapters", "merge", *names, "--method", "ties", "-o", str(tmp_path / "ties")]) == 0
    assert "identity error" in capsys.readouterr().out
    with pytest.raises(InputError, match="output-exists"):
        invoke(["adapters", "merge", *names, "-o", str(tmp_path / "out")])
    with pytest.raises(InputError, match="weights-count"):
        invoke(["adapters", "merge", *names, "-o", str(tmp_path / "x"), "--weights", "1.0"])
