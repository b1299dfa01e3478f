"""Configs of the zeroth-order family: one surface, and named methods that choose points on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from optaware.records.methods._base import Knob, MethodConfig

__all__ = ["FZOO", "LOZO", "Fast", "MeZO", "MeZOAdam", "SparseMeZO", "ZerothOrderConfig"]


class ZerothOrderConfig(MethodConfig):
    """direction x estimator x update: everything that a forward-only method can choose.

    A named method is a subclass with its `name` and its defaults; every field stays open, so any combination that makes
    sense can be asked for, and each is one factor of an ablation.

    Values that the MeZO paper recommends (OPT-13B): `parameters: all` lr 1e-6, eps 1e-3; `lora` lr 1e-4, eps 1e-2;
    `prefix` lr 1e-2, eps 1e-1. The defaults are those of `all`.
    """

    lr: Annotated[float, Knob("learning rate", ("step size", "η"), baseline=(1e-6,)), Field(gt=0)] = 1e-6
    lr_schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        Knob("learning rate schedule", ("decay schedule",), remove="constant", baseline=("constant",)),
    ] = "constant"
    warmup: Annotated[int, Knob("warm-up steps", ("warmup",), remove=0, baseline=(0,)), Field(ge=0)] = 0
    eps: Annotated[
        float,
        Knob(
            "perturbation scale",
            ("epsilon", "ε", "δ", "smoothing", "smoothing parameter", "perturbation magnitude"),
            baseline=(1e-3,),
        ),
        Field(gt=0),
    ] = 1e-3
    eps_schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        Knob("perturbation scale schedule", ("epsilon schedule",), remove="constant", baseline=("constant",)),
    ] = "constant"
    queries: Annotated[
        int,
        Knob(
            "number of SPSA samples",
            ("n", "n-SPSA", "directions per step", "queries per step", "SPSA sample size", "number of perturbations"),
            remove=1,
            baseline=(1,),
        ),
        Field(ge=1),
    ] = 1
    query_schedule: Annotated[
        Literal["constant", "linear"],
        Knob("query schedule", ("sample schedule", "n schedule"), remove="constant", baseline=("constant",)),
    ] = "constant"
    """`linear`: from 1 query at the first step to `queries` at the last."""
    direction: Annotated[
        Literal["gaussian", "rademacher", "low-rank"],
        Knob(
            "distribution of the perturbation z",
            ("noise", "noise distribution", "perturbation distribution", "perturbation direction"),
            baseline=("gaussian",),
            values=(
                ("gaussian", ("normal", "dense Gaussian")),
                ("rademacher", ("sign", "Bernoulli ±1", "random signs")),
                ("low-rank", ("LOZO", "low rank")),
            ),
        ),
    ] = "gaussian"
    rank: Annotated[int, Knob("rank of the perturbation", ("r",), baseline=(8,)), Field(ge=1)] = 8
    refresh_every: Annotated[
        int, Knob("steps between new right factors V", ("lazy sampling interval", "ν"), baseline=(10,)), Field(ge=1)
    ] = 10
    mask: Annotated[
        Literal["none", "magnitude", "random"],
        Knob(
            "sparsity of the perturbation",
            ("sparse mask", "sparse perturbation", "parameter selection"),
            remove="none",
            baseline=("none",),
            values=(("magnitude", ("small weights", "magnitude-based mask")), ("random", ("random mask",))),
        ),
    ] = "none"
    density: Annotated[
        float, Knob("share of weights that the mask leaves in", ("density", "1 - sparsity")), Field(gt=0, le=1)
    ] = 0.25
    layers: Annotated[
        int | None,
        Knob("layers perturbed per step", ("layer subset", "layer-wise sparsity", "random layers"), remove=None),
        Field(ge=1),
    ] = None
    """Blocks drawn at random at each step; None: all of them."""
    include: tuple[str, ...] = ()
    """Patterns (fnmatch) of the names of the parameters that are trained; none: all of `parameters`."""
    noise: Annotated[
        Literal["regenerate", "store"],
        Knob(
            "memory-efficient in-place perturbation by seed-based noise regeneration",
            ("seed regeneration", "random seed trick", "memory-efficient mechanism", "in-place perturbation"),
            remove="store",
            baseline=("regenerate",),
            values=(("store", ("stored noise vectors", "full noise vectors")),),
        ),
    ] = "regenerate"
    apply: Annotated[
        Literal["forward", "in-place"],
        Knob("where the perturbation is applied", ("perturbation inside the forward pass",), baseline=("forward",)),
    ] = "forward"
    batching: Annotated[
        Literal["auto", "on", "pairs", "off"],
        Knob(
            "probes evaluated together in one forward pass",
            ("batched probes", "parallel probes", "batched forward passes"),
            remove="off",
            baseline=("auto",),
        ),
    ] = "auto"
    """Points in one forward pass, where the direction can: `on` up to 32, `pairs` both signs of a direction, `off` one;
    `auto`: `on` on a GPU, `pairs` on a CPU. The losses are the same up to rounding. Processes that share a step take
    whole passes, so with several GPUs `pairs` lets all of them work."""
    fused: Annotated[
        Literal["auto", "on", "off"],
        Knob(
            "step fused on the GPU", ("fused kernels", "CUDA graphs", "GPU kernels"), remove="off", baseline=("auto",)
        ),
    ] = "auto"
    """`auto`: where there is a CUDA device and the model and method allow it, after a check against the other engine;
    `on`: refuse to run otherwise. The steps are the same up to rounding."""
    estimator: Annotated[
        Literal["two-point", "one-sided", "one-point", "one-point-residual"],
        Knob(
            "gradient estimator",
            ("gradient estimation method", "estimator", "SPSA", "finite difference", "zeroth-order estimator"),
            baseline=("two-point",),
            values=(
                ("two-point", ("SPSA", "two-point estimator", "central difference", "two-sided")),
                ("one-sided", ("forward difference", "one-sided difference")),
                ("one-point", ("one-point estimator", "single-point", "one point")),
                ("one-point-residual", ("one-point residual feedback", "residual feedback")),
            ),
        ),
    ] = "two-point"
    normalise: Annotated[
        bool,
        Knob("normalisation by the standard deviation of the losses", ("loss-std normalisation",), remove=False),
    ] = False
    update: Annotated[
        Literal["sgd", "momentum", "adam", "sign"],
        Knob(
            "update rule",
            ("optimizer", "optimiser", "base optimizer"),
            baseline=("sgd",),
            values=(("momentum", ("SGD with momentum",)), ("adam", ("Adam", "AdamW")), ("sign", ("signSGD",))),
        ),
    ] = "sgd"
    momentum: Annotated[float, Knob("momentum", ("β1", "beta1"), remove=0.0, baseline=(0.9,)), Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Knob("second-moment decay", ("β2",), baseline=(0.999,)), Field(ge=0, lt=1)] = 0.999
    adam_eps: Annotated[float, Knob("epsilon of Adam", baseline=(1e-8,)), Field(gt=0)] = 1e-8
    moments: Annotated[
        Literal["auto", "stored", "replayed"],
        Knob(
            "how the moments of momentum and Adam are kept",
            ("moment storage", "optimizer state", "gradient history recomputation"),
            remove="stored",
            baseline=("auto",),
            values=(
                ("stored", ("stored moments", "stored gradients")),
                ("replayed", ("recomputed moments", "moments from seeds and projected gradients")),
            ),
        ),
    ] = "auto"
    """`auto`: stored in the factors of a low-rank direction, replayed for a dense one."""
    window: Annotated[int, Knob("steps that moments are replayed from", ("history length",)), Field(ge=1)] = 50
    weight_decay: Annotated[
        float, Knob("weight decay", ("L2 regularisation",), remove=0.0, baseline=(0.0,)), Field(ge=0)
    ] = 0.0
    clip: Annotated[
        float | None, Knob("clipping of the projected gradient", ("gradient clipping",), remove=None), Field(gt=0)
    ] = None
    objective: Annotated[
        Literal["task", "options", "language-model", "accuracy", "f1"],
        Knob("training objective", ("loss", "objective function", "non-differentiable objective"), baseline=("task",)),
    ] = "task"
    """`task`: the task's own loss."""
    parameters: Annotated[
        Literal["all", "lora", "prefix", "prompt"],
        Knob(
            "parameters that are tuned",
            ("tuning strategy", "PEFT", "parameter-efficient fine-tuning", "full-parameter updates", "PEFT variant"),
            baseline=("all",),
            values=(
                ("all", ("full", "full-parameter", "full fine-tuning")),
                ("lora", ("LoRA", "low-rank adaptation")),
                ("prefix", ("prefix tuning", "prefix-tuning")),
                ("prompt", ("prompt tuning", "soft prompt")),
            ),
        ),
    ] = "all"
    lora_rank: Annotated[int, Knob("LoRA rank", baseline=(8,)), Field(ge=1)] = 8
    lora_alpha: Annotated[float, Knob("LoRA alpha", baseline=(16.0,)), Field(gt=0)] = 16.0
    virtual_tokens: Annotated[
        int, Knob("length of the prefix or soft prompt", ("prefix length", "number of virtual tokens")), Field(ge=1)
    ] = 5
    precision: Annotated[
        Literal["auto", "residual", "stochastic", "master", "none"],
        Knob(
            "how updates survive rounding in half precision",
            ("precision remedy", "mixed precision"),
            remove="none",
            values=(
                ("residual", ("Kahan", "error feedback")),
                ("stochastic", ("stochastic rounding",)),
                ("master", ("fp32 master weights",)),
            ),
        ),
    ] = "auto"

    host_residuals: Annotated[
        bool, Knob("residuals of low-rank merges in the host's memory", ("offloaded residuals",), remove=False)
    ] = False
    """Low-rank directions on a GPU: what merges keep beside the weights lies in the host's memory between them."""

    @property
    def forward_only(self) -> bool:
        """No gradients are needed."""
        return True

    @model_validator(mode="after")
    def _makes_sense(self) -> ZerothOrderConfig:
        faults = [f"{field}: {why}" for field, why in _senseless(self)]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _senseless(config: ZerothOrderConfig) -> list[tuple[str, str]]:
    """Fields that do not go with the others, each with the reason."""
    low_rank, one_point = config.direction == "low-rank", config.estimator.startswith("one-point")
    remembers = config.update in ("momentum", "adam")
    rules = [
        ("mask", low_rank and config.mask != "none", "a masked low-rank perturbation has full rank; use a dense one"),
        ("apply", low_rank and config.apply == "in-place", "a low-rank one acts inside the forward pass only"),
        ("noise", low_rank and config.noise == "store", "the factors of a low-rank one are held anyway"),
        (
            "batching",
            config.batching in ("on", "pairs") and config.apply == "in-place",
            "weights that are written hold one probe at a time; use apply: forward",
        ),
        (
            "normalise",
            config.normalise and one_point,
            "a one-point estimate has one loss a query; use one-sided or two-point",
        ),
        (
            "queries",
            config.normalise
            and config.estimator == "one-sided"
            and (config.queries < 2 or config.query_schedule != "constant"),
            "the spread of one-sided losses needs two queries at every step",
        ),
        (
            "host_residuals",
            config.host_residuals and not low_rank,
            "a dense direction needs its residuals at every step; only merges of a low-rank one are rare",
        ),
        (
            "mask",
            config.mask == "random" and remembers and config.moments != "stored",
            "moments made again would see the mask of this step only; use moments: stored",
        ),
        ("moments", not remembers and config.moments != "auto", f"update {config.update} remembers nothing"),
        (
            "layers",
            config.layers is not None and remembers,
            "moments of momentum and adam would mix steps that saw different layers",
        ),
        (
            "layers",
            config.layers is not None and config.parameters in ("prefix", "prompt"),
            f"{config.parameters} parameters lie in no layer",
        ),
    ]
    return [(field, why) for field, senseless, why in rules if senseless]


