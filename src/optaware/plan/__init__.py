"""Ablation plans: read them in whatever shape they come, write, check and score them."""

from optaware.plan._binding_file import binding_yaml, read_binding_file, read_manifest, write_binding
from optaware.plan._check import check_plan
from optaware.plan._folders import FolderScore, MeanScore, PaperScore, score_folders
from optaware.plan._match import LexicalMatcher, Matcher, MatchVerdict
from optaware.plan._metrics import METRICS, NamedMetric, name_metric
from optaware.plan._parse import parse_plan, read_plan
from optaware.plan._render import entry_json, render_plan
from optaware.plan._report import CheckedEntry, CheckedValue, CheckReport, Finding
from optaware.plan._score import MatchedPair, PlanScore, ndcg, score_plan
from optaware.plan._surface import Component, component_of
from optaware.plan._text import MAX_BYTES

__all__ = [
    "MAX_BYTES",
    "METRICS",
    "CheckReport",
    "CheckedEntry",
    "CheckedValue",
    "Component",
    "Finding",
    "FolderScore",
    "LexicalMatcher",
    "MatchVerdict",
    "MatchedPair",
    "Matcher",
    "MeanScore",
    "NamedMetric",
    "PaperScore",
    "PlanScore",
    "binding_yaml",
    "check_plan",
    "component_of",
    "entry_json",
    "name_metric",
    "ndcg",
    "parse_plan",
    "read_binding_file",
    "read_manifest",
    "read_plan",
    "render_plan",
    "score_folders",
    "score_plan",
    "write_binding",
]
