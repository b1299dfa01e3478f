"""Output heads whose weight a trainer multiplies by itself, past the module that perturbations act in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["full_head", "scored"]


@contextmanager
def full_head(model: nn.Module) -> Iterator[None]:
    """Inside, a model that TRL gave a fused output head calls the head's module, where the head is trained.

    TRL's trainers compute log-probabilities from `lm_head.weight` directly, in tiles. A perturbation that acts inside
    the module would miss it. Where the head is frozen (as with LoRA) the fused form stays.
    """
    owner = _fused(model)
    head: Any = owner.get_output_embeddings() if owner is not None else None
    if owner is None or head is None or not any(parameter.requires_grad for parameter in head.parameters()):
        yield
        return
    fused = owner.__dict__["forward"]

    def forward(*args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return fused(*args, **kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        count = kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        outputs = fused(*args, **kwargs)
        return scored(outputs, labels, shifted, count, getattr(owner.config, "router_aux_loss_coef", 0.0))

    owner.forward = forward
    try:
        yield
    finally:
        owner.forward = fused


def _fused(model: nn.Module) -> Any:
    """The module inside `model` whose forward TRL replaced."""
    for module in (model, *model.children(), *(inner for child in model.children() for inner in child.children())):
        forward = module.__dict__.get("forward")
        if forward is not None and "_fused_forward" in _names(forward):
            return module
    return None


def _names(function: Any) -> list[str]:
    """Names of the code objects of a function and of what it wraps."""
    names, seen = [], 0
    while function is not None and seen < 8:
        function = inspect.unwrap(function, stop=lambda f: hasattr(f, "__code__")) if callable(function) else function
        inner = getattr(function, "__func__", function)
        names.append(getattr(getattr(inner, "__code__", None), "co_name", ""))
        function, seen = getattr(inner, "__wrapped__", None), seen + 1
    return names


def scored(outputs: Any, labels: Tensor | None, shifted: Tensor | None, count: Any, aux: float) -> Any:
    """What TRL's trainers read of a fused output, from plain logits, in fp32.

    Raises:
        ValueError: There are not as many labels as places in the logits.
    """
    from transformers.utils import ModelOutput

    logits = outputs.logits.float()
    if shifted is None:
        assert labels is not None
        logits, shifted = logits[:, :-1], labels[:, 1:]
    if logits.shape[:2] != shifted.shape:
        raise ValueError(f"{tuple(shifted.shape)} labels for logits at {tuple(logits.shape[:2])} places")
    mask = shifted != -100
    log_all = torch.log_softmax(logits, dim=-1)
    chosen = log_all.gather(-1, shifted.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(~mask, 0)
    loss = -chosen.sum() / (mask.sum().clamp(min=1) if count is None else count)
    aux_loss = getattr(outputs, "aux_loss", None)
    if aux_loss is not None:
        loss = loss + aux * aux_loss
    probabilities = log_all.exp()
    return ModelOutput(
        loss=loss,
        log_probs=chosen,
        entropy=(-(probabilities * log_all).sum(-1)).masked_fill(~mask, 0),
        log_sum_sq_probs=torch.logsumexp(2 * log_all, dim=-1).masked_fill(~mask, 0),
        mean_logits=logits.mean(-1).masked_fill(~mask, 0),
        is_top1=((logits.argmax(-1) == shifted) & mask),
        label_mask=mask,
        aux_loss=aux_loss,
    )
