"""Stage "data": rewrite the training rows, check and judge the rewrites, let through what passes (OAT-Rephrase).

Importing this loads neither torch nor a template engine.
"""

from optaware.data._build import OnProgress, build_corpus
from optaware.data._checks import BLOCKING, run_checks
from optaware.data._corpus import load_corpus, load_user_corpus, make_corpus_spec, rows_sha256
from optaware.data._corpus_rows import CorpusRows, corpus_rows, read_corpus_spec
from optaware.data._export import corpus_columns, export_corpus, to_dataset
from optaware.data._judge_file import read_judge
from optaware.data._measure import Measure
from optaware.data._near import HeldOut
from optaware.data._parse import parse_rewrite, parse_verdict
from optaware.data._preview import preview
from optaware.data._prompts import PromptIds, judge_prompts, prompt_ids, rewriter_prompt

__all__ = [
    "BLOCKING",
    "CorpusRows",
    "HeldOut",
    "Measure",
    "OnProgress",
    "PromptIds",
    "build_corpus",
    "corpus_columns",
    "corpus_rows",
    "export_corpus",
    "judge_prompts",
    "load_corpus",
    "load_user_corpus",
    "make_corpus_spec",
    "parse_rewrite",
    "parse_verdict",
    "preview",
    "prompt_ids",
    "read_corpus_spec",
    "read_judge",
    "rewriter_prompt",
    "rows_sha256",
    "run_checks",
    "to_dataset",
]
