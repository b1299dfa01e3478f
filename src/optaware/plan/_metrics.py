from __future__ import annotations

import re

from optaware.records import Record

__all__ = ["METRICS", "NamedMetric", "name_metric"]

# Canonical name -> other words for it. The longest phrase found in a metric's text decides.
METRICS: dict[str, tuple[str, ...]] = {
    "accuracy": ("acc", "exact match", "top-1"),
    "zero-shot accuracy": ("zero shot performance", "0-shot accuracy"),
    "mean task accuracy": ("average task accuracy", "mean accuracy", "average accuracy", "accuracy across tasks"),
    "F1": ("f1 score", "f score", "f-measure"),
    "loss": ("cross entropy",),
    "perplexity": (),
    "convergence": (
        "convergence rate",
        "convergence speed",
        "iteration count",
        "number of iterations",
        "steps to target",
        "optimization steps",
    ),
    "stability": ("training stability", "variance across seeds", "standard deviation", "variance"),
    "GPU-hours": ("gpu hour consumption", "gpu time", "gpu hour"),
    "wall time": ("wall clock time", "wall clock", "runtime", "training time", "run time", "elapsed time"),
    "peak memory": ("memory footprint", "memory usage", "memory consumption", "gpu memory", "memory", "vram"),
    "memory reduction": ("memory saving", "memory savings", "memory efficiency"),
    "training speed": ("throughput", "steps per second", "tokens per second", "runtime efficiency", "speed"),
    "forward passes": ("forward pass count", "number of forward passes", "forward pass", "function evaluations"),
    "5-way-1-shot accuracy": ("1-shot accuracy", "5-way 1-shot", "one-shot accuracy"),
    "5-way-5-shot accuracy": ("5-shot accuracy", "5-way 5-shot", "five-shot accuracy"),
    "nGCI": ("normalised gradient conflict index", "normalized gradient conflict index", "norm-free GCI"),
    "negative pair share": ("share of conflicting pairs", "negative-pair share"),
    "weight entropy": ("entropy of the weights",),
    "GCI": ("gradient conflict index", "gradient conflict"),
    "interference": ("task interference measure", "task interference", "negative transfer"),
    "robustness": ("robustness to noise", "robust accuracy"),
    "generalization": ("generalisation", "out of distribution performance", "ood performance"),
    "BLEU": ("bleu score",),
    "ROUGE": ("rouge score", "rouge l", "rouge 1", "rouge 2"),
    "AUC": ("auroc", "roc auc", "area under the curve"),
    "precision": (),
    "recall": (),
    "trainable parameters": ("parameter count", "number of parameters"),
    "FLOPs": ("flop", "compute cost", "computational cost"),
    "latency": ("inference time", "inference latency"),
    "win rate": ("preference rate",),
}


class NamedMetric(Record):
    """A metric as written, its canonical name (None when unknown), and the words that narrow it down.

    `5-way-1-shot accuracy` is accuracy, narrowed by "5 way 1 shot".
    """

    text: str
    name: str | None
    narrowed_by: str = ""


def _words(text: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W_]+", text.lower())
    return tuple(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


_PHRASES = {_words(phrase): name for name, others in METRICS.items() for phrase in (name, *others)}
_LONGEST = max(map(len, _PHRASES))


def name_metric(text: str) -> NamedMetric:
    """The canonical name of a metric by the longest known phrase in it; of equally long ones, the last."""
    words = _words(text)[:60]
    for length in range(min(_LONGEST, len(words)), 0, -1):
        for start in range(len(words) - length, -1, -1):
            if name := _PHRASES.get(words[start : start + length]):
                others = [w for w in (*words[:start], *words[start + length :]) if w not in _words(name)]
                return NamedMetric(text=text, name=name, narrowed_by=" ".join(others))
    return NamedMetric(text=text, name=None)
