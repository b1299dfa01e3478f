"""An output head that is not trained must not be copied for each row of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optaware.models._introspect import unwrap

__all__ = ["lay_out_for_head"]


def lay_out_for_head(model: nn.Module) -> None:
    """Have the model's output head get its hidden states in one block of memory.

    With `logits_to_keep` the head gets a slice, `[B, K, D]` with gaps between rows. Where the head's weight `[V, D]`
    needs no gradient, PyTorch multiplies such an input row by row, as a batch of matrices, and on a CPU first copies
    the weight for each row: B·V·D numbers, 0.9 GB for 16 rows of SmolLM2-135M. In one block it is one product. The
    copy made here is B·K·D.
    """
    core = unwrap(model)
    head = core.get_output_embeddings() if hasattr(core, "get_output_embeddings") else None
    if isinstance(head, nn.Module) and _in_one_block not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_in_one_block)


def _in_one_block(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in inputs)
