"""People look at pairs: a local page and a terminal to label them, the labels file, agreement of labellers.

`Review` holds what is shown and done; `serving` and `review_in_terminal` drive it. A program that wants rows inspected
writes them with `write_pairs`, has a person run `optaware data review`, and reads `standing(read_labels(path))`.
"""

from optaware.data.review._agreement import Agreement, agreed_labels, agreement
from optaware.data.review._diff import Segment, differences, visible
from optaware.data.review._labels import LabelsFile, read_labels, standing
from optaware.data.review._outputs import approved_rows, without_originals
from optaware.data.review._pairs import RowFinder, corpus_pairs, make_pair, pair_id, read_pairs, write_pairs
from optaware.data.review._server import ReviewServer, serving
from optaware.data.review._session import Review
from optaware.data.review._terminal import review_in_terminal

__all__ = [
    "Agreement",
    "LabelsFile",
    "Review",
    "ReviewServer",
    "RowFinder",
    "Segment",
    "agreed_labels",
    "agreement",
    "approved_rows",
    "corpus_pairs",
    "differences",
    "make_pair",
    "pair_id",
    "read_labels",
    "read_pairs",
    "review_in_terminal",
    "serving",
    "standing",
    "visible",
    "without_originals",
    "write_pairs",
]