class MeZO(ZerothOrderConfig):
    """Zeroth-order SGD with a simultaneous-perturbation estimate (Malladi et al., NeurIPS 2023, Algorithm 1).

    `g = (L(θ + eps·z) − L(θ − eps·z)) / (2·eps)`, averaged over `queries` directions; `θ ← θ − lr·g·z`.

    Differs from the paper: the perturbation is applied inside the forward pass, so that no weight is written to
    evaluate a probe; `apply="in-place", precision="none"` is the paper's own loop.
    """

    name: Literal["mezo"] = "mezo"


class MeZOAdam(ZerothOrderConfig):
    """MeZO with Adam's moments of the estimates (Malladi et al., NeurIPS 2023, section 3.3 and appendix B)."""

    name: Literal["mezo-adam"] = "mezo-adam"
    update: Annotated[
        Literal["sgd", "momentum", "adam", "sign"], *ZerothOrderConfig.model_fields["update"].metadata
    ] = "adam"


class LOZO(ZerothOrderConfig):
    """Low-rank perturbations with a lazily redrawn factor (Chen et al., ICLR 2025, Algorithm 1)."""

    name: Literal["lozo"] = "lozo"
    direction: Annotated[
        Literal["gaussian", "rademacher", "low-rank"], *ZerothOrderConfig.model_fields["direction"].metadata
    ] = "low-rank"


