"""From records on disk to one self-contained HTML page, the same in Markdown, and CSV tables."""

from optaware.report._build import ReportFiles, build_report
from optaware.report._inputs import ReportCorpus, ReportRun, load_report_corpus, load_report_run

__all__ = [
    "ReportCorpus",
    "ReportFiles",
    "ReportRun",
    "build_report",
    "load_report_corpus",
    "load_report_run",
]
