"""What `oat_pipeline.py` found, as JSON and as a page: figures with intervals, and what they do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optaware._io import read_json, read_jsonl, read_yaml

Found = dict[str, Any]


def probed(corpus: Path) -> bool:
    """Whether the model to be trained has measured a corpus."""
    path = corpus / "evidence.json"
    return path.is_file() and read_json(path).get("probes") is not None


def collect(at: Path, tasks: list[str]) -> Found:
    """Everything that is finished, by task."""
    steps = read_json(at / "steps.json") if (at / "steps.json").is_file() else {}
    found: Found = {"tasks": {}, "steps": steps}
    for task in tasks:
        own: Found = {"template": _template(at / "templates" / task), "judge": _judge(at, task), "corpora": {}}
        shown = _examples(at / "templates" / task, task)
        for place in sorted((at / "corpora" / task).glob("*")):
            if (place / "DONE").is_file():
                own["corpora"][place.name] = _corpus(place, shown)
        found["tasks"][task] = own
    return found


def _template(place: Path) -> Found | None:
    if not (place / "DONE").is_file():
        return None
    card = read_json(place / "card.json")
    phases = [
        {
            "phase": phase["phase"],
            "name": phase["name"],
            "template": phase["template_id"][:12],
            "added": phase["added"],
            "lost": phase["lost"],
            "valid": [f"{trial['valid']}/{trial['rows']}" for trial in phase["trials"]],
            "reasons": [trial["reasons"] for trial in phase["trials"]],
            "reached": phase["reached"],
            "notes": phase["notes"],
            "calls": phase["calls"],
        }
        for phase in card["phases"]
    ]
    final = card["final"]
    return {
        "template": card["template_id"][:12],
        "phases": phases,
        "shots": card["shots"],
        "final_valid": final["valid"],
        "final_rows": final["rows"],
        "final_interval": None if card["valid"] is None else [card["valid"]["low"], card["valid"]["high"]],
        "final_reasons": final["reasons"],
        "unreached": card["unreached"],
        "calls": card["calls"],
    }


def _judge(at: Path, task: str) -> Found | None:
    path = at.parent / "judges" / f"{task}.packaged.json"
    if not path.is_file():
        return None
    measure = read_json(path)
    kept = ("pairs", "right", "accuracy", "passed_wrongly", "rejected_wrongly", "balanced", "always_same", "table")
    return {name: measure[name] for name in kept}


def _examples(place: Path, task: str) -> set[str]:
    path = place / "fewshot" / f"{task}.yaml"
    return {_words(shot["text"]) for shot in read_yaml(path).get("rewriter") or ()} if path.is_file() else set()


def _words(text: str) -> str:
    return " ".join(str(text).split())


def _corpus(place: Path, shown: set[str]) -> Found:
    card, evidence = read_json(place / "card.json"), read_json(place / "evidence.json")
    names = (
        "rows", "accepted", "rejected", "failed", "identical", "reasons", "accept_at", "accuracy_low", "accuracy_high",
        "words_before", "words_after", "calls", "search", "measured_forwards", "prompt_tokens", "completion_tokens",
    )  # fmt: skip
    decisions = [row for row in read_jsonl(place / "decisions.jsonl") if _words(row["original"]) in shown]
    own = {name: card.get(name) for name in names}
    own["among_examples"] = len(decisions)
    own["among_examples_accepted"] = sum(row["outcome"] == "accepted" for row in decisions)
    kept = ("changed", "leakage", "drift", "names_kept", "numbers_kept", "negation_kept", "by_label", "held_out",
            "probes", "notes")  # fmt: skip
    return own | {"evidence": {name: evidence.get(name) for name in kept}}


def page(found: Found) -> str:
    """The report in Markdown."""
    tasks: Found = found["tasks"]
    lines = ["# The pipeline of rewritten data", "", _opening(found), ""]
    lines += _table(
        "1. Template: rewrites of training rows that are valid",
        ("task", "lines of phases", "tries (phase 3)", "examples made (phase 5)", "finished template", "why not"),
        [_template_row(task, own["template"]) for task, own in tasks.items()],
        "Valid: one text, changed, passed by the checks, and called the same by the judge in meaning and role. The "
        "paper's aim, 20 of 20, would show no more than 84 %. The judge is the model itself; section 2 says how far to "
        "trust it.",
    )
    lines += _table(
        "2. Judge: against the project's labelled pairs",
        ("task", "as the labeller", "95 % interval", "lets faulty through", "rejects good", "balanced", "90 %"),
        [_judge_row(task, own["judge"]) for task, own in tasks.items()],
        "One labeller, half of the pairs faulty on purpose; the packaged judge in one order, refined on none of them. "
        "Balanced: mean of the shares judged rightly of either kind (50 % for a judge that always says one thing).",
    )
    lines += _table(
        "3. Corpora: the first training rows, rewritten, judged, gated",
        ("task", "rows", "accepted", "95 % interval", "unchanged", "90 % rule", "rejected for"),
        [_corpus_row(task, own["corpora"].get("built")) for task, own in tasks.items()],
        "Rewriter accuracy as the paper counts it: accepted over rows, unchanged rows included. Below 90 % a corpus is "
        "not accepted: what is trained on it is trained on a mixture. Rows may be among the template's examples.",
    )
    lines += _table(
        "4. Evidence: leakage, drift, held-out rows",
        ("task", "changed", "label found from the span: before → after", "words", "reading ease", "in common",
         "negation kept", "near held-out"),
        [_drift_row(task, own["corpora"].get("built")) for task, own in tasks.items()],
        "Differences after less before over changed rows, with 95 % intervals. With few rows a leak or drift of the "
        "size of an interval's end cannot be excluded.",
    )  # fmt: skip
    lines += _table(
        "5. Evidence: zeroth-order estimates of single rows, and perplexity",
        ("task", "rows", "loss", "abs. g", "variance of g", "abs. curvature", "perplexity", "log signal to noise"),
        [_probe_row(task, own["corpora"].get("built")) for task, own in tasks.items()],
        _probe_words(tasks),
    )
    lines += _searches(tasks)
    return "\n".join(lines).rstrip() + "\n"


def _opening(found: Found) -> str:
    told = "; ".join(f"{name}: {value}" for name, value in found["settings"].items() if value not in ("", None))
    spent = [step for step in found["steps"].values() if step["code"] in (0, 1)]
    cpu = sum(step["cpu_s"] for step in spent) / 60
    return (
        f"Written by `scripts/oat_pipeline.py`. {told}. {cpu:.0f} minutes of processor time for the steps that "
        "finished. A dash: not made. Nothing was trained here: these are figures on the data, not on what training "
        "makes of it."
    )


def _table(title: str, head: tuple[str, ...], rows: list[list[str]], note: str) -> list[str]:
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([*row, *["–"] * (len(head) - len(row))]) + " |" for row in rows]
    return [*lines, "", note, ""]


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _reasons(reasons: dict[str, int]) -> str:
    wanted = {name: count for name, count in reasons.items() if name != "accepted"}
    return ", ".join(f"{name} {count}" for name, count in sorted(wanted.items(), key=lambda item: -item[1])) or "–"


def _template_row(task: str, own: Found | None) -> list[str]:
    if own is None:
        return [task]
    lines = ", ".join(f"{p['phase']}: +{p['added']} −{p['lost']}" for p in own["phases"])
    third = next((", ".join(p["valid"]) for p in own["phases"] if p["phase"] == 3), "carried over")
    made = [valid for phase in own["phases"] if phase["phase"] == 5 for valid in phase["valid"]]
    fifth = f"{own['shots']} ({', '.join(made)} valid)"
    low, high = own["final_interval"] or (0.0, 1.0)
    final = f"{own['final_valid']} of {own['final_rows']} [{_percent(low)}, {_percent(high)}]"
    return [task, lines, third, fifth, final, _reasons(own["final_reasons"])]


def _judge_row(task: str, own: Found | None) -> list[str]:
    if own is None:
        return [task]
    low, high = own["accuracy"]["low"], own["accuracy"]["high"]
    said = "shown" if low >= 0.9 else "excluded" if high < 0.9 else "open"
    shares = (own["passed_wrongly"], own["rejected_wrongly"])
    wrong = ["–" if share is None else _percent(share["estimate"]) for share in shares]
    balanced = "–" if own["balanced"] is None else _percent(own["balanced"])
    return [task, f"{own['right']} of {own['pairs']}", f"[{_percent(low)}, {_percent(high)}]", *wrong, balanced, said]


def _corpus_row(task: str, own: Found | None) -> list[str]:
    if own is None:
        return [task]
    rate = own["accepted"] / own["rows"]
    accepted = f"{own['accepted']} ({_percent(rate)})"
    if own["among_examples"]:
        accepted += f"; {own['among_examples_accepted']} of {own['among_examples']} that are examples"
    rule = "accepted" if rate >= own["accept_at"] else "**not accepted**"
    if rate >= own["accept_at"] > own["accuracy_low"]:
        rule += ", but the interval reaches below"
    interval = f"[{_percent(own['accuracy_low'])}, {_percent(own['accuracy_high'])}]"
    rejected = {n: c for n, c in own["reasons"].items() if n != "identical"}
    return [task, str(own["rows"]), accepted, interval, str(own["identical"]), rule, _reasons(rejected)]


def _signed(drift: Found, scale: float = 1.0) -> str:
    interval = drift["difference"]
    estimate, low, high = (scale * interval[name] for name in ("estimate", "low", "high"))
    return f"{estimate:+.3g} ({low:+.3g} to {high:+.3g})"


def _named(rows: list[Found] | None, name: str) -> str:
    return next((_signed(row) for row in rows or () if row["name"] == name), "–")


def _drift_row(task: str, own: Found | None) -> list[str]:
    if own is None:
        return [task]
    evidence = own["evidence"]
    leak = evidence["leakage"]
    found = "too few rows"
    if leak is not None:
        found = f"{_percent(leak['before'])} → {_percent(leak['after'])}, {_signed(leak, 100)} points"
    held = evidence["held_out"]
    near = f"{held['near_before']} → {held['near_after']}, {held['refused']} refused"
    drift = [_named(evidence["drift"], name) for name in DRIFTS]
    negation = _interval(evidence["negation_kept"])
    return [task, str(evidence["changed"]), found, *drift, negation, near if held["texts"] else "none at hand"]


def _interval(share: Found | None) -> str:
    if share is None:
        return "–"
    return f"{_percent(share['estimate'])} [{_percent(share['low'])}, {_percent(share['high'])}]"


DRIFTS = ("words", "reading ease (Flesch)", "share of content words in common")
PROBES = ("loss", "|g|", "variance of g", "|curvature|", "perplexity of the span")


def _probe_row(task: str, own: Found | None) -> list[str]:
    probes = None if own is None else own["evidence"]["probes"]
    if probes is None:
        return [task]
    figures = [_named(probes["figures"], name) for name in PROBES]
    return [task, str(probes["rows"]), *figures, _signed(probes["signal_to_noise"])]


def _probe_words(tasks: Found) -> str:
    corpora = [own["corpora"].get("built") for own in tasks.values()]
    probes = [own["evidence"]["probes"] for own in corpora if own is not None and own["evidence"]["probes"]]
    if not probes:
        return "Not measured."
    first = probes[0]
    kinds = {True: 0, False: 0, None: 0}
    for probe in probes:
        found = probe["signal_to_noise"]["difference"]
        kinds[True if found["low"] > 0 else False if found["high"] < 0 else None] += 1
    return (
        f"Under {first['model']} ({first['dtype']}) before training, {first['directions']} directions, eps "
        f"{first['eps']:g}; both texts of a row along the same directions; differences after less before. Rewritten "
        f"rows give steadier estimates (signal to noise of a batch of {first['batch_size']}, interval above 0) on "
        f"{kinds[True]} tasks, noisier ones on {kinds[False]}; open on {kinds[None]}. No correction for several tasks."
    )


def _searches(tasks: Found) -> list[str]:
    rows = []
    for task, own in tasks.items():
        if len(own["corpora"]) < 2:
            continue
        for name, corpus in own["corpora"].items():
            probes = corpus["evidence"]["probes"]
            measured = ["–"] * 3
            if probes is not None:
                wanted = (_named(probes["figures"], "variance of g"), _named(probes["figures"], "|curvature|"))
                measured = [*wanted, _signed(probes["signal_to_noise"])]
            cost = f"{corpus['calls']} calls, {corpus['measured_forwards']} passes"
            chosen = f"{corpus['accepted']} of {corpus['rows']}, {corpus['identical']} unchanged"
            rows.append([task, name, corpus["search"] or "one rewrite a row", cost, chosen, *measured])
    return _table(
        "6. Search against the paper's procedure and the paraphrase control",
        (
            "task",
            "corpus",
            "what is kept",
            "cost",
            "accepted",
            "variance of g",
            "abs. curvature",
            "log signal to noise",
        ),
        rows or [["–"]],
        "`built`: the paper's procedure, one rewrite a row. `-first`: several rewrites, as many calls as the search, "
        "the first that passes is kept. `-search`: the one is kept whose variance of g over directions is lowest on "
        "training rows. `paraphrase`: the control's template. The search is measured by what it selects on, though "
        "along other directions: a lower variance shows that it does what it is told, not that training gains by it.",
    )
