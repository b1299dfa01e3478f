"""Evidence on a corpus from its texts alone: what leaks, what drifted, whom the gate preferred, what came too near."""

from optaware.data.evidence._collect import collect_evidence
from optaware.data.evidence._leakage import measure_leakage
from optaware.data.evidence._page import evidence_page

__all__ = ["collect_evidence", "evidence_page", "measure_leakage"]
