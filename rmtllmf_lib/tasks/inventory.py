"""What there is of the paper's eight data sets: each is looked for, read, counted, and compared with its pin.

A pin is the fingerprint of a task's images, labels and splits, written down when they were first read. It tells later,
or on another machine, whether results rest on the same data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.assemble import RawTask, assemble_task
from rmtllmf_lib.tasks.folder import read_folder
from rmtllmf_lib.tasks.prompts import PROMPTS
from rmtllmf_lib.tasks.vision import SOURCES, missing_paths, read_data_set
from rmtllmf_lib.validated import validated_call

# Training (validation included) and test images, as their authors give them; one number where the split is ours.
OFFICIAL: Mapping[str, tuple[int, ...]] = {
    "cars": (8144, 8041),
    "dtd": (3760, 1880),  # train and val of partition 1, its test
    "eurosat": (27000,),
    "gtsrb": (26640, 12630),
    "mnist": (60000, 10000),
    "resisc45": (31500,),
    "sun397": (19850, 19850),  # partition 1
    "svhn": (73257, 26032),
}
EIGHT = tuple(OFFICIAL)
STATES = ("complete", "other size", "incomplete", "missing", "damaged")

_RESISC45 = (
    "Get NWPU-RESISC45 (Cheng et al., 2017), with the split that you want to compare with, and put the images into "
    "resisc45/train/<class>/ and resisc45/test/<class>/."
)


@dataclass(frozen=True)
class Holding:
    """What there is of one data set.

    Attributes
    ----------
    state : str
        One of `STATES`: "other size" is readable, but not what its authors count.
    classes, train, test : int
        As read, validation among train; 0 where nothing could be read.
    fingerprint : str
        Of all images, labels and splits; empty if they were not read.
    remedy : str
        What to get and where to put it; empty for a complete one.
    """

    task: str
    state: str
    classes: int = 0
    train: int = 0
    test: int = 0
    fingerprint: str = ""
    remedy: str = ""

    __repr__ = short_repr


@validated_call
def inspect(
    name: str, root: str | Path, *, contents: bool = True, sizes: Mapping[str, tuple[int, ...]] = OFFICIAL
) -> Holding:
    """What there is of a data set below the root.

    Parameters
    ----------
    name : str
        One of `EIGHT`. One that torchvision reads may also lie as a folder of images, `root/<name>/train/<class>`.
    root : path
    contents : bool
        Read every file for the fingerprint; False only counts, in seconds.
    sizes : mapping of str to ints
        The expected numbers of images.

    Raises
    ------
    InputError
        for an unknown name, or one without expected numbers.
    """
    one_of(name, EIGHT, "data set")
    if name not in sizes:
        raise InputError(f"sizes has no {name!r}: expected the numbers of images of each data set that is looked at")
    place = Path(root).expanduser()
    as_folder = (place / name / "train").is_dir() and (place / name / "test").is_dir()
    if not as_folder:
        absent = [f"{name}/train", f"{name}/test"] if name == "resisc45" else missing_paths(SOURCES[name], place)
        remedy = _RESISC45 if name == "resisc45" else SOURCES[name].get
        if absent:
            whole = name == "resisc45" or len(absent) == len(SOURCES[name].needs)
            return Holding(name, "missing" if whole else "incomplete", remedy=f"{', '.join(absent)}: {remedy}")
    try:
        raw = read_folder(place / name, name) if as_folder else read_data_set(name, place)
        found = assemble_task(raw).fingerprint if contents else ""
    except InputError as error:
        return Holding(name, "damaged", remedy=str(error))
    return _counted(name, raw, found, sizes[name])


def _counted(name: str, raw: RawTask, found: str, expected: tuple[int, ...]) -> Holding:
    counts = (len(raw.train), len(raw.test))
    compared = counts if len(expected) == 2 else (sum(counts),)
    numbers = (len(raw.class_names), *counts)
    if compared == expected:
        return Holding(name, "complete", *numbers, found)
    wanted = " + ".join(f"{count:,}" for count in expected)
    remedy = (
        f"{PROMPTS[name].title} has {wanted} images, and {' + '.join(f'{count:,}' for count in compared)} are there: "
        "unpack the archive again, or go on with what is there, as data of your own"
    )
    return Holding(name, "other size", *numbers, found, remedy)


@validated_call
def pin_state(holding: Holding, pins: Mapping[str, str]) -> str:
    """How a data set compares with its pin: "as pinned", "CHANGED", "new", or "" where its files were not read."""
    if not holding.fingerprint:
        return ""
    if holding.task not in pins:
        return "new"
    return "as pinned" if pins[holding.task] == holding.fingerprint else "CHANGED"
