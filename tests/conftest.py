"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from places import ROOT
from slow import is_slow

if TYPE_CHECKING:  # torch is for the tests that need it
    from rmtllmf_lib.model.backbone import Backbone
    from rmtllmf_lib.tasks.base import Task
    from rmtllmf_lib.training.heads import Head


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.option.markexpr == "not slow" and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images; the tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("RMTLLMF_REAL_DATA", ROOT.parent / "shared" / "data" / "real"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set RMTLLMF_REAL_DATA to a folder that holds some")
    return folder


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's artifacts, and from the Makefile's limit to the processes of a study."""
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path_factory.getbasetemp() / "store"))
    monkeypatch.delenv("RMTLLMF_MAX_WORKERS", raising=False)  # tests of several processes start several


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Hold torch to one thread: the last bits of a training run depend on their number."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """An untrained base that is fine-tuned in a moment; files that need another one have their own."""
    from small import small_backbone

    return small_backbone(layers=2)


@pytest.fixture(scope="session")
def task() -> Task:
    """Colours, which are learnt in a few steps."""
    from small import small_task

    return small_task()


@pytest.fixture(scope="session")
def head(backbone: Backbone, task: Task) -> Head:
    """Of `task`, on the features of `backbone`."""
    from rmtllmf_lib.training.heads import build_head

    return build_head(backbone, task, "prototype")
