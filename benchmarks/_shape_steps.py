"""The rows of `step_time.py --shape`: variants of a step on a model of known shape with random weights."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from _shapes import REFRESH_EVERY, SHAPES, VARIANTS, Step, empty, llama, make_step, rows_of, timed

__all__ = ["NOTES", "measure"]

NOTES = (
    "Each variant has a model of its own with the same weights; wall clock of whole steps, host work and the read of "
    "the losses included.",
    "median_ms of low-rank variants is the median of the steps that redraw nothing plus a refresh_every-th of what a "
    "step with a refresh (merge into the weights, new right factors) takes more; refresh_ms is that difference.",
    "device_ms is the replay of a step's graph alone. two-forwards-graphed is the bare model under one CUDA graph.",
    "dense and low-rank keep residuals (precision auto); the stochastic variants keep nothing beside the weights.",
)

SLOW = ("original", "original-one-row", "hooks-dense-stochastic")
DEFAULT = tuple(name for name in VARIANTS if name not in ("adamw", "lora", "hooks-low-rank", "hooks-dense-stochastic"))


def measure(shape: str, device: str, batch: int, length: int, rounds: int, chosen: list[str]) -> list[dict[str, Any]]:
    """One row per variant on one size of batch."""
    rows = rows_of(batch, length, SHAPES[shape]["vocab_size"])
    found: dict[str, dict[str, Any]] = {}
    for name in chosen or DEFAULT:
        empty()
        model = llama(shape, device)
        try:
            step: Step | None = make_step(name, model, rows)
        except RuntimeError as error:  # a graph that cannot be captured, say
            found[name] = {"failed": str(error).splitlines()[0][:200]}
            continue
        assert step is not None
        count = max(3, rounds // 6) if name in SLOW else rounds
        timed(step.run, 2, 1, device)  # compiles, captures
        first = 1 + REFRESH_EVERY
        times = timed(step.run, count, first, device)
        found[name] = _figures(name, times, first) | {"engine": step.engine, "rounds": count}
        if step.engine == "fused" and device != "cpu":
            found[name] |= {"device_ms": round(_device_ms(step.learner), 3), "graphs": step.learner.captures.graphs}
        print(f"{batch} x {length:4d}  {name:24s} {found[name]}", flush=True)
        if step.learner is not None:
            step.learner.close()
        del model, step
    return [
        {
            "case": f"{shape} shape, random weights, bf16, {batch} x {length}",
            "variant": name,
            "ratio_to_original": _ratio(figures, found.get("original")),
            "ratio_to_two_forwards": _ratio(figures, found.get("two-forwards")),
            "ratio_to_two_forwards_graphed": _ratio(figures, found.get("two-forwards-graphed")),
            **figures,
        }
        for name, figures in found.items()
    ]


def _figures(name: str, times: list[float], first: int) -> dict[str, Any]:
    numbered = list(enumerate(times, start=first))
    plain = [value for step, value in numbered if (step - 1) % REFRESH_EVERY]
    fresh = [value for step, value in numbered if not (step - 1) % REFRESH_EVERY]
    if "low-rank" not in name or not plain or not fresh:
        return {"median_ms": round(statistics.median(times), 3), "least_ms": round(min(times), 3)}
    usual = statistics.median(plain)
    more = max(0.0, statistics.median(fresh) - usual)
    return {
        "median_ms": round(usual + more / REFRESH_EVERY, 3),
        "least_ms": round(min(plain), 3),
        "mean_ms": round(statistics.mean(times), 3),
        "refresh_ms": round(more, 3),
    }


def _ratio(figures: dict[str, Any], to: dict[str, Any] | None) -> float | None:
    if to is None or "median_ms" not in to or "median_ms" not in figures:
        return None
    return round(figures["median_ms"] / to["median_ms"], 4)


def _device_ms(learner: Any) -> float:
    graphs = learner.captures.captured("step")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(10):
        for graph in graphs:
            graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 10
