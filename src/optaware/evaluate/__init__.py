"""Evaluation: a scorer and rows in, per-example predictions and a score out."""

from optaware.evaluate._evaluate import Scorer, evaluate, read_predictions

__all__ = ["Scorer", "evaluate", "read_predictions"]
