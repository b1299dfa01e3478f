"""The paper's way of probing: the stored weights are perturbed and perturbed back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from optaware.train import noise
from optaware.train.directions.dense import Dense

__all__ = ["InPlace"]


class InPlace(Dense):
    """As `Dense`, but a probe adds `scale·z` to the stored matrices and takes it off again afterwards.

    This is what MeZO's own code does, and exists to be compared with: every probe leaves the rounding of two sums
    behind (12 % of the weights' scale after 1000 bf16 steps), so the promise that weights are restored to the bit does
    not hold here. Vectors are perturbed as in `Dense`.
    """

    leaves_rounding = True
    """A step that is made again from its coefficients must go to its points again, too."""

    @property
    def supports_batch(self) -> bool:
        """There is one set of weights, so one probe at a time."""
        return False

    def prepare(self, run: Callable[[], object]) -> None:
        """Nothing to look at: whatever uses a weight sees it perturbed."""
        run()

    @contextmanager
    def batched(self, probes: Sequence[tuple[int, float]]) -> Iterator[None]:
        """One probe."""
        ((seed, scale),) = probes
        self._flush()
        touched = [each for name, each in self.weights_of.items() if self._is_active(name)]
        keys = [noise.noise_key(seed, each.name) for each in touched]
        # Masks are those of the unperturbed weights; where noise is stored, z is drawn now with its mask.
        stored = [each.z(key) if each.kept is not None else None for each, key in zip(touched, keys, strict=True)]
        kept = [each.parameter.data.abs() <= each.limit if each.limit is not None else None for each in touched]

        def add(amount: float) -> None:
            for each, key, z, keep in zip(touched, keys, stored, kept, strict=True):
                data = each.parameter.data
                if z is not None:
                    noise.move(data, None, [(key, amount)], 1.0, self._distribution, noise=lambda _, z=z: z)  # type: ignore[misc]
                elif keep is None:
                    noise.move(data, None, [(key, amount)], 1.0, self._distribution, each.mask)
                else:
                    drawn = noise.fill(key, data.shape, self._distribution, device=data.device)
                    noise.add(data, None, drawn.where(keep, 0.0) * amount)

        self._draw(seed)
        values = [value for bank in self._banks for value in bank.at(scale)]
        for each in self.weights_of.values():
            each.probes = []  # the modules compute with what is stored
        add(scale)
        try:
            self._copies.on = True
            for vector, value in zip(self.vectors, values, strict=True):
                vector.put_in([value])
            yield
        finally:
            self._copies.on = False
            for vector in self.vectors:
                vector.take_out()
            add(-scale)
