"""Stage 1: a paper (PDF, Markdown, LaTeX tree, plain text) becomes a `PaperCard` whose every item quotes its place."""

from optaware.paper._card import read_paper

__all__ = ["read_paper"]
