from __future__ import annotations

import re
from collections import Counter
from typing import Literal

from optaware._io import canonical_json
from optaware.errors import InputError
from optaware.plan._bind import Draft, draft_of
from optaware.plan._cost import arm_changes, forwards_of
from optaware.plan._metrics import NamedMetric, name_metric
from optaware.plan._report import CheckedEntry, CheckedValue, CheckReport, Finding
from optaware.plan._surface import (
    Component,
    Surface,
    named_by,
    named_component,
    own_values,
    same_value,
    surface_of_manifest,
    surface_of_method,
)
from optaware.plan._value_words import is_baseline_word, is_removal
from optaware.plan._words import content_words, normal_text
from optaware.records import AblationEntry, AblationPlan, Manifest, PlanValue

__all__ = ["check_plan", "is_generic"]

_GENERIC = frozenset(
    [
        "ablation",
        "study",
        "experiment",
        "exp",
        "entry",
        "item",
        "variant",
        "test",
        "part",
        "component",
        "setting",
        "config",
        "no",
        "number",
    ]
)
_COUNT = re.compile(r"[a-z]|[0-9]{1,4}[a-z]?|[ivx]{1,5}|one|two|three|four|five")


def check_plan(
    plan: AblationPlan,
    *,
    k: int | None = None,
    method: str | None = None,
    manifest: Manifest | None = None,
    seeds: int = 1,
    steps: int = 20_000,
) -> CheckReport:
    """Check a plan before anything is spent on it.

    Args:
        plan: The plan.
        k: How many ablations were asked for; later ones are left out, and that is an error of the plan.
        method: Name of the method that it is about; its config tells baselines and which parts exist.
        manifest: Describes a script that it is about, instead of a method.
        seeds: Seeds per run.
        steps: Steps per run, for the number of forward passes.

    Returns:
        Findings, and the first k entries as they would be run. The baseline is run once for the whole plan; a value
        given twice, or by two entries for the same part, is run once. A dict of replacements is one joint setting.

    Raises:
        InputError: k, seeds or steps below 1, an unknown method, or both a method and a manifest.
    """
    for given, name in ((k, "k"), (seeds, "seeds"), (steps, "steps")):
        if given is not None and given < 1:
            raise InputError.of(
                "count-below-one", f"{name} = {given}", "it counts things", f"Give {name} of 1 or more."
            )
    if method is not None and manifest is not None:
        raise InputError.of("bind-what", "a method and a manifest", "a plan is about one of them", "Give one.")
    surface = surface_of_method(method) if method else surface_of_manifest(manifest) if manifest else None
    checker = _Checker(surface)
    kept, beyond = plan.entries[:k], plan.entries[len(plan.entries) if k is None else k :]
    entries = tuple(checker.entry(rank, entry) for rank, entry in enumerate(kept, start=1))
    for rank, entry in enumerate(beyond, start=len(kept) + 1):
        checker.found("error", "beyond-k", rank, entry, f"rank {rank}", f"{k} were asked for", "Leave it out.")
    checker.names(plan.entries)
    return CheckReport(
        k=k,
        method=surface.name if surface else None,
        seeds=seeds,
        entries=entries,
        left_out=tuple(entry.name for entry in beyond),
        findings=tuple(sorted(checker.findings, key=lambda finding: finding.rank or 0)),
        runs=seeds * (1 + sum(entry.runs for entry in entries)),
        steps=steps if surface else None,
        forwards=_forwards(kept, surface, seeds * steps) if surface else None,
    )


def _forwards(entries: tuple[AblationEntry, ...], surface: Surface, steps: int) -> int | None:
    """Forward passes of the baseline and of every distinct setting that can be bound."""
    arms: dict[str, dict[str, object]] = {"{}": {}}
    for entry in entries:
        arms |= {canonical_json(changes): changes for changes in arm_changes(draft_of(entry, surface))}
    each = [forwards_of(surface, changes) for changes in arms.values()]
    known = [count for count in each if count is not None]
    return round(sum(known) * steps) if len(known) == len(each) else None


