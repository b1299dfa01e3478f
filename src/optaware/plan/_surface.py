from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from optaware.errors import InputError
from optaware.plan._words import bracketed, content_words, normal_text
from optaware.records import Knob, Manifest, Method, MethodConfig, PlanValue, surface

__all__ = [
    "Component",
    "Part",
    "Surface",
    "component_of",
    "method_config",
    "method_names",
    "named_by",
    "named_component",
    "own_values",
    "same_value",
    "surface_of_manifest",
    "surface_of_method",
]

PartKind = Literal["bool", "integer", "number", "choice", "text", "other"]


@dataclass(frozen=True)
class Part:
    """One component that can be changed, whether it is a field of a config or a flag of a stranger's script.

    Attributes:
        name: Field or component name.
        words: What it is, as a paper would say it.
        aliases: Other names.
        kind: What its values are; `choice`: one of `choices`; `other`: a structure that words cannot say.
        baseline: Its value in the baseline.
        removable: Whether removing it means anything.
        remove: The value that stands for "removed".
        choices: Each value with the names that it goes by, its own first.
        share: Whether it is a share of something, from 0 to 1, so that a percentage says its value.
    """

    name: str
    words: str
    aliases: tuple[str, ...]
    kind: PartKind
    baseline: Any
    removable: bool = False
    remove: Any = None
    choices: tuple[tuple[Any, tuple[str, ...]], ...] = ()
    share: bool = False

    @property
    def phrases(self) -> tuple[str, ...]:
        """All that it is called."""
        return (self.name.replace("_", " ").replace("-", " "), self.words, *self.aliases)


class Surface:
    """All that can be changed about one method or script, with its baseline.

    Args:
        name: Of the method or manifest.
        parts: Its components.
        config: The method's config class; None for a manifest.
        manifest: The manifest; None for a method.
        overrides: Where the baseline differs from the defaults.
    """

    def __init__(
        self,
        name: str,
        parts: tuple[Part, ...],
        *,
        config: type[MethodConfig] | None = None,
        manifest: Manifest | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.parts = {part.name: part for part in parts}
        self._config = config
        self._manifest = manifest
        self._overrides = dict(overrides or {})

    def settle(self, changes: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """The values that these changes of the baseline really have (an integer for 4.0), or why they cannot be."""
        if self._config is not None:
            try:
                made = self._config.model_validate({**self._overrides, **changes})
            except ValidationError as error:
                told = (
                    f"{'.'.join(map(str, item['loc']))}: {item['msg']}" if item["loc"] else item["msg"]
                    for item in error.errors(include_url=False)
                )
                return {}, "; ".join(told).replace("Value error, ", "")
            written = made.model_dump(mode="json")
            return {name: written[name] for name in changes}, None
        assert self._manifest is not None
        faults = []
        for name, value in changes.items():
            part = self._manifest.components.get(name)
            why = f"the manifest has no component {name}" if part is None else part.fault_of(value)
            if why:
                faults.append(f"{name}: {why}" if part else why)
        return dict(changes), "; ".join(faults) or None

    def config_with(self, changes: Mapping[str, Any]) -> MethodConfig | None:
        """The method's config with these changes of the baseline; None for a manifest, or when they cannot be."""
        try:
            return self._config.model_validate({**self._overrides, **changes}) if self._config else None
        except ValidationError:
            return None

    def unknown(self, names: Mapping[str, Any]) -> list[str]:
        """Those of the names that are no field at all (a field may exist without being a component)."""
        known = set(self._config.model_fields) - {"name"} if self._config else set(self.parts)
        return [name for name in names if name not in known]

    def baseline_of(self, name: str) -> Any:
        """The baseline's value of a field, component or not."""
        if name in self.parts or self._config is None:
            return self.parts[name].baseline
        return self._config.model_validate(self._overrides).model_dump(mode="json")[name]


def method_names() -> dict[str, type[MethodConfig]]:
    """The config class of every method by the method's name."""
    return {config.model_fields["name"].default: config for config in get_args(get_args(Method)[0])}


def method_config(name: str) -> type[MethodConfig]:
    """The config class of a method by its name.

    Raises:
        InputError: There is no such method.
    """
    configs = method_names()
    if name not in configs:
        raise InputError.of(
            "method-unknown", name, "there is no method of this name", f"Choose one of: {', '.join(sorted(configs))}."
        )
    return configs[name]


def surface_of_method(name: str, overrides: Mapping[str, Any] | None = None) -> Surface:
    """What can be ablated about a method: the annotated fields of its config.

    Args:
        name: The method.
        overrides: Fields in which the baseline differs from the method's defaults.

    Raises:
        InputError: Unknown method, or a baseline that its config refuses.
    """
    config = method_config(name)
    try:
        made = config.model_validate(dict(overrides or {}))
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or name}: {item['msg']}" for item in error.errors(include_url=False)
        )
        raise InputError.of(
            "baseline-refused", f"baseline {dict(overrides or {})}", told, "Correct the baseline.", name
        ) from error
    values = made.model_dump(mode="json")
    parts = tuple(_part_of_field(config, field, knob, values[field]) for field, knob in surface(config).items())
    return Surface(name, parts, config=config, overrides=overrides)


