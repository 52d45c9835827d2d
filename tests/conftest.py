"""Fixtures that more than one test file needs."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the snapshots `openllm-v2` and `openllm-v1-items`."""
    if not (folder := os.environ.get("LRMF_REAL_DATA")):
        pytest.skip("LRMF_REAL_DATA is not set")
    return Path(folder)
