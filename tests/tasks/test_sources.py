from pathlib import Path

import pytest
import torch

from image_files import write_folder
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import TASK_NAMES
from rmtllmf_lib.tasks.sources import load_task


def test_every_procedural_name_can_be_drawn() -> None:
    for name in TASK_NAMES:
        assert load_task(name, n_train=40, n_test=20).name == name


def test_one_function_for_every_source(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"cat": 5, "dog": 5}, {"cat": 2, "dog": 2})
    folder = load_task("pets", "folder", root=tmp_path, image_size=16, n_train=4, n_test=2)
    drawn = load_task("digits", image_size=16, n_train=40, n_test=20)
    for task in (folder, drawn):
        assert task.train.inputs.shape[1:] == (3, 16, 16)
        assert task.train.inputs.dtype == torch.uint8
    assert (folder.source, drawn.source) == ("folder", "procedural")


def test_a_size_changes_the_fingerprint_of_drawn_tasks() -> None:
    tasks = [load_task("digits", image_size=size, n_train=40, n_test=20) for size in (None, 16, 24)]
    assert len({task.fingerprint for task in tasks}) == 3
    assert tasks[0].train.inputs.shape[1:] == (3, 32, 32)
    assert torch.equal(tasks[0].test.labels, tasks[1].test.labels)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mnist", "internet"), {}, "source is 'internet'"),
        (("mnist", "torchvision"), {}, "source 'torchvision' reads files: give root"),
        (("pets", "folder"), {}, "source 'folder' reads files: give root"),
        (("digits",), {"root": "/data"}, "root is /data but procedural tasks are drawn"),
        ((None, "torchvision"), {"root": "/data"}, "needs a task name"),
        ((None,), {}, "needs a task name"),
        (("mnist",), {}, "mnist"),
        (("cars",), {"seed": 2**64}, "seed is 18446744073709551616"),
        (("mnist", "torchvision"), {"root": "/data", "seed": -1}, "seed is -1"),
        (("pets", "folder"), {"root": "/data", "seed": None}, "seed is None"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_task(*arguments, **options)
