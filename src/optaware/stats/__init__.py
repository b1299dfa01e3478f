"""Intervals, paired tests, multiple-testing corrections and agreement: pure functions on arrays."""

from optaware.stats._agreement import cohen_kappa
from optaware.stats._bootstrap import crossed_bootstrap, paired_bootstrap
from optaware.stats._crossed_power import (
    Spread,
    crossed_examples_needed,
    crossed_power,
    crossed_seeds_needed,
    crossed_spread,
)
from optaware.stats._f1 import macro_f1
from optaware.stats._intervals import clopper_pearson, mean_interval, wilson
from optaware.stats._multiple import benjamini_hochberg, holm
from optaware.stats._paired import PairedTest, crossed_test, mcnemar, sign_flip_test
from optaware.stats._power import rows_needed, seeds_needed

__all__ = [
    "PairedTest",
    "Spread",
    "benjamini_hochberg",
    "clopper_pearson",
    "cohen_kappa",
    "crossed_bootstrap",
    "crossed_examples_needed",
    "crossed_power",
    "crossed_seeds_needed",
    "crossed_spread",
    "crossed_test",
    "holm",
    "macro_f1",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "rows_needed",
    "seeds_needed",
    "sign_flip_test",
    "wilson",
]
