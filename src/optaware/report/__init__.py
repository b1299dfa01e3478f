"""From records on disk to one self-contained HTML page, the same in Markdown, and CSV tables."""

from optaware.report._ablation_build import AblationFiles, build_ablation_report
from optaware.report._ablation_runs import AblationRun, CurvePoint
from optaware.report._build import ReportFiles, build_report
from optaware.report._compare import ComparisonFiles, StudyRuns, build_comparison
from optaware.report._inputs import ReportCorpus, ReportRun, load_report_corpus, load_report_run

__all__ = [
    "AblationFiles",
    "AblationRun",
    "ComparisonFiles",
    "CurvePoint",
    "ReportCorpus",
    "ReportFiles",
    "ReportRun",
    "StudyRuns",
    "build_ablation_report",
    "build_comparison",
    "build_report",
    "load_report_corpus",
    "load_report_run",
]
