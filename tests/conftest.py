from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random model; read only."""
    from optaware.models import tiny_model

    return tiny_model(tmp_path_factory.mktemp("tiny-model"))
