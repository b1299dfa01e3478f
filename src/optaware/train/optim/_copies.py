"""Closures that can look at several points of a step in one forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optaware.train.optim._heads import scored

__all__ = ["BatchClosure", "Passes"]

Run = Callable[[Any], Any]

_CLOSE = 1e-3
"""How far a loss from a pass of copies may be from the closure's own, over 1 + abs(loss)."""


class Answer:
    """Stands for a model where its forward pass is made already: gives its share of the logits, and their loss.

    The loss is what causal models of transformers make of logits and labels (`loss_function`); asked for TRL's fused
    head, it gives what that would. All else is the model's.
    """

    def __init__(self, model: nn.Module, logits: Tensor) -> None:
        self._model, self._logits = model, logits

    def __call__(self, **inputs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        if inputs.get("fused_lm_head"):
            count = inputs.get("num_items_in_batch")
            return scored(
                CausalLMOutput(logits=self._logits), inputs.get("labels"), inputs.get("shift_labels"), count, 0.0
            )
        loss = None
        if inputs.get("labels") is not None:
            core: Any = self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model  # type: ignore[operator]
            more = {key: inputs[key] for key in ("num_items_in_batch",) if key in inputs}
            size = core.config.get_text_config().vocab_size
            loss = core.loss_function(logits=self._logits, labels=inputs["labels"], vocab_size=size, **more)
        return CausalLMOutput(loss=loss, logits=self._logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Passes:
    """A closure over `run`, which computes a loss with the model that it is given.

    Called, it runs with the model. Asked for copies, it puts the inputs through the model so many times over in one
    pass and runs once with each share of the logits.

    Args:
        model: A causal language model whose loss follows from its logits.
        inputs: What `run` gives to the model; tensors whose first dimension is that of the labels are repeated.
        run: `run(model)` returns the loss.
        most_copies: Points that may go through the model in one pass.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any], run: Run, most_copies: int) -> None:
        self.model, self.inputs, self._run, self.most_copies = model, inputs, run, most_copies

    def __call__(self) -> Any:
        """The loss."""
        return self._run(self.model)

    def copies(self, count: int) -> list[Any]:
        """The loss of each of `count` copies of the batch, which the model computes in different ways."""
        rows = len(self.inputs["labels"])
        repeated = {
            name: value.repeat(count, *[1] * (value.ndim - 1)) if _by_row(value, rows) else value
            for name, value in self.inputs.items()
            if name != "labels"
        }
        if _has_cache(self.model):
            repeated["use_cache"] = False
        logits = self.model(**repeated).logits
        return [self._run(Answer(self.model, part)) for part in logits.chunk(count)]

    @torch.no_grad()
    def agree(self) -> bool:
        """Whether a pass of two copies gives the closure's own loss twice.

        If not, the loss does not follow from the logits alone, or rows of one copy see those of the other.
        """
        try:
            own, copied = float(self()), [float(each) for each in self.copies(2)]
        except (AttributeError, KeyError, TypeError, ValueError):
            return False
        return all(abs(own - each) <= _CLOSE * (1 + abs(own)) for each in copied)


class BatchClosure(Passes):
    """The loss of a Hugging Face causal model on one batch, as a closure that can look at several points at once.

        optimizer.estimate(BatchClosure(model, {"input_ids": ids, "labels": ids}))

    Both signs of a direction then go through the model in one forward pass and share one draw; on a GPU with small
    batches, `most_copies=16` and several queries fill it. It takes the memory of so many copies of the batch. The
    losses are those of a plain closure up to rounding.

    Args:
        model: The model.
        inputs: Its inputs, tensors, with `labels`.
        most_copies: Points that may go through the model in one pass.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any], *, most_copies: int = 2) -> None:
        super().__init__(model, inputs, lambda model: model(**inputs).loss, most_copies)


def _has_cache(model: Any) -> bool:
    """Whether the model can be told to keep no keys and values; those of a prefix are given to it as such."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "use_cache" in inspect.signature(type(core).forward).parameters


def _by_row(value: Any, rows: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == rows
