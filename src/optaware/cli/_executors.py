"""Where runs run, as the command line says it: options shared by `run` and `plan run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from optaware.execute import Executor

__all__ = ["Address", "Backend", "Gpus", "MemoryLimit", "Places", "SlurmOptions"]

Backend = Literal["subprocess", "in-process", "ray", "slurm", "slurm-local"]
Address = Annotated[str | None, Parameter(help="Ray cluster; default: workers on this machine.")]
SlurmOptions = Annotated[
    tuple[str, ...], Parameter(help="submitit parameter, as `slurm_partition=gpu` (repeat the option).")
]
Gpus = Annotated[str | None, Parameter(help="GPUs to share out, as `0,1`; default: all (subprocess).")]
MemoryLimit = Annotated[float | None, Parameter(help="A run that holds more is ended (subprocess).")]


@dataclass(frozen=True)
class Places:
    """The options that say where runs run."""

    name: Backend = "subprocess"
    address: str | None = None
    slurm: tuple[str, ...] = ()
    gpus: str | None = None
    memory_limit_gb: float | None = None

    def executor(self, workers: int, folder: Path, should_stop: Callable[[], bool]) -> Executor:
        """The executor.

        Args:
            workers: Runs at once.
            folder: Where a Slurm executor keeps its own files (in `slurm` below it).
            should_stop: Whether to stop.
        """
        from optaware._io import read_yaml
        from optaware.execute import InProcess, Ray, Slurm, Subprocess

        if self.name == "in-process":
            return InProcess(_invoke, should_stop)
        if self.name == "ray":
            return Ray(workers, should_stop, address=self.address)
        if self.name.startswith("slurm"):
            pairs = (each.partition("=") for each in self.slurm)
            parameters = {key: read_yaml(value, name=f"--slurm {key}") for key, _, value in pairs}
            cluster: Literal["local", "slurm"] = "local" if self.name == "slurm-local" else "slurm"
            return Slurm(workers, should_stop, folder=folder / "slurm", cluster=cluster, parameters=parameters)
        limit = None if self.memory_limit_gb is None else int(self.memory_limit_gb * 1e9)
        gpus = self.gpus.split(",") if self.gpus else None
        return Subprocess(workers, should_stop, gpus=gpus, memory_limit_bytes=limit)


def _invoke(arguments: Sequence[str]) -> None:
    from optaware.cli._app import invoke

    invoke(arguments)
