from __future__ import annotations

from collections.abc import Hashable, Sequence

from optaware.errors import InputError

__all__ = ["macro_f1"]


def macro_f1(labels: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Mean over classes of `F1_c = 2·TP_c / (2·TP_c + FP_c + FN_c)`; the classes are those that occur in either list.

    Args:
        labels: The right class of each item.
        predicted: The predicted class of each item, in the same order.

    Returns:
        0 to 1. For two classes this is the mean of the F1 of both, not the F1 of a "positive" one.

    Raises:
        InputError: No items, or different numbers of them.
    """
    n = len(labels)
    if n == 0 or n != len(predicted):
        raise InputError.of(
            "not-paired", f"{n} labels and {len(predicted)} predictions", "each item needs both", "Match the items."
        )
    scores = []
    for each in dict.fromkeys([*labels, *predicted]):
        hits = sum(a == b == each for a, b in zip(labels, predicted, strict=True))
        involved = sum(label == each for label in labels) + sum(guess == each for guess in predicted)
        scores.append(2 * hits / involved)
    return sum(scores) / len(scores)
