from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from optaware.errors import InputError
from optaware.plan._words import bracketed, content_words, normal_text
from optaware.records import Knob, Method, MethodConfig, PlanValue, surface

__all__ = ["Component", "component_of", "method_config", "named_by", "same_value"]


@dataclass(frozen=True)
class Component:
    """A field of a method's config that a plan's part may mean.

    Attributes:
        field: Its name.
        sure: Whether a whole name of it stands in the part; otherwise only some words are shared.
        baseline: The values that the method itself has there.
    """

    field: str
    sure: bool
    baseline: tuple[Any, ...]


def method_config(name: str) -> type[MethodConfig]:
    """The config class of a method by its name.

    Raises:
        InputError: There is no such method.
    """
    configs: dict[str, type[MethodConfig]] = {
        config.model_fields["name"].default: config for config in get_args(get_args(Method)[0])
    }
    if name not in configs:
        raise InputError.of(
            "method-unknown", name, "there is no method of this name", f"Choose one of: {', '.join(sorted(configs))}."
        )
    return configs[name]


def component_of(part: str, config: type[MethodConfig]) -> Component | None:
    """The field of the method that a plan's words mean, by its name, its words and its aliases; None when none does.

    A name of several words counts when all of them stand in the part, a single word when it is most of the part or
    stands in brackets, a single letter only in brackets. Two names that fit equally well are not sure.
    """
    words, symbols = content_words(part), bracketed(part)
    scores = {field: _score(field, knob, part, words, symbols) for field, knob in surface(config).items()}
    best = max(scores.values(), default=0.0)
    fields = [field for field, score in scores.items() if score == best]
    if best < 1.0:
        return None
    field = fields[0]
    knob = surface(config)[field]
    baseline = knob.baseline or (config.model_fields[field].default,)
    return Component(field=field, sure=best >= 2.0 and len(fields) == 1, baseline=baseline)


def _score(field: str, knob: Knob, part: str, words: frozenset[str], symbols: frozenset[str]) -> float:
    """2 and more: a whole name; from 1: shared words; 0: nothing."""
    best = 0.0
    for phrase in (field.replace("_", " "), knob.words, *knob.aliases):
        normal = normal_text(phrase)
        if normal in symbols or normal == normal_text(part):
            best = max(best, 3.0)
        elif len(normal) > 1:
            wanted = content_words(phrase)
            shared = len(wanted & words)
            if shared == len(wanted) and (shared > 1 or len(words) <= 2):
                best = max(best, 2.0 + shared / 100)
            elif shared:
                best = max(best, 1.0 + shared / 100)
    return best


def same_value(value: PlanValue, other: Any) -> bool:
    """Whether a plan's value says a config value: numbers by their size, `10%` as 0.1, text without regard to case."""
    if isinstance(other, bool) or other is None:
        return value.value is other or normal_text(value.text) == normal_text(str(other))
    if isinstance(other, int | float):
        number = value.value / 100 if value.kind == "percent" else value.value
        return value.kind in ("integer", "number", "percent") and abs(number - other) <= 1e-9 * abs(other)
    return normal_text(value.text) == normal_text(str(other))


def named_by(value: PlanValue, config: type[MethodConfig]) -> bool:
    """Whether a value is a proper name that the method's own words use: SPSA for MeZO, LoRA for first-order LoRA."""
    proper = value.text.isalnum() and sum(char.isupper() for char in value.text) > 1
    return proper and any(value.text in knob.words.split() for knob in surface(config).values())
