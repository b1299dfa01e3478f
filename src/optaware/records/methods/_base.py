from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from optaware.records._base import Record

__all__ = ["Knob", "MethodConfig", "surface"]


@dataclass(frozen=True)
class Knob:
    """Ablation metadata of one config field.

    Attributes:
        words: What the field is, as a paper would say it.
        aliases: Other names for it.
        remove: The value that stands for "removed"; None where removal has no meaning.
        baseline: The values that count as the method's own choice.
        values: What a value goes by in papers: config value -> other names ("low-rank" -> "LOZO").
    """

    words: str
    aliases: tuple[str, ...] = ()
    remove: Any = None
    baseline: tuple[Any, ...] = ()
    values: tuple[tuple[Any, tuple[str, ...]], ...] = ()


class MethodConfig(Record):
    """Base of all method configs. Numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    data_kinds: ClassVar[tuple[str, ...]] = ("task",)
    """Kinds of data (`RunSpec.data.kind`) that the method learns from."""

    @property
    def forward_only(self) -> bool:
        """Whether the method runs without backpropagation."""
        return False


def surface(config: type[MethodConfig]) -> dict[str, Knob]:
    """The ablatable fields of a method config, by field name."""
    return {
        name: knob for name, field in config.model_fields.items() for knob in field.metadata if isinstance(knob, Knob)
    }
