from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from optaware.errors import InputError
from optaware.store import Store

if TYPE_CHECKING:
    from optaware.models import LoadedModel

__all__ = ["model_of_run", "with_adapter"]


def model_of_run(name: str, store: Store) -> LoadedModel | None:
    """The trained model of a run whose weights were kept; None when `name` is not that of a run.

    An adapter (LoRA, a merged one, a soft prompt or prefix) comes on its base model.

    Args:
        name: Run id (its first digits suffice) or the run's folder.
        store: Where runs lie.

    Raises:
        InputError: The run has kept no weights, or weights of no language model.
    """
    from optaware.models import load_model

    try:
        folder = store.find_run(name)
    except InputError:
        return None
    weights = folder.path / "weights"
    spec = folder.read_spec()
    if spec.data.kind == "episodes":
        raise InputError.of(
            "weights-other-kind",
            folder.path.name,
            "its weights are an image classifier's, which language tasks cannot be asked of",
            "Its own test episodes are in result.json and episodes.jsonl.",
        )
    if not weights.is_dir():
        raise InputError.of(
            "weights-missing",
            str(folder.path),
            "the run has kept no weights",
            "Set keep_weights: true in its spec or study and run it again.",
        )
    adapter = (weights / "adapter_config.json").exists()
    loaded = load_model(spec.model if adapter else spec.model.model_copy(update={"name": str(weights)}))
    return with_adapter(loaded, weights) if adapter else loaded


def with_adapter(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """A loaded model inside the PEFT model of an adapter."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that is on its way out.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return replace(loaded, model=PeftModel.from_pretrained(loaded.model, str(folder)).eval())
