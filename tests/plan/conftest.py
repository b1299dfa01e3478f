"""Pages as they are published: rendered here, or the real ones where the checkout has them beside it."""

from pathlib import Path

import pytest

from optaware.plan import parse_plan, render_plan
from optaware.records import AblationEntry, PlanDocument, PlanValue

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"

ROWS = [
    '{"name": "SPSA samples", "ablated_part": "Number of SPSA samples (n)", "action": "REPLACE", '
    '"replacement": [1, 4, 8], "metrics": ["accuracy", "F1 (macro, micro)"]}',
    '{"name": "No seed trick", "ablated_part": "In-place perturbation \\u2013 seed trick", "action": "REMOVE", '
    '"replacement": null, "metrics": ["peak memory"]}',
    '{"name": "Scale", "ablated_part": "Perturbation scale (\\u03b5)", "action": "REPLACE", '
    '"replacement": [1e-3, "10%", "a=1", null, true], "metrics": ["stability", "loss"]}',
]


@pytest.fixture
def entry():
    """Makes an entry whose values are typed from text as on a page."""

    def made(part="x", action="REPLACE", values=None, name=None, metrics=("accuracy",)):
        replacement = None if values is None else tuple(PlanValue.read(str(value)) for value in values)
        return AblationEntry(
            name=name or f"About {part}", ablated_part=part, action=action, replacement=replacement, metrics=metrics
        )

    return made


@pytest.fixture
def document() -> PlanDocument:
    read = parse_plan("\n".join(ROWS))
    facts = {"model": "o3-mini", "paper": "mezo", "task": "reviewer"}
    trace = "Why — because “ε” matters.\n\n### Not an entry\n- **Action**: talk"
    return read.model_copy(update={"page": read.page.model_copy(update=facts), "trace": trace})


@pytest.fixture
def page(document) -> str:
    return render_plan(document, "page")


@pytest.fixture(scope="session")
def seeds() -> dict[str, bytes]:
    if not SEEDS.is_dir():
        pytest.skip("the published pages are not beside this checkout")
    return {path.name[:3]: path.read_bytes() for path in sorted(SEEDS.glob("00[0-3]_*.txt"))}
