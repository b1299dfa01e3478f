"""One frozen config per training method; its annotated fields are the method's ablation surface.

A field that can be ablated carries a `Knob` beside its type: what it is in words, other names it goes by, what removing
it means and which values count as the baseline. There is no second list: adding a knob here makes it ablatable.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from optaware.records.methods._base import Knob, MethodConfig, surface
from optaware.records.methods.firstorder import FOFull, FOLoRA, ZeroShot
from optaware.records.methods.gradient_harmonization import GradientHarmonization
from optaware.records.methods.prompt_tuning import ComplementaryPromptTuning
from optaware.records.methods.seeded_lora import SeededLoRA
from optaware.records.methods.zeroth import FZOO, LOZO, Fast, MeZO, MeZOAdam, SparseMeZO, ZerothOrderConfig

__all__ = [
    "FZOO",
    "LOZO",
    "ComplementaryPromptTuning",
    "FOFull",
    "FOLoRA",
    "Fast",
    "GradientHarmonization",
    "Knob",
    "MeZO",
    "MeZOAdam",
    "Method",
    "MethodConfig",
    "SeededLoRA",
    "SparseMeZO",
    "ZeroShot",
    "ZerothOrderConfig",
    "surface",
]

Method = Annotated[
    ZeroShot
    | MeZO
    | MeZOAdam
    | LOZO
    | FZOO
    | SparseMeZO
    | Fast
    | FOFull
    | FOLoRA
    | GradientHarmonization
    | SeededLoRA
    | ComplementaryPromptTuning,
    Field(discriminator="name"),
]
"""Any method config; `name` says which."""
