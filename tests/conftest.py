"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images; the tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("RMTLLMF_REAL_DATA", ROOT.parent / "shared" / "data" / "real"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set RMTLLMF_REAL_DATA to a folder that holds some")
    return folder


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's artifacts."""
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path_factory.getbasetemp() / "store"))
