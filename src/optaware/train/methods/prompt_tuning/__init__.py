"""Complementary prompt tuning: gradient steps and proposals in turns. See the README beside this file."""

from __future__ import annotations

from optaware.train.methods.prompt_tuning._run import run

__all__ = ["run"]
