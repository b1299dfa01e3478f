"""Ablation plans: read them in whatever shape they come, write, check and score them."""

from optaware.plan._bind import bind_plan, plan_sha256
from optaware.plan._binding_check import contradictions, read_binding, surface_of_binding
from optaware.plan._binding_file import binding_yaml, read_binding_file, read_manifest, write_binding
from optaware.plan._check import check_plan
from optaware.plan._folders import FolderScore, MeanScore, PaperScore, score_folders
from optaware.plan._judge import (
    ChatMatcher,
    JudgedPair,
    JudgeQuality,
    JudgeVote,
    LabelledPair,
    judge_quality,
    read_labels,
)
from optaware.plan._match import LexicalMatcher, Matcher, MatchVerdict
from optaware.plan._metrics import METRICS, NamedMetric, name_metric
from optaware.plan._parse import parse_plan, read_plan
from optaware.plan._propose import Evidence, Proposal, ProposeLimits, proposal_requests, propose_plan
from optaware.plan._render import entry_json, render_plan
from optaware.plan._report import CheckedEntry, CheckedValue, CheckReport, Finding
from optaware.plan._score import MatchedPair, PlanScore, ndcg, score_plan
from optaware.plan._surface import (
    Component,
    Part,
    Surface,
    component_of,
    method_names,
    surface_of_manifest,
    surface_of_method,
)
from optaware.plan._text import MAX_BYTES

__all__ = [
    "MAX_BYTES",
    "METRICS",
    "ChatMatcher",
    "CheckReport",
    "CheckedEntry",
    "CheckedValue",
    "Component",
    "Evidence",
    "Finding",
    "FolderScore",
    "JudgeQuality",
    "JudgeVote",
    "JudgedPair",
    "LabelledPair",
    "LexicalMatcher",
    "MatchVerdict",
    "MatchedPair",
    "Matcher",
    "MeanScore",
    "NamedMetric",
    "PaperScore",
    "Part",
    "PlanScore",
    "Proposal",
    "ProposeLimits",
    "Surface",
    "bind_plan",
    "binding_yaml",
    "check_plan",
    "component_of",
    "contradictions",
    "entry_json",
    "judge_quality",
    "method_names",
    "name_metric",
    "ndcg",
    "parse_plan",
    "plan_sha256",
    "proposal_requests",
    "propose_plan",
    "read_binding",
    "read_binding_file",
    "read_labels",
    "read_manifest",
    "read_plan",
    "render_plan",
    "score_folders",
    "score_plan",
    "surface_of_binding",
    "surface_of_manifest",
    "surface_of_method",
    "write_binding",
]
