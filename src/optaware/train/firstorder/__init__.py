"""First-order baselines: backpropagation with AdamW at a constant learning rate."""

from optaware.train.firstorder._adamw import AdamWLearner
from optaware.train.firstorder.full import full
from optaware.train.firstorder.lora import add_adapter, lora

__all__ = ["AdamWLearner", "add_adapter", "full", "lora"]
