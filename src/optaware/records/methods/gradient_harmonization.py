"""Config of meta-learning whose task gradients are weighted group by group."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from optaware.records.methods._base import Knob, MethodConfig

__all__ = ["GradientHarmonization"]


class GradientHarmonization(MethodConfig):
    """Meta-learning with harmonised task gradients (Cross-Task Gradient Harmonization for Meta-Learning).

    Per group l of parameters: `w_i = softmax_i(score(g_i, q) / τ)` with q the mean of the task gradients g_i;
    `u = Σ w_i g_i`; the update follows `λ_t q + (1 − λ_t) u`. `schedule.steps` counts meta-updates,
    `schedule.batch_size` tasks per update, `schedule.accumulation` parts in which the tasks are computed.
    """

    data_kinds: ClassVar[tuple[str, ...]] = ("episodes",)

    name: Literal["gradient-harmonization"] = "gradient-harmonization"
    inner: Annotated[
        Literal["maml", "fomaml", "anil", "reptile"],
        Knob(
            "inner loop",
            ("meta-learner", "base meta-learning algorithm", "inner-loop algorithm"),
            baseline=("maml",),
            values=(("fomaml", ("first-order MAML",)), ("anil", ("almost no inner loop",))),
        ),
    ] = "maml"
    inner_lr: Annotated[
        float, Knob("inner-loop learning rate", ("inner step size", "α"), baseline=(0.4,)), Field(gt=0)
    ] = 0.4
    inner_steps: Annotated[int, Knob("inner-loop steps", ("adaptation steps",), baseline=(1,)), Field(ge=1)] = 1
    test_inner_steps: Annotated[int, Field(ge=1)] = 3
    """Adaptation steps in validation and test (the published setting adapts for three)."""
    lr: Annotated[float, Knob("meta learning rate", ("outer learning rate", "β"), baseline=(1e-3,)), Field(gt=0)] = 1e-3
    lr_schedule: Annotated[
        Literal["constant", "cosine"],
        Knob("decay of the meta learning rate", remove="constant", baseline=("constant",)),
    ] = "constant"
    aggregator: Annotated[
        Literal["harmonized", "mean", "agreement", "pcgrad", "gradvac", "mgda", "upgrad", "cagrad", "imtl-g"],
        Knob(
            "aggregation of the task gradients",
            ("gradient aggregation", "gradient combination rule", "LWDGH"),
            remove="mean",
            baseline=("harmonized",),
            values=(
                ("harmonized", ("harmonised", "layer-wise dynamic gradient harmonization")),
                ("mean", ("average", "uniform average")),
                ("agreement", ("gradient agreement",)),
                ("pcgrad", ("gradient surgery", "PCGrad")),
                ("gradvac", ("gradient vaccine", "GradVac")),
                ("mgda", ("multiple gradient descent", "MGDA")),
                ("upgrad", ("UPGrad",)),
                ("cagrad", ("conflict-averse gradient descent", "CAGrad")),
                ("imtl-g", ("IMTL", "IMTL-G")),
            ),
        ),
    ] = "harmonized"
    attention: Annotated[
        Literal["softmax", "uniform"],
        Knob(
            "attention operator",
            ("attention", "attention weights", "softmax weights", "attention mechanism"),
            remove="uniform",
            baseline=("softmax",),
            values=(("uniform", ("uniform weights", "equal weights", "1/n")),),
        ),
    ] = "softmax"
    groups: Annotated[
        Literal["global", "layer", "tensor"],
        Knob(
            "granularity of the weights",
            ("layer-wise weights", "grouping of parameters", "weight granularity"),
            remove="global",
            baseline=("layer",),
            values=(
                ("layer", ("layer-wise", "module-wise")),
                ("tensor", ("parameter-wise",)),
                ("global", ("model-wise",)),
            ),
        ),
    ] = "layer"
    score: Annotated[
        Literal["dot", "cosine", "scaled"],
        Knob(
            "attention score",
            ("similarity score", "similarity of task gradient and mean gradient"),
            baseline=("dot",),
            values=(
                ("dot", ("dot product", "inner product")),
                ("cosine", ("cosine similarity",)),
                ("scaled", ("scaled dot product",)),
            ),
        ),
    ] = "dot"
    """`scaled`: dot product over ‖q‖², so that the scores of a group average 1 whatever the size of its gradients."""
    temperature: Annotated[float, Knob("softmax temperature", ("temperature", "τ"), baseline=(1.0,)), Field(gt=0)] = 1.0
    rescale: Annotated[
        bool, Knob("rescaling to the norm of the mean gradient", ("norm rescaling",), remove=False, baseline=(False,))
    ] = False
    explore: Annotated[
        Literal["cosine", "linear", "exponential", "constant", "cyclic", "none"],
        Knob(
            "explore-exploit schedule",
            ("cosine annealing schedule", "explore-exploit mechanism", "explore–exploit schedule", "λ"),
            remove="none",
            baseline=("cosine",),
            values=(
                ("cosine", ("cosine annealing", "cosine schedule")),
                ("linear", ("linear schedule", "linear decay", "linear annealing")),
                ("exponential", ("exponential schedule", "exponential decay")),
                ("constant", ("constant schedule", "fixed")),
                ("cyclic", ("cyclic schedule", "cosine with restarts")),
            ),
        ),
    ] = "cosine"
    """λ_t, the share of the plain mean; all but `none` (λ = 0) have the same mean over the run, one half."""
    cycles: Annotated[int, Knob("cycles of the cyclic schedule"), Field(ge=1)] = 4
    mode: Annotated[
        Literal["mix", "sample", "switch"],
        Knob("how exploring and exploiting are combined", ("explore-exploit mode",), baseline=("mix",)),
    ] = "mix"
    """`mix` the two gradients; `sample` one of them with probability λ_t; `switch` when λ_t falls below one half."""

    @property
    def forwards_per_step(self) -> float:
        """Forward passes of a batch of tasks an update, a backward counting two: K inner updates, the query set."""
        return 3.0 * (self.inner_steps + 1)
