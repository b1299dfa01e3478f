"""Batches at fixed addresses hold what the scorer's layout holds, in few shapes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from optaware.models import EncodedExample
from optaware.models._layout import lay_out
from optaware.train._static_batch import Filler, make_batch, shape_of

SEVERAL = ((5, 7, 8), (6,), (9, 10))


def example(prompt: int, options: tuple[tuple[int, ...], ...] = SEVERAL, label: int = 1) -> EncodedExample:
    return EncodedExample(f"{prompt}", tuple(range(20, 20 + prompt)), options, label)


@pytest.mark.parametrize("options", [SEVERAL, ((1,), (2,))])
def test_a_batch_is_the_layout_of_the_scorer(options: tuple[tuple[int, ...], ...]) -> None:
    rows = [example(3, options), example(9, options, 0)]
    layout = lay_out([(row.prompt_ids, row.option_ids) for row in rows], 0, torch.device("cpu"))
    filler, shape = Filler(pin=False), shape_of(rows, "options")
    batch = make_batch(shape, torch.device("cpu"))
    for _ in range(2):  # the second time from what was kept
        batch.flat.fill_(7)
        batch.flat.copy_(filler(rows, shape, 0.25))
        width, (tokens, more) = layout.ids.shape[1], (layout.tokens.shape[2], shape.keep - layout.keep)
        assert torch.equal(batch.ids[:, -width:], layout.ids)
        assert torch.equal(batch.positions[:, -width:], layout.positions)
        assert torch.equal(batch.segments[:, -width:], layout.segments)
        assert (batch.segments[:, :-width] == -1).all()
        assert torch.equal(batch.tokens[:, :, :tokens], layout.tokens)
        present = torch.arange(tokens) < layout.lengths[..., None]
        assert torch.equal(batch.columns[:, :, :tokens][present], (layout.columns + more)[present])
        assert torch.equal(batch.lengths, layout.lengths)
        assert batch.labels.flatten().tolist() == [1, 0]
        assert float(batch.share) == 0.25


def test_one_shape_serves_batches_of_like_lengths() -> None:
    long = ((5, 7, 8, 9), (6, 1), (9, 10))
    shapes = {
        shape_of([example(size, options), example(4)], "options") for size in (3, 6, 7) for options in (SEVERAL, long)
    }
    assert len(shapes) == 1
    assert shape_of([example(3, ((1,), (2,)))], "options").keep == 1
    assert shape_of([example(70)], "options").length - 70 < 16 + 3
