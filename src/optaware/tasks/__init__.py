"""Tasks: fields, the span that may be rewritten, prompts, answer options, and the rows of a protocol. No torch."""

from optaware.tasks._fields import FieldSpec
from optaware.tasks._file_task import FileTask
from optaware.tasks._registry import get_task, list_tasks
from optaware.tasks._splits import Rows, Splits, load_rows, load_splits
from optaware.tasks._task import Task

__all__ = ["FieldSpec", "FileTask", "Rows", "Splits", "Task", "get_task", "list_tasks", "load_rows", "load_splits"]
