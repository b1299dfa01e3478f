from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optaware._io import text_sha256
from optaware.errors import InputError
from optaware.plan._metrics import name_metric
from optaware.plan._reading import Reading, read_removal, read_value
from optaware.plan._render import entry_json
from optaware.plan._surface import Part, Surface, phrase_score
from optaware.plan._words import content_words
from optaware.records import (
    AblationEntry,
    AblationPlan,
    Binding,
    BindingArm,
    BoundBy,
    BoundEntry,
    BoundMetric,
    NearComponent,
    PlanSource,
    PlanValue,
    Unbound,
)

if TYPE_CHECKING:
    from optaware.llm import ChatModel

__all__ = ["Draft", "bind_entries", "bind_plan", "candidates", "draft_of", "plan_sha256"]


@dataclass(frozen=True)
class Draft:
    """An entry on its way to being bound.

    Attributes:
        entry: The entry.
        part: The component chosen; None while it is open.
        why: Why it was chosen, or why none was.
        by: Who chose it.
        evidence: What was matched.
        readings: Its values (or its removal) as values of the component.
        ranked: Components by how near they are, with what speaks against each.
        failures: Unusable replies of a chat model.
    """

    entry: AblationEntry
    part: Part | None
    why: str
    by: str = "rule"
    evidence: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    ranked: tuple[tuple[Part, str], ...] = ()
    failures: tuple[str, ...] = ()


def plan_sha256(plan: AblationPlan) -> str:
    """SHA-256 of a plan's entries as JSONL: the same for a page, Markdown or a reply that holds the same plan."""
    return text_sha256("".join(entry_json(entry) + "\n" for entry in plan.entries))


def bind_plan(
    plan: AblationPlan,
    surface: Surface,
    *,
    source: str,
    manifest: str | None = None,
    manifest_sha256: str | None = None,
    baseline: Mapping[str, Any] | None = None,
    chat: ChatModel | None = None,
) -> Binding:
    """Map every entry of a plan to configuration: by rule, then by a chat model choosing among what is listed.

    What neither can tell stays unbound, with the nearest components and what would be needed, for a person to edit.

    Args:
        plan: The plan.
        surface: The components of the method or manifest, with the baseline.
        source: Where the plan came from.
        manifest: Path of the manifest, when the surface is one.
        manifest_sha256: Its hash.
        baseline: Fields in which the baseline differs from the defaults.
        chat: Asked about what the rules left open; None: nothing is asked.

    Raises:
        InputError: A baseline that names no field, or two entries of the same name.
        BudgetExhausted, EndpointError: From the chat model.
    """
    if unknown := surface.unknown(baseline or {}):
        raise InputError.of(
            "component-unknown",
            ", ".join(unknown),
            f"{surface.name} has no such field",
            f"Its components: {', '.join(surface.parts)}.",
            "baseline",
        )
    drafts = [draft_of(entry, surface) for entry in plan.entries]
    if chat is not None:
        from optaware.plan._bind_chat import ask_about  # brings jinja2 and the chat models

        drafts = ask_about(drafts, surface, chat)
    entries = bind_entries(drafts)
    touched = dict.fromkeys(field for entry in entries for arm in entry.runs for field in arm.changes)
    own = {**{name: surface.baseline_of(name) for name in touched}, **(baseline or {})}
    from optaware.plan._binding_check import contradictions

    binding = Binding(
        plan=PlanSource(source=source, sha256=plan_sha256(plan), paper=plan.paper),
        method=None if manifest else surface.name,
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        baseline=own,
        entries=entries,
    )
    return binding.model_copy(update={"contradictions": contradictions(binding, surface)})


