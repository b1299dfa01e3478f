"""Short digests of weights and texts, made where the weights lie."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import Tensor, nn

__all__ = ["parameters_digest", "text_digest", "weights_digest"]

_CHUNK = 1 << 20
"""Numbers taken at a time: their integers, places and factors are 8 MB each while they are made."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def text_digest(text: str) -> int:
    """63 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") >> 1


def parameters_digest(model: nn.Module) -> str:
    """The digest of all parameters of a model that have data, trained or not."""
    return weights_digest({name: each for name, each in model.named_parameters() if each.device.type != "meta"})


@torch.no_grad()
def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """A digest of the bits, names and shapes of some tensors, as 32 hexadecimal digits.

    The bits are read as integers and summed with position-dependent odd weights modulo 2⁶⁴ on the tensor's own device,
    which is exact in any order, so equal weights give equal digests on every machine and nothing but eight bytes per
    tensor leaves a GPU. It tells apart what differs by accident; it is no defence against intent.
    """
    whole = blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name].detach()
        flat = tensor.contiguous().view(-1)
        total = 0
        for start in range(0, flat.numel(), _CHUNK):
            bits = flat[start : start + _CHUNK].view(_INTEGERS[flat.element_size()]).to(torch.int64)
            places = torch.arange(start, start + bits.numel(), device=bits.device, dtype=torch.int64)
            factors = (places * -7046029254386353131) ^ (places >> 7)
            total = (total + int((bits * (2 * factors + 1)).sum().item())) % (1 << 64)
        whole.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{total}\n".encode())
    return whole.hexdigest()
