"""Where a model's parameters act: the modules that low-rank side products are added to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from optaware.errors import ModelError, Problem
from optaware.train.noise import table

__all__ = ["MatrixSite", "VectorSite", "find_sites"]

Kind = Literal["linear", "conv1d", "embedding"]
VectorKind = Literal["bias", "module", "swap"]


@dataclass
class MatrixSite:
    """A matrix and the modules that multiply by it (two where input embedding and output head are tied).

    No module: a parameter of two or more dimensions that is used in a way of its own, as the stacked experts of a
    mixture are; its matrix is the table of its last dimension and all others.
    """

    name: str
    parameter: nn.Parameter
    users: list[tuple[nn.Module, Kind]] = field(default_factory=list)

    @property
    def transposed(self) -> bool:
        """Whether the matrix is stored as (inputs, outputs), as Conv1D does."""
        return bool(self.users) and self.users[0][1] == "conv1d"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m (outputs, or entries of the vocabulary) and columns n (inputs, or width of an embedding)."""
        first, second = table(self.parameter.shape)
        return (second, first) if self.transposed else (first, second)


@dataclass
class VectorSite:
    """A bias, norm scale or other small parameter.

    `bias`: added to the output of a linear module. `module`: its module holds vectors only and no other modules (a
    norm), so the module can compute in fp32 and cast its output back. `swap`: anything else; a copy in the parameter's
    own dtype is put in.
    """

    name: str
    parameter: nn.Parameter
    module: nn.Module
    kind: VectorKind


def _kind(module: nn.Module) -> Kind | None:
    forward = type(module).forward
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return "linear"
    if isinstance(module, Conv1D):
        return "conv1d"
    if isinstance(module, nn.Embedding) and (forward is nn.Embedding.forward or hasattr(module, "embed_scale")):
        return "embedding"
    return None


def find_sites(model: nn.Module) -> tuple[list[MatrixSite], list[VectorSite], list[MatrixSite]]:
    """Sort the trainable parameters of `model` by how a perturbation can be applied inside the forward pass.

    Args:
        model: The model.

    Returns:
        Matrices of linear, Conv1D and embedding modules, vectors, and what is neither.

    Raises:
        ModelError: Parameters without data or that are not floating-point numbers; no trainable parameter at all.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    _refuse(model, names)
    matrices: dict[int, MatrixSite] = {}
    vectors: dict[int, VectorSite] = {}
    unknown: dict[int, str] = {}
    for module in model.modules():
        kind = _kind(module)
        own = list(module.parameters(recurse=False))
        for key, parameter in module.named_parameters(recurse=False):
            name = names.get(id(parameter))
            if name is None:
                continue
            if kind is not None and key == "weight":
                site = matrices.setdefault(id(parameter), MatrixSite(name, parameter))
                site.users.append((module, kind))
            elif parameter.ndim <= 1:
                if kind in ("linear", "conv1d"):
                    how: VectorKind = "bias"
                elif all(each.ndim <= 1 for each in own) and next(module.children(), None) is None:
                    how = "module"
                else:
                    how = "swap"
                vectors.setdefault(id(parameter), VectorSite(name, parameter, module, how))
            else:
                unknown[id(parameter)] = name
    unknown.update({key: site.name for key, site in matrices.items() if _mixed(site) or key in unknown})
    parameters = dict(model.named_parameters())
    others = [MatrixSite(name, parameters[name]) for name in unknown.values()]
    matrices = {key: site for key, site in matrices.items() if key not in unknown}
    return list(matrices.values()), list(vectors.values()), others


def _refuse(model: nn.Module, names: dict[int, str]) -> None:
    """Say which parameters cannot be perturbed at all."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in names]
    if not trained:
        raise ModelError(
            Problem(
                "nothing-to-train",
                type(model).__name__,
                "no parameter has requires_grad set (or none is left by the method's filters)",
                "Unfreeze what is to be trained, or change the patterns of `include`.",
            )
        )
    packed = [name for name, each in model.named_parameters() if not each.is_floating_point() and each.ndim > 1]
    if hasattr(model, "peft_config"):  # an adapter is trained on top, and a frozen base may be quantised
        packed = []
    if empty := [name for name, each in trained if each.is_meta] or packed:
        why = "quantised (packed integers)" if packed else "on the meta device (they have no data)"
        raise ModelError(
            Problem(
                "parameters-without-numbers",
                ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else ""),
                f"these parameters are {why}, so there is no number to add a perturbation to",
                "Load the model in fp32, bf16 or fp16 with its weights; or train an adapter and freeze the rest.",
            )
        )


def _mixed(site: MatrixSite) -> bool:
    return len({kind == "conv1d" for _, kind in site.users}) > 1


def embedding_scale(module: nn.Module) -> Tensor | float:
    """What an embedding module multiplies its rows by (some families scale by the square root of the width)."""
    scale = getattr(module, "embed_scale", 1.0)
    return scale if isinstance(scale, torch.Tensor) else float(scale)
