"""Judges: several ballots on a pair, measuring a judge on labelled pairs, refining it on others."""

from optaware.data.judge._attack import ORDERS, attack
from optaware.data.judge._bench import Bench
from optaware.data.judge._calibrate import calibrate, labelled_pairs, packaged_labels, write_calibration
from optaware.data.judge._injection import Injection, packaged_injections
from optaware.data.judge._measure import LabelledPair, measure, overall, pairs_needed, settled
from optaware.data.judge._panel import JudgePanel, counted, gather, presented
from optaware.data.judge._refine import Refined, Refining, parse_rule, refine
from optaware.data.judge._render import render_calibration, verdict_words
from optaware.data.judge._split import split_pairs

__all__ = [
    "ORDERS",
    "Bench",
    "Injection",
    "JudgePanel",
    "LabelledPair",
    "Refined",
    "Refining",
    "attack",
    "calibrate",
    "counted",
    "gather",
    "labelled_pairs",
    "measure",
    "overall",
    "packaged_injections",
    "packaged_labels",
    "pairs_needed",
    "parse_rule",
    "presented",
    "refine",
    "render_calibration",
    "settled",
    "split_pairs",
    "verdict_words",
    "write_calibration",
]