class FZOO(ZerothOrderConfig):
    """One-sided Rademacher probes around one clean forward, divided by the spread of their losses (FZOO, 2025)."""

    name: Literal["fzoo"] = "fzoo"
    direction: Annotated[
        Literal["gaussian", "rademacher", "low-rank"], *ZerothOrderConfig.model_fields["direction"].metadata
    ] = "rademacher"
    estimator: Annotated[
        Literal["two-point", "one-sided", "one-point", "one-point-residual"],
        *ZerothOrderConfig.model_fields["estimator"].metadata,
    ] = "one-sided"
    normalise: Annotated[bool, *ZerothOrderConfig.model_fields["normalise"].metadata] = True
    queries: Annotated[int, *ZerothOrderConfig.model_fields["queries"].metadata] = 8


class SparseMeZO(ZerothOrderConfig):
    """MeZO on the small weights of each matrix (Liu et al., 2024)."""

    name: Literal["sparse-mezo"] = "sparse-mezo"
    mask: Annotated[Literal["none", "magnitude", "random"], *ZerothOrderConfig.model_fields["mask"].metadata] = (
        "magnitude"
    )


class Fast(ZerothOrderConfig):
    """Our default: low-rank two-point probes inside the forward pass, fp32 accumulators, values chosen on dev rows."""

    name: Literal["fast"] = "fast"
    direction: Annotated[
        Literal["gaussian", "rademacher", "low-rank"], *ZerothOrderConfig.model_fields["direction"].metadata
    ] = "low-rank"
    lr: Annotated[float, *ZerothOrderConfig.model_fields["lr"].metadata] = 2e-5