class _Checker:
    """Gathers findings over the entries of one plan."""

    def __init__(self, surface: Surface | None) -> None:
        self.surface = surface
        self.findings: list[Finding] = []
        self.planned: set[tuple[frozenset[str], str]] = set()
        self.whole: dict[tuple[frozenset[str], str, frozenset[str]], str] = {}

    def found(
        self,
        level: Literal["error", "warning"],
        code: str,
        rank: int,
        entry: AblationEntry,
        given: str,
        why: str,
        next: str,
        suggestion: str | None = None,
    ) -> None:
        """Note one finding."""
        self.findings.append(
            Finding(
                level=level,
                code=code,
                rank=rank,
                name=entry.name,
                given=given,
                why=why,
                next=next,
                suggestion=suggestion,
            )
        )

    def entry(self, rank: int, entry: AblationEntry) -> CheckedEntry:
        """Check one entry."""
        draft = draft_of(entry, self.surface) if self.surface is not None else None
        component = self._component(rank, entry, draft)
        bound = _bound_baselines(draft)
        values = tuple(self._value(rank, entry, value, component, bound) for value in entry.values)
        self._action(rank, entry)
        self._duplicates(rank, entry)
        return CheckedEntry(
            rank=rank,
            name=entry.name,
            ablated_part=entry.ablated_part,
            action=entry.action,
            component=component.field if component else None,
            sure=component.sure if component else False,
            values=values,
            metrics=self._metrics(rank, entry),
            runs=self._runs(entry, values),
        )

    def names(self, entries: tuple[AblationEntry, ...]) -> None:
        """Names must be unique, and should say what is ablated."""
        counts = Counter(normal_text(entry.name) for entry in entries)
        for rank, entry in enumerate(entries, start=1):
            suggestion = _telling_name(entry)
            if counts[normal_text(entry.name)] > 1:
                why = "another entry has the same name"
                self.found("error", "name-twice", rank, entry, entry.name, why, "Name each differently.", suggestion)
            elif is_generic(entry.name):
                why = "the name does not say what is ablated"
                self.found("warning", "name-generic", rank, entry, entry.name, why, "Rename it.", suggestion)

    def _component(self, rank: int, entry: AblationEntry, draft: Draft | None) -> Component | None:
        if self.surface is None or draft is None:
            return None
        component = named_component(entry.ablated_part, self.surface)
        part = entry.ablated_part
        if draft.part is not None:
            component = Component(draft.part.name, True, own_values(draft.part))
            for reading in draft.readings:
                if reading.why_not is not None:
                    next = f"Give a value that {draft.part.name} can have."
                    self.found("warning", "value-not-bound", rank, entry, reading.label, reading.why_not, next)
        if component is None:
            why = "no component of the method has these words"
            self.found("warning", "part-not-covered", rank, entry, part, why, "It cannot be run as it is.")
        elif not component.sure:
            why = f"it shares only some words with the method's {component.field}"
            self.found("warning", "part-unclear", rank, entry, part, why, f"Say {component.field} if that is meant.")
        return component

    def _value(
        self,
        rank: int,
        entry: AblationEntry,
        value: PlanValue,
        component: Component | None,
        bound: dict[str, bool],
    ) -> CheckedValue:
        removal = is_removal(value)
        label = " ".join(value.text.split())
        baseline = bound[label] if label in bound else not removal and self._is_baseline(entry, value, component)
        if not value.text:
            self.found("error", "value-empty", rank, entry, "an empty value", "it names nothing", "Fill it in.")
        if baseline:
            why = "it is what the method already does; the baseline is run once for the whole plan"
            self.found("warning", "baseline-listed", rank, entry, value.text, why, "It is not run twice.")
        if removal and entry.action == "REPLACE":
            why = "it takes the part away, which is a removal"
            next = "Plan it as an entry with REMOVE, or keep it knowingly."
            self.found("warning", "removal-in-replace", rank, entry, value.text or "None", why, next)
        return CheckedValue(text=value.text, baseline=baseline, removal=removal)

    def _is_baseline(self, entry: AblationEntry, value: PlanValue, component: Component | None) -> bool:
        if component is not None and component.sure and any(same_value(value, own) for own in component.baseline):
            return True
        if is_baseline_word(value.text):
            return True
        if self.surface is not None and named_by(value, self.surface):
            return True
        words = content_words(value.text)
        telling = value.kind == "text" and any(not word.isdigit() for word in words)
        return entry.action == "REPLACE" and telling and words <= content_words(entry.ablated_part)

    def _action(self, rank: int, entry: AblationEntry) -> None:
        empty = not entry.values
        if entry.action == "REPLACE" and empty:
            why = "nothing says what to put in its place"
            self.found("error", "replace-without-values", rank, entry, "REPLACE", why, "List the alternatives.")
        if entry.action == "ADD" and empty:
            why = "nothing says what is added, so the part itself is taken"
            self.found("warning", "add-without-values", rank, entry, "ADD", why, "List what is added.")
        if entry.action == "REMOVE" and not empty:
            why = "a removal has no alternatives"
            self.found("warning", "remove-with-values", rank, entry, "REMOVE", why, "Use REPLACE, or drop the list.")

    def _duplicates(self, rank: int, entry: AblationEntry) -> None:
        texts = [normal_text(value.text) for value in entry.values]
        for text in sorted(text for text, count in Counter(texts).items() if count > 1):
            why = "it stands in the list twice"
            self.found("warning", "value-twice", rank, entry, text or "an empty value", why, "List it once.")
        key = (content_words(entry.ablated_part), entry.action, frozenset(texts))
        if key in self.whole:
            why = f"{self.whole[key]!r} plans the same part, action and values"
            self.found("error", "entry-twice", rank, entry, entry.ablated_part, why, "Keep one of the two.")
        self.whole.setdefault(key, entry.name)

    def _metrics(self, rank: int, entry: AblationEntry) -> tuple[NamedMetric, ...]:
        metrics = tuple(map(name_metric, entry.metrics))
        if not metrics:
            why = "nothing says what is measured"
            self.found("error", "metrics-missing", rank, entry, "no metrics", why, "Name what is measured.")
        for metric in metrics:
            if metric.name is None:
                why = "it is no metric that optaware knows"
                self.found("warning", "metric-unknown", rank, entry, metric.text, why, "Say how it is measured.")
        seen = Counter((metric.name, metric.narrowed_by) for metric in metrics if metric.name)
        for (name, narrowed), count in seen.items():
            if count > 1:
                given = f"{name} {narrowed}".strip()
                self.found("warning", "metric-twice", rank, entry, given, f"given {count} times", "List it once.")
        return metrics

    def _runs(self, entry: AblationEntry, values: tuple[CheckedValue, ...]) -> int:
        part = content_words(entry.ablated_part)
        if isinstance(entry.replacement, dict) and entry.replacement and entry.action != "REMOVE":
            wanted = {repr(sorted(f"{key}={value.text}" for key, value in entry.replacement.items()))}
        elif entry.action == "REMOVE" or (entry.action == "ADD" and not values):
            wanted = {entry.action}
        else:
            wanted = {"REMOVE" if v.removal else normal_text(v.text) for v in values if v.text and not v.baseline}
        new = {(part, text) for text in wanted} - self.planned
        self.planned |= new
        return len(new)


def _bound_baselines(draft: Draft | None) -> dict[str, bool]:
    """Whether a value is the baseline's, by its text, where binding knows what it means: so it is run."""
    if draft is None or draft.part is None:
        return {}
    return {reading.label: reading.is_baseline for reading in draft.readings if reading.why_not is None}


def is_generic(name: str) -> bool:
    """Whether a name tells nothing: Ablation 1, Study A."""
    words = re.findall(r"[^\W_]+", normal_text(name))
    return all(word in _GENERIC or _COUNT.fullmatch(word) for word in words)


def _telling_name(entry: AblationEntry) -> str:
    if entry.action == "REMOVE":
        name = f"Without {entry.ablated_part}"
    elif entry.action == "ADD" and not entry.values:
        name = f"With {entry.ablated_part}"
    else:
        name = f"{entry.ablated_part}: {' / '.join(' '.join(value.text.split()) for value in entry.values[:4])}"
    return name if len(name) <= 100 else f"{name[:97]}..."