def _part_of_field(config: type[MethodConfig], field: str, knob: Knob, baseline: Any) -> Part:
    info = config.model_fields[field]
    kinds, optional = _alternatives(info.annotation)
    kind: PartKind = "other"
    literal = tuple(value for kind_ in kinds if get_origin(kind_) is Literal for value in get_args(kind_))
    plain = [kind_ for kind_ in kinds if get_origin(kind_) is not Literal]
    for wanted, called in ((bool, "bool"), (float, "number"), (int, "integer"), (str, "text")):
        if wanted in plain:
            kind = called  # type: ignore[assignment]
            break
    else:
        kind = "choice" if literal else "other"
    named = dict(knob.values)
    choices = tuple((value, (str(value), *named.pop(value, ()))) for value in literal)
    choices += tuple((value, (str(value), *names)) for value, names in named.items())
    upper = [getattr(bound, name) for bound in info.metadata for name in ("le", "lt") if hasattr(bound, name)]
    removable = knob.remove is not None or (optional and baseline is not None)
    return Part(
        name=field,
        words=knob.words,
        aliases=knob.aliases,
        kind=kind,
        baseline=baseline,
        removable=removable,
        remove=knob.remove,
        choices=choices,
        share=kind == "number" and any(bound is not None and bound <= 1 for bound in upper),
    )


def _alternatives(annotation: Any) -> tuple[list[Any], bool]:
    """The types that a field's type allows besides None, and whether it allows None."""
    union = get_origin(annotation) in (Union, types.UnionType)
    kinds = list(get_args(annotation)) if union else [annotation]
    return [kind for kind in kinds if kind is not type(None)], type(None) in kinds


def surface_of_manifest(manifest: Manifest) -> Surface:
    """What can be ablated about a stranger's script: the components of its manifest."""
    parts = []
    for name, component in manifest.components.items():
        choices = tuple((component.read(text), (text, *names)) for text, names in component.choices.items())
        numbers = [value for value in (component.baseline, component.remove) if isinstance(value, float)]
        parts.append(
            Part(
                name=name,
                words=component.words,
                aliases=component.aliases,
                kind="choice" if choices else component.type,
                baseline=component.baseline,
                removable=component.remove is not None,
                remove=component.remove,
                choices=choices,
                share=component.type == "number" and bool(numbers) and all(0 <= value <= 1 for value in numbers),
            )
        )
    return Surface(manifest.name, tuple(parts), manifest=manifest)


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


def component_of(part: str, config: type[MethodConfig]) -> Component | None:
    """The field of the method that a plan's words mean, by its name, its words and its aliases; None when none does.

    A name of several words counts when all of them stand in the part, a single word when it is most of the part or
    stands in brackets, a single letter only in brackets. Two names that fit equally well are not sure.
    """
    return named_component(part, surface_of_method(config.model_fields["name"].default))


def named_component(part: str, surface: Surface) -> Component | None:
    """As `component_of`, on any surface."""
    scores = {name: phrase_score(part, known.phrases)[0] for name, known in surface.parts.items()}
    best = max(scores.values(), default=0.0)
    fields = [field for field, score in scores.items() if score == best]
    if best < 1.0:
        return None
    chosen = surface.parts[fields[0]]
    return Component(field=chosen.name, sure=best >= 2.0 and len(fields) == 1, baseline=own_values(chosen))


def own_values(part: Part) -> tuple[Any, ...]:
    """The baseline's value of a component, and the names that it goes by."""
    names = next((names for value, names in part.choices if value == part.baseline), ())
    return (part.baseline, *names)


def phrase_score(text: str, phrases: tuple[str, ...]) -> tuple[float, str]:
    """How well any of the phrases is the thing that `text` speaks of, and which one is.

    3: it is the text, or stands there in brackets; from 2: all its words do; from 1: some words; 0: none.
    """
    words, symbols, whole = content_words(text), bracketed(text), normal_text(text)
    best, which = 0.0, ""
    for phrase in phrases:
        score = _score(phrase, words, symbols, whole)
        if score > best:
            best, which = score, phrase
    return best, which


def _score(phrase: str, words: frozenset[str], symbols: frozenset[str], whole: str) -> float:
    normal = normal_text(phrase)
    if normal in symbols or normal == whole:
        return 3.0
    if len(normal) == 1:
        return 0.0
    wanted = content_words(phrase)
    shared = len(wanted & words)
    if shared == len(wanted) and (shared > 1 or len(words) <= 2):
        return 2.0 + shared / 100
    return 1.0 + shared / 100 if shared else 0.0


def same_value(value: PlanValue, other: Any) -> bool:
    """Whether a plan's value says a config value: numbers by their size, `10%` as 0.1, text without regard to case."""
    if isinstance(other, bool) or other is None:
        return value.value is other or normal_text(value.text) == normal_text(str(other))
    if isinstance(other, int | float):
        number = value.value / 100 if value.kind == "percent" else value.value
        return value.kind in ("integer", "number", "percent") and abs(number - other) <= 1e-9 * abs(other)
    return normal_text(value.text) == normal_text(str(other))


def named_by(value: PlanValue, surface: Surface) -> bool:
    """Whether a value is a proper name that the method's own words use: SPSA for MeZO, LoRA for first-order LoRA."""
    proper = value.text.isalnum() and sum(char.isupper() for char in value.text) > 1
    return proper and any(value.text in part.words.split() for part in surface.parts.values())
