from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optaware.llm import ChatModel, load_template
from optaware.plan._bind import Draft, read_all
from optaware.plan._notes import quote
from optaware.plan._reading import Reading
from optaware.plan._surface import Part, Surface
from optaware.plan._words import normal_text
from optaware.records import ChatMessage, ChatReply, ChatRequest

__all__ = ["ask_about", "chosen"]

_TEMPLATES = Path(__file__).parent / "templates"
_TOKENS = 40


def ask_about(drafts: Sequence[Draft], surface: Surface, chat: ChatModel) -> list[Draft]:
    """Ask a chat model what the rules left open: first which component, then which of its listed values.

    The model chooses from a list; a reply that is none of the listed is a failure that is kept with its text, and the
    entry stays as it was.
    """
    asked = [draft for draft in drafts if draft.part is None]
    replies = _ask([_component(draft, surface) for draft in asked], chat)
    after = {draft.entry.name: _with_component(draft, replies.get(draft.entry.name), surface, chat) for draft in asked}
    drafts = [after.get(draft.entry.name, draft) for draft in drafts]
    requests = [
        _value(draft, reading)
        for draft in drafts
        for reading in draft.readings
        if reading.why_not is not None and draft.part is not None and draft.part.choices
    ]
    replies = _ask(requests, chat)
    return [_with_values(draft, replies, surface, chat) for draft in drafts]


def chosen(text: str, listed: Sequence[str]) -> str | None:
    """Which of the listed names a reply is: it must be that name and nothing more, marks around it aside."""
    bare = normal_text(text.strip().strip("`*_\"'. \n"))
    return next((name for name in listed if normal_text(name) == bare), None)


def _ask(requests: Sequence[ChatRequest], chat: ChatModel) -> dict[str, ChatReply]:
    return {reply.key: reply for reply in chat.complete(requests)} if requests else {}


def _request(key: str, prompt: str) -> ChatRequest:
    return ChatRequest(key=key, messages=(ChatMessage(role="user", content=prompt),), max_tokens=_TOKENS)


def _component(draft: Draft, surface: Surface) -> ChatRequest:
    values = ", ".join(value.text for value in draft.entry.values)
    parts = list(surface.parts.values())
    prompt = load_template(_TEMPLATES / "component.jinja").render(
        method=surface.name, entry=draft.entry, values=values, parts=parts
    )
    return _request(draft.entry.name, prompt)


def _value(draft: Draft, reading: Reading) -> ChatRequest:
    assert draft.part is not None
    choices = [(str(choice), names[1:]) for choice, names in draft.part.choices]
    prompt = load_template(_TEMPLATES / "value.jinja").render(
        entry=draft.entry, label=reading.label, part=draft.part, choices=choices
    )
    return _request(_key(draft, reading), prompt)


def _key(draft: Draft, reading: Reading) -> str:
    return f"{draft.entry.name}: {reading.label}"


def _with_component(draft: Draft, reply: ChatReply | None, surface: Surface, chat: ChatModel) -> Draft:
    if reply is None or reply.text is None:
        said = "no reply" if reply is None else f"{reply.error} ({reply.error_code})"
        return replace(draft, failures=(*draft.failures, f"{chat.identity}: {said}"))
    name = chosen(reply.text, [*surface.parts, "none"])
    if name is None:
        said = f"{chat.identity}: the reply is none of the listed components: {quote(reply.text)}"
        return replace(draft, failures=(*draft.failures, said))
    if name == "none":
        return replace(draft, why=f"{draft.why}; {chat.identity} says that no component is meant")
    part = surface.parts[name]
    readings = read_all(draft.entry, part, surface)
    evidence = tuple(f"{reading.label}: {reading.how}" for reading in readings if reading.how)
    how = f"{chat.identity} chose {name} among {len(surface.parts)} components"
    return replace(draft, part=part, by="chat", why=how, readings=readings, evidence=evidence)


def _with_values(draft: Draft, replies: dict[str, ChatReply], surface: Surface, chat: ChatModel) -> Draft:
    part = draft.part
    if part is None:
        return draft
    readings, failures, by = [], list(draft.failures), draft.by
    for reading in draft.readings:
        reply = replies.get(_key(draft, reading)) if reading.why_not is not None else None
        if reply is None:
            readings.append(reading)
            continue
        name = chosen(reply.text or "", [*(str(choice) for choice, _ in part.choices), "none"])
        if name is None:
            said = reply.text if reply.text is not None else f"{reply.error} ({reply.error_code})"
            failures.append(f"{chat.identity}: {reading.label}: the reply is no listed value: {quote(said)}")
        read = None if name in (None, "none") else _read(name, reading.label, part, surface, chat)
        readings.append(read or reading)
        by = "chat" if read else by
    evidence = tuple(f"{reading.label}: {reading.how}" for reading in readings if reading.how)
    why = draft.why if by == draft.by else f"{draft.why}; values chosen by {chat.identity}"
    return replace(draft, readings=tuple(readings), failures=tuple(failures), by=by, why=why, evidence=evidence)


def _read(name: str | None, label: str, part: Part, surface: Surface, chat: ChatModel) -> Reading:
    value = next(choice for choice, _ in part.choices if str(choice) == name)
    changes, why_not = surface.settle({part.name: value})
    if why_not is not None:
        return Reading(label, why_not=why_not)
    how = f"{chat.identity} chose {part.name} = {value}"
    return Reading(label, {} if value == part.baseline else changes, is_baseline=value == part.baseline, how=how)
