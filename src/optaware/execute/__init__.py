"""Where jobs run: every backend runs the same command line over the same spec file."""

from optaware.execute._in_process import InProcess
from optaware.execute._job import PARENT_VARIABLE, Event, Executor, Job, Outcome
from optaware.execute._ray import Ray
from optaware.execute._slurm import Slurm
from optaware.execute._subprocess import Subprocess

__all__ = ["PARENT_VARIABLE", "Event", "Executor", "InProcess", "Job", "Outcome", "Ray", "Slurm", "Subprocess"]
