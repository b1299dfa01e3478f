from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a shared machine happens to be says nothing about the code: no deadlines, no complaints about slow draws.
settings.register_profile("optaware", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("optaware")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random model; read only."""
    from optaware.models import tiny_model

    return tiny_model(tmp_path_factory.mktemp("tiny-model"))
