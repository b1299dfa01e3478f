"""How a model sees single rows: loss, projected gradients and curvature along fixed directions, perplexity.

Two stages meet here: `data` asks for the figures (its search hands in what measures), `train` knows the directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optaware._io import canonical_json, finite_or_none, text_sha256
from optaware.records import Example, MeZO, SearchSpec
from optaware.tasks import Task

if TYPE_CHECKING:
    from optaware.models import EncodedExample, LoadedModel

__all__ = ["Probed", "RowMeasure", "open_measure"]

Floats = NDArray[np.float64]
_VERSION = 1


@dataclass(frozen=True)
class Probed:
    """What the probes told of N rows along K directions.

    Attributes:
        loss: Loss of each row at the unperturbed weights, in the task's objective, (N,).
        g: Projected gradient of each row along each direction, (N, K): `(l(θ + eps·z) − l(θ − eps·z)) / (2·eps)`.
        curvature: `(l(θ + eps·z) + l(θ − eps·z) − 2·l(θ)) / eps²`, (N, K); its mean over z estimates tr(∇²l).
        perplexity: Of the rewritten span alone, (N,): `exp` of the mean negative log-probability of its tokens.
    """

    loss: Floats
    g: Floats
    curvature: Floats
    perplexity: Floats


class RowMeasure:
    """Measures rows along directions of the training engine (`make_direction`, dense Gaussian z).

    Every row, original or rewritten, is measured along the same directions at the same weights, so figures of two
    texts are paired. For Gaussian z the variance of `g` over directions estimates `‖∇l‖²`, which is what the noise of
    a two-point step grows with: `Var(g·z) ≈ d·‖∇l‖²`, d the number of parameters (Malladi et al. 2023, section 4).

    Weights are restored to the bit after each probe. Use fp32 weights: in half precision the rounding of a loss,
    divided by eps, is as large as g.

    Args:
        loaded: The model to be trained.
        task: The task.
        directions: K.
        eps: Perturbation scale.
        seed: Directions are drawn from it.
        prompt: Prompt style.
        max_length: Tokens a row; longer prompts are cut from the left.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: Task,
        *,
        directions: int = 8,
        eps: float = 1e-3,
        seed: int = 0,
        prompt: str = "default",
        max_length: int = 1024,
    ) -> None:
        from optaware.models import OptionScorer

        self.loaded, self.task = loaded, task
        self.directions, self.eps, self.seed = directions, eps, seed
        self.prompt, self.max_length = prompt, max_length
        self._scorer = OptionScorer(loaded.model, loaded.tokenizer)

    @property
    def id(self) -> str:
        """Hash over model, directions and prompt."""
        content = {
            "version": _VERSION,
            "model": self.loaded.sha256,
            "dtype": str(self.loaded.dtype),
            "task": self.task.sha256,
            "directions": self.directions,
            "eps": self.eps,
            "seed": self.seed,
            "prompt": self.prompt,
            "max_length": self.max_length,
        }
        return text_sha256(canonical_json(content))

    @property
    def forwards_per_row(self) -> int:
        """Two a direction, one at the weights themselves, one for the perplexity."""
        return 2 * self.directions + 2

    def __call__(self, rows: Sequence[Example]) -> list[Mapping[str, float | None]]:
        """Figures by row: `loss`, `g_abs`, `g_variance`, `curvature`, `curvature_abs`, `perplexity`."""
        found = self.probe(rows)
        figures = {
            "loss": found.loss,
            "g_abs": np.abs(found.g).mean(axis=1),
            "g_variance": found.g.var(axis=1, ddof=1),
            "curvature": found.curvature.mean(axis=1),
            "curvature_abs": np.abs(found.curvature).mean(axis=1),
            "perplexity": found.perplexity,
        }
        return [
            {name: finite_or_none(float(values[number])) for name, values in figures.items()}
            for number in range(len(rows))
        ]

    def probe(self, rows: Sequence[Example]) -> Probed:
        """Losses of all rows at the weights and at both ends of every direction."""
        from optaware.models import encode

        encoded = encode(
            [self.task.render(row, self.prompt) for row in rows], self.loaded.tokenizer, max_length=self.max_length
        )
        clean = self._losses(encoded)
        ends = np.empty((2, len(rows), self.directions))
        with self._direction(encoded) as (direction, seeds):
            for k, seed in enumerate(seeds):
                for side, sign in enumerate((1.0, -1.0)):
                    with direction.at(seed, sign * self.eps):
                        ends[side, :, k] = self._losses(encoded)
        above, below = ends
        return Probed(
            loss=clean,
            g=(above - below) / (2 * self.eps),
            curvature=(above + below - 2 * clean[:, None]) / self.eps**2,
            perplexity=self._perplexities(rows),
        )

    @contextmanager
    def _direction(self, encoded: Sequence[EncodedExample]) -> Iterator[tuple[Any, list[int]]]:
        import torch

        from optaware.train._seeds import derive_seed
        from optaware.train.directions import make_direction

        with torch.no_grad():
            direction = make_direction(self.loaded.model, MeZO(direction="gaussian", eps=self.eps), self.seed)
            try:
                direction.prepare(lambda: self._scorer.score(encoded[:1]))
                direction.begin(1)
                yield direction, [derive_seed(self.seed, "row measure", k) for k in range(self.directions)]
            finally:
                direction.close()

    def _losses(self, encoded: Sequence[EncodedExample]) -> Floats:
        """Loss of each row in the task's objective, from its option scores (float64 from here on)."""
        losses = []
        for scores, row in zip(self._scorer.score(encoded), encoded, strict=True):
            values = np.array(scores, dtype=np.float64)
            loss = -values[row.label]
            if self.task.loss == "options":
                loss += values.max() + math.log(float(np.exp(values - values.max()).sum()))
            losses.append(loss)
        return np.array(losses, dtype=np.float64)

    def _perplexities(self, rows: Sequence[Example]) -> Floats:
        from optaware.models import EncodedExample

        tokenizer = self.loaded.tokenizer
        found = np.full(len(rows), np.nan)
        texts = []
        for number, row in enumerate(rows):
            ids = tokenizer(self.task.span_text(row).strip(), add_special_tokens=False)["input_ids"][: self.max_length]
            start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            if start is not None:
                ids = [start, *ids]
            if len(ids) > 1:
                texts.append((number, EncodedExample(row.id, (ids[0],), (tuple(ids[1:]),), 0)))
        scores = self._scorer.score([item for _, item in texts]) if texts else []
        for (number, _), (mean,) in zip(texts, scores, strict=True):
            found[number] = math.exp(min(700.0, -mean))
        return found


def open_measure(search: SearchSpec | None, task: Task) -> RowMeasure | None:
    """The measure that a search asks for, its model loaded; None when it needs none."""
    if search is None or search.model is None:
        return None
    from optaware.models import load_model

    return RowMeasure(
        load_model(search.model),
        task,
        directions=search.directions,
        eps=search.eps,
        seed=search.seed,
        prompt=search.prompt,
        max_length=search.max_length,
    )
