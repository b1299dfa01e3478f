"""Where the full data sets lie: `OPTAWARE_DATA_DIR`, or `../shared/data` beside the checkout (as in CI)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """The folder of the full data sets; None where there is none."""
    places = [os.environ.get("OPTAWARE_DATA_DIR"), Path(__file__).parents[3] / "shared" / "data"]
    return next((Path(place) for place in places if place and Path(place).is_dir()), None)


@pytest.fixture(scope="session")
def full_data(shared_data: Path | None) -> Path:
    """The same, for tests that need it."""
    if shared_data is None:
        pytest.skip("the full data sets are not beside the checkout")
    return shared_data
