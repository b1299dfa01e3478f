"""Seeded LoRA: experts that start from one seed adapter, merged on ΔW. See the README beside this file."""

from __future__ import annotations

from optaware.train.methods.seeded_lora._run import run, train_experts
from optaware.train.methods.seeded_lora._spec import ExpertSpec, expert_specs

__all__ = ["ExpertSpec", "expert_specs", "run", "train_experts"]
