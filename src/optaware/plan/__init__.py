"""Ablation plans: read them in whatever shape they come, write, check and score them."""

from optaware.plan._parse import parse_plan, read_plan
from optaware.plan._render import entry_json, render_plan
from optaware.plan._text import MAX_BYTES

__all__ = ["MAX_BYTES", "entry_json", "parse_plan", "read_plan", "render_plan"]
