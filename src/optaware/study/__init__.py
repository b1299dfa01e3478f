"""The orchestrator: a study file becomes a graph of corpora and runs, which is run or resumed, then reported."""

from optaware.study._driver import StudyOutcome, report_study, run_study
from optaware.study._file import load_study, override
from optaware.study._graph import StudyGraph, plan_study
from optaware.study._load_run import model_of_run
from optaware.study._replay_run import ReplayReport, replay_run
from optaware.study._rewrite_one import rewrite_one
from optaware.study._stop import stop_requests
from optaware.study._train_one import train_one
from optaware.study._train_together import train_together

__all__ = [
    "ReplayReport",
    "StudyGraph",
    "StudyOutcome",
    "load_study",
    "model_of_run",
    "override",
    "plan_study",
    "replay_run",
    "report_study",
    "rewrite_one",
    "run_study",
    "stop_requests",
    "train_one",
    "train_together",
]
