"""Whether adapters may be merged at all: one base model, the same layers, the same shapes."""

from __future__ import annotations

from collections.abc import Sequence

from optaware.errors import InputError, ProblemList
from optaware.train.merging._adapter import Adapter, Layer

__all__ = ["check_compatible", "check_weights"]


def check_compatible(adapters: Sequence[Adapter], *, missing: str = "refuse") -> list[Adapter]:
    """Check that the adapters can be merged, and return them with the same layers each.

    Ranks may differ: ΔW has no rank of its own. Layers may not, unless `missing` says that an absent layer is one that
    the adapter leaves unchanged.

    Args:
        adapters: At least one.
        missing: `refuse`, or `zero` to count an absent layer as ΔW = 0.

    Raises:
        InputError: No adapters; other base models; other layers; other shapes. All faults at once.
    """
    if not adapters:
        raise InputError.of("adapters-missing", "no adapters", "there is nothing to merge", "Name at least one.")
    if missing not in ("refuse", "zero"):
        raise InputError.of(
            "option-unknown", f"missing={missing!r}", "it is neither refuse nor zero", "Choose one of the two."
        )
    problems = ProblemList()
    first = adapters[0]
    for other in adapters[1:]:
        _check_base(first, other, problems)
    names = list(dict.fromkeys(name for adapter in adapters for name in adapter.layers))
    for adapter in adapters:
        absent = [name for name in names if name not in adapter.layers]
        if absent and missing == "refuse":
            problems.add(
                "adapter-targets-differ",
                adapter.name,
                f"it has nothing for {len(absent)} layers that others adapt ({', '.join(absent[:3])} …)",
                "Merge adapters of the same layers, or ask for absent layers to count as unchanged (missing: zero).",
            )
    for name in names:
        shapes = {adapter.layers[name].shape: adapter.name for adapter in adapters if name in adapter.layers}
        if len(shapes) > 1:
            said = ", ".join(f"{owner} {list(shape)}" for shape, owner in shapes.items())
            problems.add(
                "adapter-shapes-differ", name, f"its ΔW has several shapes: {said}", "Merge adapters of one base model."
            )
    problems.raise_if_any()
    return [_filled(adapter, names, adapters) for adapter in adapters]


def check_weights(weights: Sequence[float], count: int) -> None:
    """Check that there is one finite weight per adapter.

    Raises:
        InputError: There is not.
    """
    if len(weights) != count:
        raise InputError.of(
            "weights-count", f"{len(weights)} weights", f"there are {count} adapters", "Give one weight per adapter."
        )
    if not all(abs(weight) < float("inf") for weight in weights):
        raise InputError.of("weights-count", str(list(weights)), "a weight is not finite", "Give finite weights.")


def _check_base(first: Adapter, other: Adapter, problems: ProblemList) -> None:
    if first.fan_in_fan_out != other.fan_in_fan_out:
        problems.add(
            "adapter-base-differs",
            f"{first.name} and {other.name}",
            "one is for layers of weight [in, out], the other for [out, in]",
            "Merge adapters of one base model.",
        )
    both_known = first.base_sha256 is not None and other.base_sha256 is not None
    same = first.base_sha256 == other.base_sha256 if both_known else first.base == other.base
    if not same and (both_known or (first.base and other.base)):
        problems.add(
            "adapter-base-differs",
            f"{first.name} (of {first.base}) and {other.name} (of {other.base})",
            "what an adapter adds means something on its own base model only",
            "Merge adapters of one base model.",
        )


def _filled(adapter: Adapter, names: list[str], adapters: Sequence[Adapter]) -> Adapter:
    layers = {}
    for name in names:
        if (layer := adapter.layers.get(name)) is None:
            like = next(each.layers[name] for each in adapters if name in each.layers)
            layer = Layer(like.a[:1] * 0, like.b[:, :1] * 0)
        layers[name] = layer
    return Adapter(adapter.name, layers, adapter.base, adapter.base_sha256, adapter.fan_in_fan_out, adapter.notes)