def draft_of(entry: AblationEntry, surface: Surface) -> Draft:
    """Bind one entry by rule, or say why it cannot be.

    A component whose whole name stands in the part is taken when it can have the values; of several, the one that can
    have more of them, then the one with more words. One that shares only some words is taken when all values are names
    of its values and no other component's. Numbers alone are no evidence for a component.
    """
    ranked = candidates(entry, surface)
    open_draft = Draft(entry, None, "no component of it has these words", ranked=_against(ranked))
    if not ranked:
        return open_draft
    named = [found for found in ranked if found.score >= 2.0 and found.readings and not found.lost]
    if named:
        best = max(named, key=lambda found: (found.score, found.strong))
        rivals = [found for found in named if (found.score, found.strong) == (best.score, best.strong)]
        if len(rivals) > 1:
            both = " and ".join(found.part.name for found in rivals)
            return replace(open_draft, why=f"{both} fit equally well")
        return best.draft(f"{best.phrase!r} stands in the part", _against(ranked))
    told = [found for found in ranked if found.strong and found.strong == len(found.readings)]
    told = [found for found in told if found.score >= 1.0 or found.strong > 1]
    if len(told) == 1:
        why = f"all its values are values of {told[0].part.name}"
        return told[0].draft(why, _against(ranked))
    part_only = [found for found in ranked if found.score >= 2.0 and len(found.lost) < len(found.readings)]
    if part_only:
        best = max(part_only, key=lambda found: (len(found.readings) - len(found.lost), found.score))
        return best.draft(f"{best.phrase!r} stands in the part", _against(ranked))
    sure = [found for found in ranked if found.score >= 2.0]
    if sure:
        lost = sure[0].lost[0].why_not if sure[0].lost else "the entry gives no value"
        return replace(open_draft, why=f"the part is {sure[0].part.name}, but {lost}")
    near = ranked[0].part.name
    return replace(open_draft, why=f"it shares only some words with {near}: {ranked[0].phrase!r}")


@dataclass(frozen=True)
class Candidate:
    """A component that an entry may be about: how well its words fit, and how the entry's values read there."""

    entry: AblationEntry
    part: Part
    score: float
    phrase: str
    readings: tuple[Reading, ...]

    @property
    def lost(self) -> tuple[Reading, ...]:
        """Values that mean nothing there."""
        return tuple(reading for reading in self.readings if reading.why_not is not None)

    @property
    def strong(self) -> int:
        """Values that are names of its values."""
        return sum(reading.strong for reading in self.readings)

    def draft(self, why: str, ranked: tuple[tuple[Part, str], ...]) -> Draft:
        """The entry, bound to this component."""
        evidence = tuple(f"{reading.label}: {reading.how}" for reading in self.readings if reading.how)
        return Draft(self.entry, self.part, why, evidence=evidence, readings=self.readings, ranked=ranked)


def candidates(entry: AblationEntry, surface: Surface) -> list[Candidate]:
    """Components that share words or values with an entry, the nearest first."""
    found = []
    for part in surface.parts.values():
        score, phrase = phrase_score(entry.ablated_part, part.phrases)
        if entry.ablated_part.partition(":")[0].strip(" `") == part.name:
            score, phrase = 3.0, part.name
        readings = read_all(entry, part, surface)
        strong = sum(reading.strong for reading in readings) if entry.action != "REMOVE" else 0
        if score or strong:
            by_name = phrase_score(entry.name, part.phrases)[0] / 1000
            found.append(Candidate(entry, part, score + by_name, phrase, readings))
    return sorted(found, key=lambda one: one.score + one.strong - len(one.lost) / 100, reverse=True)


def read_all(entry: AblationEntry, part: Part, surface: Surface) -> tuple[Reading, ...]:
    """An entry's values as values of a component: its alternatives, its removal, or what an ADD without values adds."""
    context = f"{entry.name} {entry.ablated_part}"
    if entry.action == "REMOVE":
        return (read_removal(part),)
    if isinstance(entry.replacement, dict) and entry.replacement:
        text = ", ".join(f"{key}={value.text}" for key, value in entry.replacement.items())
        given = PlanValue.model_construct(text=text, kind="dict", value=dict(entry.replacement))
        return (read_value(given, part, surface, context),)
    if entry.values:
        readings = tuple(read_value(value, part, surface, context) for value in entry.values)
        return _distinct(readings)
    if entry.action == "REPLACE":
        return ()
    return (_added(entry, part, surface, context),)


