from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from optaware.train.methods.gradient_harmonization._network import Network, Params

__all__ = ["adapt", "evaluate_tasks", "task_gradients"]

TaskGradients = Callable[[Params, Tensor, Tensor, Tensor, Tensor], tuple[Params, Tensor]]


def _loss(params: Params, images: Tensor, labels: Tensor, network: Network) -> Tensor:
    return F.cross_entropy(network(params, images), labels)


def adapt(
    network: Network, params: Params, images: Tensor, labels: Tensor, *, lr: float, steps: int, head_only: bool = False
) -> Params:
    """The inner loop: `steps` of gradient descent on the support set of one task, differentiable by `torch.func`.

    Args:
        network: The classifier.
        params: θ.
        images: Support images [n, h, w, c].
        labels: Their classes [n].
        lr: Inner learning rate α.
        steps: K.
        head_only: Adapt the head alone (ANIL; Raghu et al., 2020).
    """
    fixed = {name: value for name, value in params.items() if head_only and not name.startswith("head.")}
    fast = {name: value for name, value in params.items() if name not in fixed}

    def support_loss(moving: Params) -> Tensor:
        return _loss({**fixed, **moving}, images, labels, network)

    for _ in range(steps):
        slopes = grad(support_loss)(fast)
        fast = {name: value - lr * slopes[name] for name, value in fast.items()}
    return {**fixed, **fast}


def task_gradients(
    network: Network, inner: str, *, lr: float, steps: int, chunk: int | None = None, vmapped: bool = True
) -> TaskGradients:
    """A function that gives the meta-gradient g_i of each task, and the loss on its query set after adapting.

    maml: `∇θ L(U_K(θ; support); query)` with its second-order terms (Finn et al., 2017). fomaml: `∇φ L(φ; query)` at
    φ = U_K(θ; support). anil: as maml, adapting the head alone. reptile: `(θ − U_K(θ; support ∪ query)) / (αK)`, the
    mean of the gradients on the way (Nichol et al., 2018); divided by αK so that it is of the size of a gradient.

    Args:
        network: The classifier.
        inner: `maml`, `fomaml`, `anil` or `reptile`.
        lr: α.
        steps: K.
        chunk: Tasks that are computed at once; None: all.
        vmapped: False computes one task after the other: the same numbers, for measuring.

    Returns:
        Function of (params, support images [t, n, h, w, c], support labels [t, n], query images, query labels); it
        returns the gradients by name, each [t, …], and the losses [t].
    """

    def maml(params: Params, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Params, Tensor]:
        def outer(theta: Params) -> Tensor:
            fast = adapt(network, theta, sx, sy, lr=lr, steps=steps, head_only=inner == "anil")
            return _loss(fast, qx, qy, network)

        return grad_and_value(outer)(params)

    def fomaml(params: Params, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Params, Tensor]:
        fast = adapt(network, params, sx, sy, lr=lr, steps=steps)
        return grad_and_value(_loss)(fast, qx, qy, network)

    def reptile(params: Params, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Params, Tensor]:
        images, labels = torch.cat([sx, qx]), torch.cat([sy, qy])
        fast = adapt(network, params, images, labels, lr=lr, steps=steps)
        return {name: (params[name] - fast[name]) / (lr * steps) for name in params}, _loss(fast, qx, qy, network)

    one = {"maml": maml, "anil": maml, "fomaml": fomaml, "reptile": reptile}[inner]
    if vmapped:
        return vmap(one, in_dims=(None, 0, 0, 0, 0), chunk_size=chunk)
    return lambda params, *tasks: _loop(one, params, tasks)


def _loop(one: TaskGradients, params: Params, tasks: tuple[Tensor, ...]) -> tuple[Params, Tensor]:
    found = [one(params, *task) for task in zip(*tasks, strict=True)]
    slopes = {name: torch.stack([gradients[name] for gradients, _ in found]) for name in params}
    return slopes, torch.stack([loss for _, loss in found])


def evaluate_tasks(
    network: Network, inner: str, *, lr: float, steps: int
) -> Callable[[Params, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function that adapts to each task and scores its query set: losses [t] and accuracies [t]."""

    def one(params: Params, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Tensor, Tensor]:
        fast = adapt(network, params, sx, sy, lr=lr, steps=steps, head_only=inner == "anil")
        logits = network(fast, qx)
        return F.cross_entropy(logits, qy), (logits.argmax(-1) == qy).float().mean()

    return vmap(one, in_dims=(None, 0, 0, 0, 0))
