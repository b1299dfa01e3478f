"""Counter-based noise: one integer definition, the same numbers on every processor, any row alone.

z of a parameter is a function of a 64-bit key (from the probe's seed and the parameter's name) and of the row and
column of each entry; nothing is carried from one number to the next. `_reference.py` is the definition; the kernels
that are used instead where they can be give the same bits.
"""

from optaware.train.noise._draw import Distribution, noise_key, reference_noise, table
from optaware.train.noise._many import SideBySide
from optaware.train.noise._passes import NO_MASK, RESIDUAL_SCALE, Mask, Remedy, add, compiled, fill, masked, move, show

__all__ = [
    "NO_MASK",
    "RESIDUAL_SCALE",
    "Distribution",
    "Mask",
    "Remedy",
    "SideBySide",
    "add",
    "compiled",
    "fill",
    "masked",
    "move",
    "noise_key",
    "reference_noise",
    "show",
    "table",
]
