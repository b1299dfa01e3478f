"""A training script that knows nothing of optaware: scikit-learn's SGDClassifier on the digits that come with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    """Train, score, write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float, default=1e-4, help="strength of the penalty")
    parser.add_argument("--penalty", choices=["l2", "l1", "elasticnet", "none"], default="l2")
    parser.add_argument("--scale", choices=["true", "false"], default="true", help="standardise the pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images, digits, test_size=0.4, random_state=options.seed, stratify=digits)
    train_x, test_x, train_y, test_y = split
    penalty = None if options.penalty == "none" else options.penalty
    model = SGDClassifier(
        loss="log_loss", alpha=options.alpha, penalty=penalty, random_state=options.seed, max_iter=50, tol=None
    )
    fitted = make_pipeline(StandardScaler(with_std=options.scale == "true"), model).fit(train_x, train_y)
    guessed = fitted.predict(test_x)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = {"test": {"accuracy": accuracy_score(test_y, guessed), "f1": f1_score(test_y, guessed, average="macro")}}
    (options.out / "metrics.json").write_text(json.dumps(measured), encoding="utf-8")
    print(f"loss={log_loss(test_y, fitted.predict_proba(test_x)):.6f}")


if __name__ == "__main__":
    main()
