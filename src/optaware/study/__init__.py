"""The orchestrator: a study file becomes a graph of corpora and runs, which is run or resumed, then reported."""

from optaware.study._choose import Choice, Chosen, Option, choose, chosen_runs, failed_tries
from optaware.study._cost import CostRow, StudyCost, check_budget, cost_of_study
from optaware.study._driver import StudyOutcome, run_study
from optaware.study._evidence import gather_evidence
from optaware.study._export import export_study
from optaware.study._file import load_study, override
from optaware.study._graph import StudyGraph, plan_study
from optaware.study._hub_models import check_hub_models, models_to_fetch
from optaware.study._load_run import model_of_run
from optaware.study._memory import check_models, memory_bytes
from optaware.study._plan_driver import PlanGraph, PlanOutcome, make_plan_graph, report_plan, run_plan
from optaware.study._plan_export import export_plan
from optaware.study._plan_file import PlanRequest, load_plan_request
from optaware.study._replay_run import ReplayReport, replay_file, replay_run
from optaware.study._report_study import compare_studies, report_study
from optaware.study._rewrite_one import rewrite_one
from optaware.study._script_one import ScriptFolder, script_one
from optaware.study._stop import stop_requests
from optaware.study._train_one import train_one
from optaware.study._train_together import train_together

__all__ = [
    "Choice",
    "Chosen",
    "CostRow",
    "Option",
    "PlanGraph",
    "PlanOutcome",
    "PlanRequest",
    "ReplayReport",
    "ScriptFolder",
    "StudyCost",
    "StudyGraph",
    "StudyOutcome",
    "check_budget",
    "check_hub_models",
    "check_models",
    "choose",
    "chosen_runs",
    "compare_studies",
    "cost_of_study",
    "export_plan",
    "export_study",
    "failed_tries",
    "gather_evidence",
    "load_plan_request",
    "load_study",
    "make_plan_graph",
    "memory_bytes",
    "model_of_run",
    "models_to_fetch",
    "override",
    "plan_study",
    "replay_file",
    "replay_run",
    "report_plan",
    "report_study",
    "rewrite_one",
    "run_plan",
    "run_study",
    "script_one",
    "stop_requests",
    "train_one",
    "train_together",
]
