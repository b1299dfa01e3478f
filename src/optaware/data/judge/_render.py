"""A calibration in words and tables, honest about what so many pairs can show."""

from __future__ import annotations

from optaware.records import Interval, JudgeCalibration, JudgeMeasure

__all__ = ["render_calibration", "verdict_words"]


def verdict_words(found: JudgeCalibration) -> str:
    """What the measurement says of the judge, in two or three sentences."""
    final, target = found.final, f"{100 * found.target:.0f} %"
    share = f"{final.right} of {final.pairs} pairs judged as people do ({_percent(final.accuracy)})"
    if found.reached and found.shown == "above":
        text = f"Passed: {share}. The whole interval is above {target}."
    elif found.reached:
        text = (
            f"Passed by the paper's rule ({target} of the pairs): {share}. That the judge is right on {target} of "
            f"further such pairs is not shown: the interval reaches down to {100 * final.accuracy.low:.0f} %."
        )
    elif found.shown == "below":
        text = f"Not passed: {share}. The whole interval is below {target}."
    else:
        text = (
            f"Not passed: {share}, under the {target} asked for. The interval reaches up to "
            f"{100 * final.accuracy.high:.0f} %, so {target} on further pairs is not ruled out either."
        )
    if found.shown == "open":
        text += (
            f" About {found.pairs_needed} measured pairs with the same share would settle it."
            if found.pairs_needed is not None
            else " No affordable number of pairs with this share would settle it."
        )
    if final.right <= round(final.always_same * final.pairs):
        text += (
            f" A judge that lets everything through would be right on {100 * final.always_same:.0f} % of these pairs: "
            "this one is no better than none."
        )
    return text


def render_calibration(found: JudgeCalibration) -> str:
    """The report of a calibration, in Markdown."""
    lines = [
        f"# Judge of {found.task}",
        "",
        verdict_words(found),
        "",
        f"Judge: {', '.join(found.judges)}. Version `{found.template_id[:12]}` (the packaged one: "
        f"`{found.start_id[:12]}`). Labelled by {', '.join(found.labellers) or 'unknown'}: {found.pairs} pairs, "
        f"{found.tuning} to refine on, {found.measured} to measure on (no row is in both)"
        + (f"; {len(found.left_out)} left out because labellers differ" if found.left_out else "")
        + ".",
        "",
        "## Measured on pairs that refining never saw",
        "",
        *_measures((found.start, found.final)),
        "",
        "An abstention counts as a rejection. *Let through wrongly*: share of the pairs that are not the same. "
        "*Rejected wrongly*: share of those that are. Intervals are 95 % (Wilson); exact (Clopper–Pearson) for the "
        "judge: "
        f"{_span(found.final.exact)}.",
        "",
        *_table(found.final),
        "",
        "## Other ways of counting the same ballots",
        "",
        *_measures(found.options),
        "",
        "To pick the best row here is to pick on the measured pairs: its figure is then too good. Choose with "
        "`--both-orders`, `--rule` and further judges before measuring.",
        "",
        "## Refining",
        "",
        *_rounds(found),
        f"Ended: {found.ended}.",
    ]
    if found.attacks:
        lines += ["", "## Orders to the judge in the rewrite", "", *_attacks(found)]
    lines += [
        "",
        f"{found.calls} calls ({found.cached_calls} answered by the cache), {found.prompt_tokens} + "
        f"{found.completion_tokens} tokens, "
        + (f"{found.cost_usd:.4f} USD, " if found.cost_usd is not None else "")
        + f"{found.wall_s:.0f} s.",
    ]
    return "\n".join(lines) + "\n"


def _measures(found: tuple[JudgeMeasure, ...]) -> list[str]:
    rows = [
        "| | right | accuracy | let through wrongly | rejected wrongly | balanced | abstained | calls a pair |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        abstained = sum(row["abstained"] for row in each.table.values())
        balanced = "–" if each.balanced is None else f"{100 * each.balanced:.1f} %"
        wrongly = f"{_percent(each.passed_wrongly)} | {_percent(each.rejected_wrongly)}"
        rows.append(
            f"| {each.name} | {each.right} of {each.pairs} | {_percent(each.accuracy)} | {wrongly} | {balanced} | "
            f"{abstained} | {each.calls_per_pair:.0f} |"
        )
    return rows


def _table(found: JudgeMeasure) -> list[str]:
    rows = ["| people say | judge: same | judge: not the same | judge abstains |", "|---|---|---|---|"]
    for name, table in (("both questions", found.table), *found.questions.items()):
        for label, row in table.items():
            rows.append(f"| {name}: {label} | {row['same']} | {row['not the same']} | {row['abstained']} |")
    return rows


def _rounds(found: JudgeCalibration) -> list[str]:
    if not found.rounds:
        return []
    rows = ["| round | pairs | before | tried | kept |", "|---|---|---|---|---|"]
    for each in found.rounds:
        tried = ", ".join(f"{name} {100 * share:.0f} %" for name, share in each.tried.items())
        rows.append(
            f"| {each.number} | {each.pairs} | {100 * each.before:.0f} % | {tried} | {each.chosen or 'nothing'} |"
        )
    return [*rows, ""]


def _attacks(found: JudgeCalibration) -> list[str]:
    rows = ["| appended | let through | without it | caught by the gate's checks |", "|---|---|---|---|"]
    for each in found.attacks:
        text = each.order.replace("\n", "⏎").replace("|", "\\|").replace("<", "&lt;")
        rows.append(
            f"| {text} | {each.passed} of {each.pairs} | {each.passed_without} of {each.pairs} | "
            f"{each.caught} of {each.pairs} |"
        )
    return rows


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def _percent(interval: Interval | None) -> str:
    return (
        "–"
        if interval is None
        else f"{100 * interval.estimate:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    )
