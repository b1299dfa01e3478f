"""Forward-only training for loops and trainers that are not ours: a torch optimizer, and a mixin for `Trainer`s."""

from optaware.train.optim._copies import BatchClosure
from optaware.train.optim._trainer import ZerothOrderMixin
from optaware.train.optim._zeroth_order import ZerothOrder

__all__ = ["BatchClosure", "ZerothOrder", "ZerothOrderMixin"]
