"""`data rewrite`, `evidence` and `export` as a curator uses them: no study file, no key anywhere."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from optaware.cli._app import invoke
from optaware.errors import EndpointError, InputError

KEY = "sk-canary-0123456789abcdef"


def _loopback():
    path = Path(__file__).parents[1] / "loopback.py"
    spec = importlib.util.spec_from_file_location("loopback_for_cli", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


loopback = _loopback()


def said(body):
    if "not the same" in body["messages"][0]["content"]:
        return "same"
    words = body["messages"][-1]["content"].split(":", 1)[-1].split()
    return " ".join([words[-1], *words[:-1], "indeed"])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A task of the user's own with 60 rows, and a folder to work in."""
    task = tmp_path / "mail.yaml"
    task.write_text(
        "name: mail\nversion: '1'\ndescription: A mail and the desk that it belongs to.\n"
        "role: the mail as the customer wrote it\ncitation: none\nlicence: CC0\nspan: mail\nlabel: desk\n"
        "fields: {mail: text, desk: text}\noptions: [orders, repairs]\nprompt: '{{ mail }} This belongs to'\n"
        "splits: {train: rows.jsonl}\n"
    )
    things = ["lamp", "kettle", "radio", "clock", "chair"]
    rows = [
        {"mail": f"Where is the {things[n % 5]} that I paid for on day {n + 2}?", "desk": ["orders", "repairs"][n % 2]}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_KEY", KEY)
    return tmp_path


def no_key(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_corpus_from_one_command(place, capsys):
    with loopback.LoopbackServer(answer=said) as server:
        command = ["data", "rewrite", "mail.yaml", "--llm", "m", "--base-url", server.base_url, "--key-env", "SHOP_KEY"]
        command += ["--price", "1", "10", "-o", "made", "--quiet"]
        assert invoke([*command, "--dry-run"]) == 0
        assert server.count == 0
        assert not Path("made").exists()
        assert invoke(command) == 0
        assert server.count == 180
        assert invoke([*command, "--concurrency", "2", "--budget-usd", "9"]) == 0  # finished: nothing is asked
        assert server.count == 180
        assert server.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"
    out = capsys.readouterr().out
    assert "60 of 60 rewrites accepted (100.0 %, 95 % interval 94.0 to 100.0)" in out
    assert "180 calls (0 cached)" in out
    card = json.loads((place / "made" / "card.json").read_text())
    assert card["cost_usd"] == pytest.approx(180 * (10 + 50) / 1e6)
    assert "no leak" in (place / "made" / "evidence.md").read_text().lower()
    assert invoke(["data", "evidence", "made", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == 60
    assert invoke(["data", "export", "made", "-o", "out", "--format", "jsonl"]) == 0
    first = json.loads((place / "out" / "train.jsonl").read_text().splitlines()[0])
    assert first["prompt"].endswith("This belongs to")
    assert first["completion"].strip() == "orders"
    no_key(place)


def test_a_corpus_below_the_level_says_so(place, capsys):
    def strict(body):
        judged = "not the same" in body["messages"][0]["content"]
        return "not the same" if judged and "lamp" in body["messages"][-1]["content"] else said(body)

    with loopback.LoopbackServer(answer=strict) as server:
        base = ["data", "rewrite", "mail.yaml", "--llm", "m", "--base-url", server.base_url, "--key-env", "SHOP_KEY"]
        assert invoke([*base, "-o", "made", "--quiet"]) == 0
    assert "Below the 90 % asked for: 12 rows are the original ones" in capsys.readouterr().out
    assert "**Not accepted.**" in (place / "made" / "README.md").read_text()


def test_what_is_wrong_is_said_before_anything_is_asked(place):
    with pytest.raises(InputError, match="rewriter-missing"):
        invoke(["data", "rewrite", "mail.yaml", "-o", "made"])
    with pytest.raises(InputError, match="prefer"):
        invoke(["data", "rewrite", "mail.yaml", "--llm", "m", "--search", "3", "-o", "made"])
    with pytest.raises(InputError, match="protocol-sizes"):
        invoke(["data", "rewrite", "mail.yaml", "--llm", "m", "--protocol", "oat", "-n", "3"])
    with pytest.raises(InputError, match="too-few-rows"):
        invoke(["data", "rewrite", "mail.yaml", "--llm", "m", "-n", "61"])


def test_a_refused_key_is_not_shown(place, capsys):
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(status=401, body=body)) as server:
        base = ["data", "rewrite", "mail.yaml", "--llm", "m", "--base-url", server.base_url, "--key-env", "SHOP_KEY"]
        with pytest.raises(EndpointError) as caught:
            invoke([*base, "-o", "made"])
    assert "SHOP_KEY" in str(caught.value)
    shown = capsys.readouterr()
    assert KEY not in str(caught.value) + shown.out + shown.err
    no_key(place)


def test_a_search_measures_with_the_model_to_be_trained(place, capsys, tmp_path):
    from optaware._io import read_jsonl
    from optaware.models import tiny_model

    model = tiny_model(tmp_path / "tiny")

    def varied(body):
        return said(body) + " so" * body["seed"] if said(body) != "same" else "same"

    with loopback.LoopbackServer(answer=varied) as server:
        command = ["data", "rewrite", "mail.yaml", "--llm", "m", "--base-url", server.base_url, "--key-env", "SHOP_KEY"]
        command += ["-n", "6", "--search", "2", "--prefer", "loss", "--model", str(model), "-o", "made", "--quiet"]
        assert invoke(command) == 0
        assert server.count == 6 * 2 * 3
    measured = read_jsonl(place / "made" / "measures.jsonl")
    assert [row["attempt"] for row in measured] == [None, 0, 1] * 6
    for number, decision in enumerate(read_jsonl(place / "made" / "decisions.jsonl")):
        scores = [row["score"] for row in measured[3 * number + 1 : 3 * number + 3]]
        assert decision["attempt"] == scores.index(min(scores))
    page = (place / "made" / "README.md").read_text()
    assert "of 2 rewrites the one with the lowest loss under tiny" in page
    assert str(tmp_path) not in page
    assert json.loads((place / "made" / "card.json").read_text())["measured_forwards"] == 18 * 18
    capsys.readouterr()
    assert invoke(["data", "evidence", "made", "--model", str(model), "--directions", "2", "--json"]) == 0
    probes = json.loads(capsys.readouterr().out)["probes"]
    assert probes["rows"] == 6
    assert {figure["name"] for figure in probes["figures"]} >= {"loss", "|g|", "variance of g", "curvature"}
    assert "Signal to noise" in (place / "made" / "evidence.md").read_text()
    assert str(tmp_path) not in (place / "made" / "evidence.md").read_text()


def trial(place, rows, below="build/phase-3/round-1"):
    """A small corpus as a template build leaves them: of some rows, with a protocol that does not say which."""
    from optaware.data import build_corpus, make_corpus_spec
    from optaware.llm import scripted_chat
    from optaware.records import ChatModelRef, DataSource, Protocol, short_id
    from optaware.tasks import get_task, load_rows

    task, ref = get_task("mail.yaml"), ChatModelRef(provider="scripted", model="none")
    examples = [load_rows(task, "train").examples[n] for n in rows]
    spec = make_corpus_spec(
        task=task,
        task_name=str(place / "mail.yaml"),
        protocol=Protocol(name="free"),
        variant="trial",
        template="oat",
        examples=examples,
        rewriter=ref,
        judge=ref,
    )
    rewriter = scripted_chat(
        lambda request: " ".join(["Well,", *request.messages[-1].content.split(":", 1)[-1].split()])
    )
    folder = place / below / f"trial-{short_id(spec)}"
    source = DataSource(kind="local", location="here", sha256={})
    build_corpus(
        spec,
        task,
        examples,
        rewriter=rewriter,
        judge=scripted_chat(lambda request: "same"),
        folder=folder,
        source=source,
    )
    return folder


def test_a_trial_of_a_template_is_a_corpus_for_evidence_and_export(place, capsys):
    folder = trial(place, [7, 3, 41, 12])
    assert invoke(["data", "evidence", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 4
    assert (folder / "evidence.md").is_file()
    assert invoke(["data", "export", str(folder), "-o", "out", "--format", "jsonl"]) == 0
    (place / "build" / "spec.json").write_text("{}")
    with pytest.raises(InputError, match="corpus-is-build") as caught:
        invoke(["data", "evidence", "build"])
    assert str(folder.relative_to(place)) in str(caught.value)


def test_rows_that_have_changed_since_are_said_to_have(place):
    folder = trial(place, [7, 3, 41, 12])
    rows = (place / "rows.jsonl").read_text()
    (place / "rows.jsonl").write_text(rows.replace("on day 9?", "on day nine?"))
    with pytest.raises(InputError, match=r"their contents differ.*corpus-rows-differ"):
        invoke(["data", "evidence", str(folder)])
    (place / "rows.jsonl").write_text("".join(rows.splitlines(keepends=True)[:20]))
    with pytest.raises(InputError, match=r"1 of them are not in it.*corpus-rows-differ"):
        invoke(["data", "evidence", str(folder)])


def test_a_folder_that_is_none_is_said_to_be(place):
    with pytest.raises(InputError, match="corpus-missing"):
        invoke(["data", "evidence", str(place / "nowhere")])
    with pytest.raises(InputError, match="corpus-missing"):
        invoke(["data", "evidence", "*[", "--store", "none"])
