"""The hub models that a study has yet to fetch, and whether the hub gives them."""

from __future__ import annotations

from optaware.errors import ProblemList
from optaware.models import check_hub, is_to_be_fetched
from optaware.records import ModelRef
from optaware.store import Store
from optaware.study._graph import StudyGraph

__all__ = ["check_hub_models", "models_to_fetch"]


def models_to_fetch(graph: StudyGraph, store: Store, *, training: bool = True) -> list[ModelRef]:
    """Hub models that unfinished runs and corpora need and that are not in the local cache. Asks nobody.

    Args:
        graph: The study.
        store: What is finished.
        training: Whether its runs count; else its corpora alone.
    """
    tries = [run for choice in graph.choices for run in choice.tries]
    runs = [run for run in [*graph.runs, *tries] if not store.run_folder(run).is_done] if training else []
    needed = {(run.model.name, run.model.revision) for run in runs}
    for spec in graph.corpora:
        if not (store.corpus_folder(spec) / "DONE").exists():
            needed |= {(chat.model, None) for chat in (spec.rewriter, spec.judge) if chat.provider == "local"}
    refs = [ModelRef(name=name, revision=revision) for name, revision in sorted(needed, key=str)]
    return [ref for ref in refs if is_to_be_fetched(ref)]


def check_hub_models(graph: StudyGraph, store: Store, *, training: bool = True) -> None:
    """Ask the hub for all of `models_to_fetch`, so that no run is begun that could only fail.

    Raises:
        InputError: All that cannot be had, at once.
    """
    problems = ProblemList()
    for ref in models_to_fetch(graph, store, training=training):
        with problems.collecting():
            check_hub(ref)
    problems.raise_if_any()
