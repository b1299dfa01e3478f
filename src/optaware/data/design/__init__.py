"""Building a rewriter's prompt template from a paper in five phases, and carrying one over to another task.

`Designer` does both; `list_templates`, `find_template` and `compare` are for looking at what there is.
"""

from optaware.data.design._browse import TemplateInfo, compare, find_template, list_templates, parse_template
from optaware.data.design._builder import Designer, calls_at_most, make_design_spec
from optaware.data.design._document import Document
from optaware.data.design._transfer import Foreign, foreign_words

__all__ = [
    "Designer",
    "Document",
    "Foreign",
    "TemplateInfo",
    "calls_at_most",
    "compare",
    "find_template",
    "foreign_words",
    "list_templates",
    "make_design_spec",
    "parse_template",
]