def _added(entry: AblationEntry, part: Part, surface: Surface, context: str) -> Reading:
    """ADD without values: a switch is turned on, or the part itself names the value."""
    if part.kind == "bool":
        return read_value(PlanValue.read("True"), part, surface, context)
    if part.choices:
        words = content_words(entry.ablated_part)
        for choice, names in part.choices:
            if choice != part.baseline and any(content_words(name) <= words for name in names):
                return read_value(PlanValue.read(str(choice)), part, surface, context)
    return Reading(entry.ablated_part, why_not="nothing says which value is added")


def _distinct(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Each setting once: a value that says the same as one before it is left out, and said so by that one."""
    kept: dict[str, Reading] = {}
    for reading in readings:
        key = f"lost {reading.label}" if reading.why_not is not None else repr(sorted(reading.changes.items(), key=str))
        if key in kept:
            also = f"{kept[key].how}; {reading.label} says the same"
            kept[key] = replace(kept[key], how=also)
        else:
            kept[key] = reading
    return tuple(kept.values())


def _against(ranked: Sequence[Candidate]) -> tuple[tuple[Part, str], ...]:
    """The nearest components, with what speaks against each."""
    told = []
    for found in ranked[:3]:
        if found.score < 2.0:
            why = f"only some words are shared with {found.phrase!r}" if found.phrase else "no word is shared"
        else:
            why = found.lost[0].why_not or "" if found.lost else "another component fits as well"
        told.append((found.part, why))
    return tuple(told)


def bind_entries(drafts: Sequence[Draft]) -> tuple[BoundEntry, ...]:
    """Drafts as entries of a binding."""
    return tuple(map(_bound, drafts))


def _bound(draft: Draft) -> BoundEntry:
    entry = draft.entry
    arms = [
        BindingArm(label=reading.label, changes=dict(reading.changes), is_baseline=reading.is_baseline)
        for reading in draft.readings
        if reading.why_not is None and draft.part is not None
    ]
    runs = any(not arm.is_baseline for arm in arms)
    lost = _lost(draft, runs)
    return BoundEntry(
        name=entry.name,
        part=entry.ablated_part,
        action=entry.action,
        status="unbound" if not runs else "partly" if lost else "bound",
        metrics=tuple(BoundMetric.model_validate(name_metric(text).to_json()) for text in entry.metrics),
        arms=tuple(arms),
        why=BoundBy.model_validate({"by": draft.by, "how": draft.why}) if runs else None,
        evidence=draft.evidence if draft.part is not None else (),
        unbound=lost,
        failures=draft.failures,
    )


def _lost(draft: Draft, runs: bool) -> tuple[Unbound, ...]:
    near = tuple(NearComponent(component=part.name, words=part.words, why_not=why) for part, why in draft.ranked)
    if draft.part is None:
        needed = (
            f"A component for {draft.entry.ablated_part!r} (a field of the method's config, or a flag in the "
            "manifest), or a person who says which of the nearest is meant."
        )
        return (Unbound(why=draft.why, nearest=near, needed=needed),)
    part = draft.part
    listed = ", ".join(str(choice) for choice, _ in part.choices)
    has = f" (it has {listed})" if listed else ""
    values = tuple(
        Unbound(label=reading.label, why=reading.why_not, needed=f"{part.name} that can be {reading.label!r}{has}.")
        for reading in draft.readings
        if reading.why_not is not None
    )
    if not runs and not values:
        why = "all its values are what the baseline already does"
        values = (Unbound(why=why, nearest=near, needed="Another value, or another baseline (--set)."),)
    return values
