"""Decoded images on the disk: the same bytes as lazy ones, made once, made again when damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

import rmtllmf_lib.training.decoded as module
from image_files import write_image
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.decoded import with_decoded
from rmtllmf_lib.training.evaluate import predictions, prepare
from small import small_backbone, small_head, small_task


def photographs(root: Path, colour: int = 0) -> Task:
    """Two classes of files, of several sizes."""
    for part, count in (("train", 20), ("test", 6)):
        for label in range(2):
            for i in range(count):
                write_image(root / f"pets/{part}/{'ab'[label]}/{i}.png", label + colour, shade=i, size=(40 + i, 50))
    return load_task("pets", "folder", root=root)


def test_the_bytes_are_those_of_lazy_images(tmp_path: Path) -> None:
    task = photographs(tmp_path)
    kept = with_decoded(task, 32, tmp_path / "cache", smallest=0)
    assert isinstance(task.test.inputs, LazyImages) and isinstance(kept.train.inputs, LazyImages)
    for part in ("validation", "test"):
        lazy, mapped = getattr(task, part), getattr(kept, part)
        assert torch.equal(mapped.inputs, lazy.in_memory(32).inputs)
        assert torch.equal(mapped.labels, lazy.labels)
    assert kept.fingerprint == task.fingerprint
    backbone, head = small_backbone(), small_head(classes=("a", "b"))
    one, other = (predictions(backbone, backbone.weights, t.test, head) for t in (task, kept))
    assert torch.equal(one, other)
    assert prepare(backbone, kept.test).split.inputs.shape == (12, 3, 32, 32)


def test_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = photographs(tmp_path)
    with_decoded(task, 32, tmp_path / "cache", smallest=0)
    monkeypatch.setattr(module, "resize_image", lambda *_: pytest.fail("decoded again"))
    again = with_decoded(task, 32, tmp_path / "cache", smallest=0)
    assert len(again.test) == 12
    assert not [*(tmp_path / "cache").glob("*.lock")]


def test_damaged_and_changed_images_are_decoded_anew(tmp_path: Path) -> None:
    task = photographs(tmp_path)
    kept = with_decoded(task, 32, tmp_path / "cache", smallest=0)
    expected = kept.test.inputs.clone()
    (file,) = (tmp_path / "cache").glob("pets-test-*.npy")
    os.truncate(file, file.stat().st_size - 100)
    assert torch.equal(with_decoded(task, 32, tmp_path / "cache", smallest=0).test.inputs, expected)
    other = with_decoded(photographs(tmp_path, colour=5), 32, tmp_path / "cache", smallest=0)
    assert not torch.equal(other.test.inputs, expected)
    assert len([*(tmp_path / "cache").glob("pets-test-*.npy")]) == 2


def test_changes_in_memory_do_not_reach_the_disk(tmp_path: Path) -> None:
    task = photographs(tmp_path)
    kept = with_decoded(task, 32, tmp_path / "cache", smallest=0)
    expected = kept.test.inputs.clone()
    kept.test.inputs.zero_()
    assert torch.equal(with_decoded(task, 32, tmp_path / "cache", smallest=0).test.inputs, expected)


def test_small_splits_and_arrays_stay_as_they_are(tmp_path: Path) -> None:
    task = photographs(tmp_path)
    assert with_decoded(task, 32, tmp_path / "cache").test is task.test
    small = small_task()
    assert with_decoded(small, 32, tmp_path / "cache", smallest=0).test is small.test
    assert not (tmp_path / "cache").exists()


def test_an_unreadable_image_leaves_no_file(tmp_path: Path) -> None:
    task = photographs(tmp_path)
    (tmp_path / "pets/test/a/0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png"):
        with_decoded(task, 32, tmp_path / "cache", smallest=0)
    assert not [*(tmp_path / "cache").glob("pets-test-*.npy")]


def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = photographs(tmp_path)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        with_decoded(task, 32, tmp_path / "cache", smallest=0)
    assert not [*(tmp_path / "cache").glob("*.npy")]
