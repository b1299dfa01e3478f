"""The engine follows the plain oracle: every dense direction × estimator × update."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from optaware.records import MeZO
from optaware.train import ZerothOrderLearner
from optaware.train._methods import make_learner
from optaware.train.plain import PlainVariant

ESTIMATORS = {
    "two-point": {},
    "two-point normalised": {"normalise": True},
    "one-sided": {},
    "one-sided normalised": {"normalise": True},
    "one-point": {},
    "one-point-residual": {},
}
UPDATES: dict[str, dict[str, Any]] = {
    "sgd": {"clip": 0.8},
    "sign": {},
    "momentum": {"momentum": 0.7},
    "momentum stored": {"momentum": 0.7, "moments": "stored"},
    "adam": {},
    "adam stored": {"moments": "stored"},
}


def test_every_choice_has_an_oracle() -> None:
    for field, covered in (("estimator", ESTIMATORS), ("update", UPDATES)):
        assert {name.split()[0] for name in covered} == set(get_args(MeZO.model_fields[field].annotation))


def loss_of(model: Any) -> Any:
    def loss(batch: Any) -> Tensor:
        ids = torch.tensor([row.prompt_ids for row in batch])
        logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1]
        return nn.functional.cross_entropy(logits, torch.tensor([row.label for row in batch]))

    return loss


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("direction", ["gaussian", "rademacher"])
def test_engine_and_oracle_take_the_same_path(kit: Any, direction: Any, estimator: str, update: str) -> None:
    rule, choices = update.split()[0], UPDATES[update]
    kind, how = estimator.split()[0], ESTIMATORS[estimator]
    method = MeZO(
        direction=direction,
        estimator=kind,  # type: ignore[arg-type]
        update=rule,  # type: ignore[arg-type]
        lr=1e-6 if kind == "one-point" else 1e-4,  # small enough that rounding does not grow along the path
        eps=1e-3,
        queries=2,
        weight_decay=0.2,
        beta2=0.9,
        **how,
        **choices,
    )
    model = kit.llama().double()
    reference = copy.deepcopy(model)
    learner = make_learner(model, loss_of(model), method, 3, 5)
    assert isinstance(learner, ZerothOrderLearner)
    z = make_learner(copy.deepcopy(model), loss_of(model), method, 3, 5)
    assert isinstance(z, ZerothOrderLearner)
    oracle = PlainVariant(
        reference,
        loss_of(reference),
        estimator=kind,
        update=rule,
        betas=(method.momentum, method.beta2),
        clip=method.clip or float("inf"),
        lr=method.lr,
        eps=method.eps,
        queries=2,
        weight_decay=method.weight_decay,
        seed=3,
        noise=lambda seed, name, parameter: z.direction.coordinates(seed, name).to(parameter.dtype).clone(),
        **how,
    )
    for step in range(1, 6):
        batch = [kit.rows(4, seed=step)]
        z.direction.begin(step)
        told = learner.step(step, batch), oracle.step(step, batch)
        assert told[0].coefficients == pytest.approx(told[1].coefficients, rel=1e-4, abs=1e-5)
    learner.settle()
    learner.close()
    z.close()
    start = kit.llama().double().state_dict()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        assert rule == "sign" or value.ndim < 2 or not torch.equal(value, start[name])
