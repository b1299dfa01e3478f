"""Config of Seeded LoRA: experts that start from one seed adapter and are merged into one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from optaware.records.methods._base import Knob, MethodConfig

__all__ = ["SeededLoRA"]


class SeededLoRA(MethodConfig):
    """Seeded LoRA: a seed adapter from a small share of the pooled data starts one expert per task; the experts' ΔW are
    averaged, with no training after.

    `schedule.steps` are the steps of one expert, `seed_steps` those of the seed adapter. Learning rate, rank and the
    like hold for both.
    """

    data_kinds: ClassVar[tuple[str, ...]] = ("mixture",)

    name: Literal["seeded-lora"] = "seeded-lora"
    start: Annotated[
        Literal["seeded", "same-init", "random-init"],
        Knob(
            "seed adapter that initialises the experts",
            ("seed initialization", "seed expert", "shared initialization", "initialization of the experts"),
            remove="random-init",
            baseline=("seeded",),
            values=(
                ("seeded", ("seed adapter", "seed initialization")),
                ("same-init", ("same random initialization", "shared random initialization")),
                ("random-init", ("random initialization", "independent initialization", "no seed")),
            ),
        ),
    ] = "seeded"
    seed_fraction: Annotated[
        float,
        Knob(
            "fraction of training data used for the seed adapter",
            ("seed data fraction", "seed fraction", "fraction of data", "data fraction", "size of the seed subset"),
            baseline=(0.1,),
        ),
        Field(gt=0, le=1),
    ] = 0.1
    seed_steps: Annotated[int, Knob("training steps of the seed adapter", ("seed steps",)), Field(ge=1)] = 100
    experts: Annotated[
        Literal["per-task", "seed-only", "multitask"],
        Knob(
            "one expert per task",
            ("task experts", "experts"),
            remove="seed-only",
            baseline=("per-task",),
            values=(
                ("per-task", ("one expert per task", "task experts")),
                ("seed-only", ("seed adapter alone", "no experts")),
                ("multitask", ("single multitask adapter", "joint training", "one adapter for all tasks")),
            ),
        ),
    ] = "per-task"
    budget: Annotated[
        Literal["per-expert", "total"],
        Knob("what is equal between seeded and unseeded experts", ("step budget",), baseline=("per-expert",)),
    ] = "per-expert"
    """`per-expert`: an unseeded expert takes `seed_steps` more steps, so each one's weights saw as many updates as a
    seeded one's. `total`: the seed's steps are shared out among the unseeded experts, so all arms make as many."""
    merge: Annotated[
        Literal["uniform", "scaled", "learned", "validation", "greedy-soup", "ties", "dare"],
        Knob(
            "method for merging the adapters' outputs",
            (
                "aggregation strategy",
                "merging strategy",
                "expert merging strategy",
                "merging method",
                "method for merging adapter outputs",
                "adapter merging",
            ),
            remove="uniform",
            baseline=("uniform",),
            values=(
                ("uniform", ("simple averaging", "uniform averaging", "simple average", "averaging")),
                ("scaled", ("scaled averaging", "task arithmetic")),
                ("learned", ("learned weighted averaging", "dynamically learned weights", "learned weights")),
                (
                    "validation",
                    (
                        "validation-based weighted averaging",
                        "validation-based weights",
                        "validation-weighted averaging",
                    ),
                ),
                ("greedy-soup", ("greedy soup", "model soup")),
                ("ties", ("TIES", "TIES-merging")),
                ("dare", ("DARE", "drop and rescale")),
            ),
        ),
    ] = "uniform"
    ineffective: Annotated[
        int, Knob("experts trained on shuffled labels", ("ineffective experts", "noisy experts"), remove=0), Field(ge=0)
    ] = 0
    """How many such experts are added to the merge for the robustness metric; the other metrics are without them."""
    scales: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    """Factors of the uniform average that `scaled` chooses from on the validation mix."""
    temperature: Annotated[float, Knob("temperature of validation weights", ("τ",)), Field(gt=0)] = 0.05
    weight_steps: Annotated[int, Knob("steps of learning merging weights"), Field(ge=1)] = 30
    weight_lr: Annotated[float, Knob("learning rate of merging weights"), Field(gt=0)] = 0.1
    density: Annotated[
        float | None,
        Knob("share of entries that TIES or DARE keep", ("density", "1 - drop rate", "trim threshold")),
        Field(gt=0, le=1),
    ] = None
    """None: 0.2 for TIES and 0.5 for DARE."""
    lr: Annotated[float, Knob("learning rate", ("step size",), baseline=(5e-4,)), Field(gt=0)] = 5e-4
    rank: Annotated[int, Knob("LoRA rank", ("r",), baseline=(8,)), Field(ge=1)] = 8
    alpha: Annotated[float, Knob("LoRA alpha", ("scaling",), baseline=(16.0,)), Field(gt=0)] = 16.0
    weight_decay: Annotated[float, Knob("weight decay", remove=0.0, baseline=(0.0,)), Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float | None, Knob("gradient clipping", remove=None), Field(gt=0)] = 1.0

    def forwards_of_run(self, steps: int, tasks: int) -> int:
        """Forward passes of a batch that a run's adapters take, a backward pass counting two, were none shared.

        Args:
            steps: E, `schedule.steps`.
            tasks: N, tasks of the mixture.
        """
        alone = self.experts != "per-task"
        if alone:
            own = self.seed_steps + (tasks * steps if self.experts == "multitask" else 0)
        elif self.start == "seeded":
            own = self.seed_steps + (tasks + self.ineffective) * steps
        else:
            extra = self.seed_steps if self.budget == "per-expert" else round(self.seed_steps / tasks)
            own = (tasks + self.ineffective) * (steps + extra)
        return 3 * own
