from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from optaware.records import ChatModelRef

__all__ = ["propose_from"]


def propose_from(
    paper: Path,
    ref: ChatModelRef,
    cache: Path,
    k: int,
    missing: bool,
    method: str | None,
    manifest: Path | None,
    to: Literal["page", "jsonl", "md", "json"],
    out: Path | None,
    bounds: dict[str, Any],
    dry_run: bool,
) -> int:
    """Read the paper, ask, write the plan, say what is doubtful."""
    from optaware._io import write_text
    from optaware.errors import InputError
    from optaware.llm import open_chat
    from optaware.paper import read_paper
    from optaware.plan import (
        ProposeLimits,
        proposal_requests,
        propose_plan,
        read_manifest,
        render_plan,
        surface_of_manifest,
        surface_of_method,
    )

    for name, value in (*bounds.items(), ("k", k)):
        if value < 1:
            raise InputError.of(
                "count-below-one", f"{name} = {value}", "it counts things", f"Give {name} of 1 or more."
            )
    if method is not None and manifest is not None:
        raise InputError.of("bind-what", "--method and --manifest", "a plan is about one of them", "Give one.")
    surface = (
        surface_of_method(method) if method else surface_of_manifest(read_manifest(manifest)) if manifest else None
    )
    card, limits = read_paper(paper), ProposeLimits(**bounds)
    most = proposal_requests(card, missing=missing, limits=limits)
    if dry_run:
        print(
            f"{paper}: {len(card.text)} characters; at most {most} requests of up to {limits.max_tokens} tokens each."
        )
        return 0
    chat = open_chat(ref, cache=cache)
    name = ref.model.rstrip("/").rsplit("/", 1)[-1]
    found = propose_plan(
        card,
        chat,
        k=k,
        missing=missing,
        surface=surface,
        limits=limits,
        model=name,
        temperature=ref.temperature,
        seed=ref.seed,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if to == "json":
        text = json.dumps(found.to_json(), ensure_ascii=False, indent=2) + "\n"
    else:
        text = render_plan(found.document, to)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
    used = chat.totals
    cost = "" if used.cost_usd is None else f", ${used.cost_usd:.4f}"
    tokens = used.prompt_tokens + used.completion_tokens
    print(f"{found.requests} requests, {used.cached} of them cached, {tokens} tokens{cost}", file=sys.stderr)
    for fault in found.faults:
        print(f"warning: {fault}", file=sys.stderr)
    for text in found.mended:
        print(f"mended: {text}", file=sys.stderr)
    for text in found.dropped:
        print(f"left out: {text}", file=sys.stderr)
    lost = [evidence for evidence in found.evidence if evidence.place is None]
    for evidence in lost:
        print(f"warning: {evidence.entry}: the paper has no such words: {evidence.quote!r}", file=sys.stderr)
    return 1 if lost or found.faults else 0
