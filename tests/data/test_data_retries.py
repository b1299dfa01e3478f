"""Further tries for rejected rows, and choosing among several rewrites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from optaware._io import read_jsonl
from optaware.data import HeldOut, load_corpus, make_corpus_spec
from optaware.errors import EndpointError, InputError
from optaware.records import ChatModelRef, ChatReply, ChatRequest, Example, ModelRef, Protocol, SearchSpec

MakeBench = Callable[..., Any]
WARM = ChatModelRef(provider="scripted", model="test", temperature=0.8)


def respec(made: Any, **changes: Any) -> Any:
    made.spec = make_corpus_spec(
        task=made.task,
        task_name=made.task.name,
        protocol=Protocol(),
        variant="oat",
        template="oat",
        examples=made.examples,
        rewriter=WARM,
        judge=WARM,
        **changes,
    )
    return made


def reworded(text: str, extra: str = "indeed") -> str:
    words = text.split()
    return " ".join([words[-1], *words[:-1], extra])


def asked_for(request: ChatRequest) -> tuple[str, int, int]:
    """What a request asks, which try, which row."""
    what, _, name = request.key.partition(":")
    kind, _, attempt = what.partition("#")
    return kind, int(attempt or 0), int(name.rsplit("/", 1)[-1])


def test_a_rejected_row_is_tried_again_with_the_judges_reason(bench: MakeBench) -> None:
    made = respec(bench("copa"), retries=2)
    told: dict[str, str] = {}

    def reply(request: ChatRequest) -> str:
        kind, attempt, row = asked_for(request)
        told[request.key] = request.messages[-1].content
        if kind == "rewrite":
            return "" if (row, attempt) == (2, 0) else reworded(made.span(request), f"indeed{'x' * attempt}")
        if kind == "reason":
            return "The second\n text says   nothing of a shop."
        return "not the same" if (row == 0 and attempt == 0) or (row == 1 and kind == "role") else "same"

    card = made.build(reply)
    assert (card.accepted, card.rejected, card.failed) == (3, 1, 0)
    assert card.attempts == {"1": 1, "2": 2, "3": 1}
    assert card.reasons == {"accepted": 3, "judge:role": 1}
    assert '"The second text says nothing of a shop."' in told["rewrite#1:copa/train/0"]
    # The judge of `role` sees the right answer, so what it would say never reaches the rewriter.
    assert "reason:copa/train/1" not in told
    assert "no longer plays the same part" in told["rewrite#1:copa/train/1"]
    assert "holds no words" in told["rewrite#1:copa/train/2"]
    assert [key for key in told if key.startswith("reason")] == ["reason:copa/train/0"]
    decisions = read_jsonl(made.folder / "decisions.jsonl")
    assert [(row["attempts"], row["attempt"]) for row in decisions] == [(2, 1), (3, 2), (2, 1), (1, 0)]
    assert card.calls == len(made.asked) == len(told)
    rows = load_corpus(made.folder, made.task, made.examples)
    assert made.task.span_text(rows[0]).endswith("indeedx")
    assert rows[1] == made.examples[1]


def test_tries_resume_at_any_reply_with_the_same_files(bench: MakeBench, tmp_path: Path) -> None:
    made = respec(bench("copa"), retries=1)

    def reply(request: ChatRequest) -> str:
        kind, attempt, row = asked_for(request)
        if kind == "rewrite":
            return reworded(made.span(request), f"indeed{'x' * attempt}")
        return "not the same" if row % 2 and attempt == 0 else "same"

    whole = made.build(reply, folder=tmp_path / "whole")
    total = len(made.asked)
    names = ("candidates.jsonl", "verdicts.jsonl", "reasons.jsonl", "decisions.jsonl", "train.jsonl")
    for step in range(0, total, 3):
        left = step
        made.asked.clear()

        def dying(request: ChatRequest) -> str:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return reply(request)

        with pytest.raises(KeyboardInterrupt):
            made.build(dying, folder=tmp_path / str(step))
        made.asked.pop()
        card = made.build(reply, folder=tmp_path / str(step))
        assert len(made.asked) == len(set(made.asked)) == total
        assert card.model_copy(update={"wall_s": 0}) == whole.model_copy(update={"wall_s": 0})
        for name in names:
            assert (tmp_path / str(step) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Lengths:
    """Prefers longer texts; counts what it is asked."""

    id = "lengths"
    forwards_per_row = 3

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, rows: Sequence[Example]) -> list[Mapping[str, float | None]]:
        self.seen += [row.fields["premise"] for row in rows]
        return [{"loss": -float(len(row.fields["premise"]))} for row in rows]


def search(prefer: str = "loss") -> SearchSpec:
    model = None if prefer == "first" else ModelRef(name="m")
    return SearchSpec.model_validate({"candidates": 3, "prefer": prefer, "model": model})


def sampled(made: Any) -> Callable[[ChatRequest], str]:
    def reply(request: ChatRequest) -> str:
        kind, attempt, row = asked_for(request)
        if kind == "rewrite":
            return reworded(made.span(request), "indeed" + "x" * attempt)
        return "not the same" if attempt == 2 and row == 1 else "same"

    return reply


def test_a_search_keeps_what_the_measurement_prefers_among_what_passes(bench: MakeBench) -> None:
    made = respec(bench("copa"), search=search())
    measure = Lengths()
    card = made.build(sampled(made), measure=measure)
    rows = load_corpus(made.folder, made.task, made.examples)
    ends = [made.task.span_text(row).split()[-1] for row in rows]
    assert ends == ["indeedxx", "indeedx", "indeedxx", "indeedxx"]
    assert card.accepted == 4
    assert len(measure.seen) == 4 + 11
    assert card.measured_forwards == 15 * 3
    assert "lowest loss" in (card.search or "")
    assert len([key for key in made.asked if key.startswith("rewrite")]) == 12
    # Asked for again, nothing is measured or asked a second time.
    (made.folder / "DONE").unlink()
    made.asked.clear()
    again = Lengths()
    assert made.build(sampled(made), measure=again).model_copy(update={"wall_s": 0}) == card.model_copy(
        update={"wall_s": 0}
    )
    assert again.seen == made.asked == []


def test_the_control_of_equal_cost_keeps_the_first_that_passes(bench: MakeBench) -> None:
    made = respec(bench("copa"), search=search("first"))
    card = made.build(sampled(made))
    rows = load_corpus(made.folder, made.task, made.examples)
    assert [made.task.span_text(row).split()[-1] for row in rows] == ["indeed"] * 4
    assert card.measured_forwards == 0
    assert len([key for key in made.asked if key.startswith("rewrite")]) == 12


def test_a_search_needs_a_warm_rewriter_and_something_that_measures(bench: MakeBench) -> None:
    made = bench("copa")
    with pytest.raises(InputError, match="search-greedy"):
        make_corpus_spec(
            task=made.task,
            task_name="copa",
            protocol=Protocol(),
            variant="oat",
            template="oat",
            examples=made.examples,
            rewriter=ChatModelRef(model="m"),
            judge=ChatModelRef(model="m"),
            search=search(),
        )
    with pytest.raises(InputError, match="measure-missing"):
        respec(made, search=search()).build(sampled(made))


def test_rows_near_held_out_ones_are_refused(bench: MakeBench) -> None:
    held_out = HeldOut(["The shop was closed early by the tired old baker of the town."])
    made = respec(bench("copa"), held_out=held_out)
    near = "The shop was closed early by the tired old baker of the towns."

    def reply(request: ChatRequest) -> str:
        kind, _, row = asked_for(request)
        if kind == "rewrite":
            return near if row == 0 else reworded(made.span(request))
        return "same"

    card = made.build(reply, held_out=held_out)
    assert card.reasons == {"accepted": 3, "check:near-duplicate": 1}
    (made.folder / "DONE").unlink()
    with pytest.raises(InputError, match="held-out-changed"):
        made.build(reply)


def test_calls_that_keep_failing_can_be_given_up(bench: MakeBench) -> None:
    made = respec(bench("copa"))

    def reply(request: ChatRequest) -> str | ChatReply:
        if request.key.endswith("/1"):
            return ChatReply(key="", request_id="", model="m", error="gone", error_code="timeout")
        return reworded(made.span(request)) if request.key.startswith("rewrite") else "same"

    with pytest.raises(EndpointError, match="calls-failed"):
        made.build(reply)
    card = made.build(reply, give_up=True)
    assert card.reasons == {"accepted": 3, "call:timeout": 1}
    assert load_corpus(made.folder, made.task, made.examples)[1] == made.examples[1]


def test_a_larger_budget_goes_on_in_the_same_folder(bench: MakeBench) -> None:
    made = respec(bench("copa"))
    made.build(sampled(made))
    (made.folder / "DONE").unlink()
    more = WARM.model_copy(update={"budget_tokens": 10_000, "concurrency": 64})
    made.spec = made.spec.model_copy(update={"rewriter": more, "judge": more})
    made.asked.clear()
    made.build(sampled(made))
    assert made.asked == []
