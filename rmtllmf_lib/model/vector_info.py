"""What the file of a task vector says of its making; vectors come from others, so it is checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath

from rmtllmf_lib.arrays import one_of, real_number, seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.embedded.difficulty import HARDEST
from rmtllmf_lib.tasks.sources import NAME, SOURCES
from rmtllmf_lib.validated import validated_call

MAX_TEXT = 10_000  # characters of one entry
MAX_DRAWN = 100_000  # images that a vector may ask to have drawn; the default is 4000

_COUNTS = {"n_train": 10**9, "classes": 10**6, "train_images": 10**9, "test_images": 10**9}
_RATES = ("accuracy", "base_accuracy", "validation_accuracy")
_CHOICES = {"head": ("text", "prototype"), "source": SOURCES}


@validated_call
def checked_info(info: Mapping[str, str], path: object) -> Mapping[str, str]:
    """The metadata of a received vector, if every entry that is used later is what it should be.

    Parameters
    ----------
    info : mapping of str to str
        Empty texts and unknown entries are accepted.
    path : path
        Of the file, for the message.

    Raises
    ------
    InputError
        for a long text or one with control characters; a task's name that cannot be part of a file's name; a number
        that is none or out of bounds, such as a count of images to draw; an unknown head or source; a folder that is
        not below the current one.
    """
    for key, value in info.items():
        name = f"{path} says that its {key}"
        if len(value) > MAX_TEXT or not (key + value).isprintable():
            raise InputError(f"{name[:300]!r} is {value[:60]!r}: expected up to {MAX_TEXT} printable characters")
        if not value:
            continue
        if key in _COUNTS:
            drawn = key == "n_train" and info.get("source", "procedural") == "procedural"
            whole_number(_number(value), name, 1, MAX_DRAWN if drawn else _COUNTS[key])
        elif key in ("data_seed", "seed"):
            seed_number(_number(value), name)
        elif key == "difficulty":
            real_number(_number(value), name, minimum=0, maximum=HARDEST)
        elif key in _RATES:
            real_number(_number(value), name, minimum=0, maximum=1)
        elif key in _CHOICES:
            one_of(value[:80], _CHOICES[key], name)
        elif key == "task" and not NAME.fullmatch(value):
            raise InputError(f"{name} is {value[:80]!r}: expected letters, digits, _ . + -")
        elif key == "folder" and not below_current(value):
            raise InputError(
                f"{name} is {value[:80]!r}: expected a folder below the current one; if you trust it, give --task"
            )
    return info


@validated_call
def below_current(folder: str) -> bool:
    """Whether a path leads to a place below the current folder, whatever the system, by its text alone."""
    paths = PurePosixPath(folder), PureWindowsPath(folder)
    outside = (path.anchor or ".." in path.parts or str(path).startswith("~") for path in paths)
    return not any(outside)


def _number(text: str) -> int | float | str:
    """The number that a short text stands for, or the start of the text."""
    if re.fullmatch(r"-?\d{1,20}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d{1,10}(\.\d{1,17})?|nan", text) else text[:80]
