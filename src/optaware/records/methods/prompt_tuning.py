"""Config of complementary prompt tuning: gradient steps on a soft prompt, and restarts that something else proposes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from optaware.records.methods._base import Knob, MethodConfig

__all__ = ["ComplementaryPromptTuning"]


class ComplementaryPromptTuning(MethodConfig):
    """Soft prompt tuning in turns with an LLM that reads the trajectory as text and proposes where to restart.

    The budget is that of `schedule.steps` gradient steps of `schedule.batch_size` examples, in forward passes times
    examples (forward and backward count 3). All arms spend the same: what comparing candidates costs is taken from the
    last gradient steps.
    """

    data_kinds: ClassVar[tuple[str, ...]] = ("few-shot",)

    name: Literal["complementary-prompt-tuning"] = "complementary-prompt-tuning"
    search: Annotated[
        Literal["hybrid", "multi-start", "proposals-only"],
        Knob(
            "combination of gradient steps and proposals",
            ("collaborative optimization", "synergy", "hybrid optimization"),
            remove="multi-start",
            baseline=("hybrid",),
            values=(
                ("hybrid", ("combined", "alternating")),
                ("multi-start", ("restarts of gradient descent", "gradient-based only", "multi-start")),
                ("proposals-only", ("LLM only", "LLM-based only", "without gradient")),
            ),
        ),
    ] = "hybrid"
    proposer: Annotated[
        Literal["llm", "replay", "evolutionary", "bayesian", "cma-es", "perturbation", "random-tokens", "none"],
        Knob(
            "optimization method",
            (
                "optimizer",
                "complementary optimizer",
                "LLM-based optimizer",
                "proposer",
                "alternative optimization method",
                "gradient-free optimizer",
            ),
            remove="none",
            baseline=("llm",),
            values=(
                ("llm", ("LLM", "LLM-based optimizer", "large language model")),
                (
                    "evolutionary",
                    ("evolutionary algorithms", "evolutionary algorithm", "genetic algorithm"),
                ),
                ("bayesian", ("Bayesian optimization", "Bayesian optimisation", "BO", "Gaussian process")),
                ("cma-es", ("CMA-ES", "BBT", "black-box tuning", "evolution strategy")),
                ("perturbation", ("random perturbation", "Gaussian perturbation")),
                ("random-tokens", ("random restart", "random restarts", "random search")),
                ("none", ("gradient only", "no proposals", "single start")),
            ),
        ),
    ] = "llm"
    llm: Annotated[
        str,
        Knob(
            "LLM model size",
            ("LLM", "size of the LLM", "proposer model", "LLM optimizer model", "language model used as optimizer"),
            values=(
                ("smollm2-135m-instruct", ("SmolLM2-135M", "135M", "small LLM")),
                ("qwen2.5-coder-1.5b-instruct", ("Qwen2.5-Coder-1.5B", "1.5B", "large LLM")),
            ),
        ),
    ] = "qwen2.5-coder-1.5b-instruct"
    """Name of the chat model that proposes; with `replay`, whose proposals of a recording of several are given."""
    llm_provider: Literal["local", "openai", "scripted"] = "local"
    llm_base_url: str | None = None
    llm_temperature: Annotated[float, Knob("temperature of the LLM"), Field(ge=0)] = 0.7
    replay: str | None = None
    """Proposer `replay`: recorded proposals, JSONL with task, seed, round, texts (a run writes `proposals.jsonl`)."""
    replay_sha256: str | None = None
    """Hash of that file, so that another recording is another run; checked when it is given."""
    rounds: Annotated[int, Knob("rounds of proposals", ("number of rounds", "N"), remove=0), Field(ge=0)] = 3
    round_steps: Annotated[int, Knob("gradient steps before each proposal", ("m",)), Field(ge=0)] = 10
    proposals: Annotated[int, Knob("proposals per round", ("k", "number of candidates")), Field(ge=1)] = 3
    search_asks: Annotated[int, Knob("how often a searcher is asked per round"), Field(ge=1)] = 4
    """Evolutionary, Bayesian and CMA-ES searches propose `proposals` points this many times a round and learn from the
    answers in between; the others are asked once."""
    candidates: Annotated[
        int, Knob("trajectory candidates shown", ("optimization trajectory", "candidates in the prompt")), Field(ge=1)
    ] = 5
    accept: Annotated[
        Literal["always", "if-better"],
        Knob("when a restart is taken", ("acceptance rule",), baseline=("always",)),
    ] = "always"
    """`always`: the best proposal is restarted from, as in the paper. `if-better`: only when its loss is below that of
    the prompt as it stands."""
    starts: Annotated[int, Knob("starts of multi-start", ("restarts",)), Field(ge=1)] = 4
    virtual_tokens: Annotated[
        int, Knob("length of the soft prompt", ("prompt length", "number of virtual tokens", "n")), Field(ge=1)
    ] = 8
    init: Annotated[
        Literal["random-tokens", "manual"], Knob("initial prompt", ("initialisation",), baseline=("random-tokens",))
    ] = "random-tokens"
    manual_prompt: str = "Decide which answer fits the text best."
    """Shown to the proposer, and the start of `init: manual`."""
    lr: Annotated[float, Knob("learning rate", ("step size",), baseline=(0.02,)), Field(gt=0)] = 0.02
    sigma: Annotated[float, Knob("size of a perturbation, in standard deviations of the embeddings"), Field(gt=0)] = 0.5
    subspace: Annotated[
        int, Knob("dimension of the searched subspace", ("intrinsic dimension", "d")), Field(ge=1, le=50)
    ] = 10

    @property
    def forwards_per_step(self) -> float:
        """Forward passes of a batch per step of the schedule: all arms spend the budget of gradient steps."""
        return 3.0

    @model_validator(mode="after")
    def _consistent(self) -> ComplementaryPromptTuning:
        faults = []
        if self.proposer == "replay" and self.replay is None:
            faults.append("replay: proposer replay needs a recording")
        if self.search == "proposals-only" and self.proposer == "none":
            faults.append("proposer: with search proposals-only something has to propose")
        if faults:
            raise ValueError("; ".join(faults))
        return self
