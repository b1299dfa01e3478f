from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from optaware.errors import InputError
from optaware.records import ModelRef
from optaware.train._seeds import derive_seed, generator

__all__ = ["Network", "make_network"]

Params = dict[str, Tensor]

_HIDDEN = (256, 128, 64, 64)
_EPS = 1e-5


@dataclass(frozen=True)
class Network:
    """A classifier as a function of its parameters: four blocks and a linear head (Finn et al., 2017, section 5.2).

    A block is a linear map, batch norm with the statistics of the batch at hand, and a ReLU.

    Attributes:
        kind: `conv4` (3×3 convolutions of stride 2, the last map averaged) or `mlp` (256, 128, 64, 64 units).
        widths: Filters or units of the blocks.
        channels: Channels of an image.
        size: Height and width of an image in pixels.
        ways: Classes.
        unfolded: Compute convolutions as matrix products of patches: batched over tasks they are one large product,
            which is what a GPU does fast; on a CPU the grouped convolution is faster.
    """

    kind: str
    widths: tuple[int, ...]
    channels: int
    size: int
    ways: int
    unfolded: bool = False

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Fresh parameters by name: blocks uniform in ±√(6/(in + out)) (Glorot), head N(0, 0.01²), scale 1, shift 0."""
        source = generator(derive_seed(seed, "init"))
        params: Params = {}
        fan_in = self.channels if self.kind == "conv4" else self.channels * self.size**2
        for index, width in enumerate(self.widths):
            shape = (width, fan_in, 3, 3) if self.kind == "conv4" else (fan_in, width)
            area = 9 if self.kind == "conv4" else 1
            bound = math.sqrt(6 / (area * (fan_in + width)))
            params[f"{index}.weight"] = (torch.rand(shape, generator=source, dtype=dtype) * 2 - 1) * bound
            params[f"{index}.scale"] = torch.ones(width, dtype=dtype)
            params[f"{index}.shift"] = torch.zeros(width, dtype=dtype)
            fan_in = width
        params["head.weight"] = torch.randn(fan_in, self.ways, generator=source, dtype=dtype) * 0.01
        params["head.bias"] = torch.zeros(self.ways, dtype=dtype)
        return params

    def __call__(self, params: Params, images: Tensor) -> Tensor:
        """Logits [n, ways] of images [n, height, width, channels]."""
        conv = self.kind == "conv4"
        maps = images if self.unfolded or not conv else images.permute(0, 3, 1, 2)
        maps = maps if conv else images.flatten(1)
        axes = ((0, 1, 2) if self.unfolded else (0, 2, 3)) if conv else (0,)
        shape = (-1, 1, 1) if conv and not self.unfolded else (-1,)
        for index in range(len(self.widths)):
            maps = self._linear(params[f"{index}.weight"], maps)
            mean = maps.mean(axes, keepdim=True)
            centred = maps - mean
            variance = (centred * centred).mean(axes, keepdim=True)
            scale, shift = params[f"{index}.scale"].view(shape), params[f"{index}.shift"].view(shape)
            maps = F.relu(centred * torch.rsqrt(variance + _EPS) * scale + shift)
        if conv:
            maps = maps.mean((1, 2) if self.unfolded else (2, 3))
        return maps @ params["head.weight"] + params["head.bias"]

    def _linear(self, weight: Tensor, maps: Tensor) -> Tensor:
        if self.kind != "conv4":
            return maps @ weight
        if not self.unfolded:
            return F.conv2d(maps, weight, stride=2, padding=1)
        return _patches(maps) @ weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _patches(maps: Tensor) -> Tensor:
    """The 3×3 patches, two apart, of maps [n, h, w, c]: [n, ⌈h/2⌉, ⌈w/2⌉, 9c]."""
    rows, columns = (maps.shape[1] + 1) // 2, (maps.shape[2] + 1) // 2
    padded = F.pad(maps, (0, 0, 1, 1, 1, 1))
    parts = [padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    return torch.cat(parts, -1)


def make_network(ref: ModelRef, channels: int, size: int, ways: int, device: torch.device | str = "cpu") -> Network:
    """The network that a model's name means: `conv4-64` (published), `conv4-32` (fast), `conv4-N`, or `mlp`.

    Raises:
        InputError: Another name, or a precision other than fp32.
    """
    match = re.fullmatch(r"conv4-([1-9][0-9]{0,3})", ref.name)
    if match is None and ref.name != "mlp":
        raise InputError.of(
            "network-unknown",
            f"model.name = {ref.name}",
            "it names no network for episodes",
            "Choose conv4-64 (the published one), conv4-32 (fast), conv4-N or mlp.",
        )
    if ref.dtype != "fp32":
        raise InputError.of(
            "network-dtype",
            f"model.dtype = {ref.dtype}",
            "second derivatives through batch statistics need single precision",
            "Set model.dtype: fp32.",
        )
    widths = (int(match[1]),) * 4 if match else _HIDDEN
    unfolded = match is not None and torch.device(device).type == "cuda"
    return Network("conv4" if match else "mlp", widths, channels, size, ways, unfolded)
