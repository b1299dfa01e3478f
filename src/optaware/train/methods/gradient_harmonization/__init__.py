"""Meta-learning with harmonised task gradients; see the README beside this file."""

from optaware.train.methods.gradient_harmonization._aggregate import agreement, harmonized, make_aggregator, mean
from optaware.train.methods.gradient_harmonization._conflict import conflict_index, negative_pairs, normalised_entropy
from optaware.train.methods.gradient_harmonization._inner import adapt, task_gradients
from optaware.train.methods.gradient_harmonization._network import Network, make_network
from optaware.train.methods.gradient_harmonization._run import run
from optaware.train.methods.gradient_harmonization._schedule import explore_share
from optaware.train.methods.gradient_harmonization._sources import load_classes
from optaware.train.methods.gradient_harmonization._update import Adam, combine

__all__ = [
    "Adam",
    "Network",
    "adapt",
    "agreement",
    "combine",
    "conflict_index",
    "explore_share",
    "harmonized",
    "load_classes",
    "make_aggregator",
    "make_network",
    "mean",
    "negative_pairs",
    "normalised_entropy",
    "run",
    "task_gradients",
]
