"""Read seven public data sets in torchvision's layouts from a root folder; nothing is ever downloaded.

Splits: the official ones of MNIST, GTSRB, SVHN and Stanford Cars; for DTD, train and val of partition 1 for training
and its test for testing; for SUN397, the lists of partition 1 if they lie beside the images. EuroSAT has no official
split, nor has SUN397 without its lists: there a hash of each image's path decides (`pinned_split`), so that an image
stays on its side of the split whatever other files are present.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from scipy.io.matlab import MatReadError
from torch import Tensor
from torchvision import datasets

from rmtllmf_lib.arrays import real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.assemble import Pool, RawTask
from rmtllmf_lib.tasks.base import hash_fraction
from rmtllmf_lib.tasks.images import pixel_limit, require_regular
from rmtllmf_lib.tasks.prompts import EUROSAT, GTSRB_NAMES, PROMPTS, readable_name
from rmtllmf_lib.validated import validated_call

EUROSAT_TEST_FRACTION = 0.2
SUN397_TEST_FRACTION = 0.5  # as in the official partitions

logger = logging.getLogger(__name__)

MAT_ENTRIES = 10**6  # of one variable; the largest official one has 8,144

OFFICIAL = "official split"

# What csv, scipy and torchvision raise for damaged files.
DAMAGED = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    MatReadError,
    zlib.error,
)


@dataclass(frozen=True)
class VisionSource:
    """One data set: its reader, the paths it needs below the root, and where to get them."""

    read: Callable[[Path], RawTask]
    needs: tuple[str, ...]
    get: str

    __repr__ = short_repr


@validated_call
def read_data_set(name: str, root: str | Path) -> RawTask:
    """Read one of the data sets in `VISION_NAMES`.

    Parameters
    ----------
    name : str
    root : path
        The folder that holds all data sets, each in torchvision's layout (`root/MNIST/raw`, `root/gtsrb`,
        `root/eurosat`, `root/svhn`, `root/dtd`, `root/SUN397`, `root/stanford_cars`).

    Raises
    ------
    InputError
        An unknown name; a data set that is missing (the message says what to download and where to put it), is
        incomplete, or does not have the form that torchvision reads.
    """
    if name not in SOURCES:
        hint = " (for RESISC45, use source 'folder')" if name == "resisc45" else ""
        raise InputError(f"unknown torchvision task {name!r}: expected one of {', '.join(VISION_NAMES)}{hint}")
    place, source, title = Path(root).expanduser(), SOURCES[name], PROMPTS[name].title
    _require_present(title, source, place)
    try:
        return source.read(place)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"{title} under {place} cannot be read ({type(error).__name__}: {error}); it seems damaged or incomplete. "
            f"Expected under {place}: {', '.join(source.needs)}. {source.get}"
        ) from error


def _raw_task(name: str, pools: Iterable[Pool], split_note: str = OFFICIAL, class_names: Sequence[str] = ()) -> RawTask:
    prompts, (train, test) = PROMPTS[name], pools
    names = prompts.class_names or class_names
    return RawTask(name, prompts.title, "torchvision", names, prompts.templates, train, test, split_note)


@validated_call
def pinned_split(keys: Sequence[str], fraction: float, salt: str) -> tuple[list[int], list[int]]:
    """Train and test positions for a data set without an official split.

    An image is a test image if `hash_fraction(path, salt) < fraction`. This depends neither on the order of the files
    nor on which others are present, and it is stratified up to the randomness of the hash (EuroSAT: 20 % ± 0.7 % of
    the 3,000 images of a class).
    """
    real_number(fraction, "fraction", minimum=0, maximum=1)
    test = [i for i, key in enumerate(keys) if hash_fraction(key, salt) < fraction]
    chosen = set(test)
    return [i for i in range(len(keys)) if i not in chosen], test


# --- the readers ------------------------------------------------------------------------------------------------------


def _read_mnist(root: Path) -> RawTask:
    raw = root / "MNIST" / "raw"
    return _raw_task("mnist", [_mnist_pool(raw, "train"), _mnist_pool(raw, "t10k")])


def _mnist_pool(raw: Path, split: str) -> Pool:
    images = read_idx(raw / f"{split}-images-idx3-ubyte", 3)
    labels = read_idx(raw / f"{split}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise InputError(
            f"{raw}: {len(images)} {split} images but {len(labels)} labels; the files do not belong together"
        )
    return _array_pool(split, images[:, None], labels.to(torch.int64))


@validated_call
def read_idx(path: Path, ndim: int) -> Tensor:
    """Read a uint8 array from a file in MNIST's idx format, or from its gzipped form, `path`.gz.

    torchvision reads only unpacked files, and unpacks them only while downloading; here the official archives suffice,
    also on a read-only disk.

    Raises
    ------
    InputError
        if the file is damaged, truncated, or holds anything but `ndim`-dimensional bytes, of which the header claims
        at most `pixel_limit()`.
    """
    whole_number(ndim, "ndim", maximum=255)
    if not path.is_file():
        path = path.with_name(path.name + ".gz")
    header = 4 * (1 + ndim)
    try:
        require_regular(path)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(header)
            if len(head) < header or head[:4] != bytes([0, 0, 8, ndim]):
                raise InputError(f"{path} is not an idx file of {ndim}-dimensional bytes; download it again")
            shape = [int(n) for n in np.frombuffer(head, dtype=">u4", count=ndim, offset=4)]
            if (size := math.prod(shape)) > (limit := pixel_limit()):
                raise InputError(
                    f"{path} claims to hold {size} bytes, more than {limit}; download it again, or raise the limit, "
                    "the environment variable RMTLLMF_MAX_PIXELS"
                )
            raw = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}); download it again") from error
    if len(raw) != size:
        found = f"{header + len(raw)} bytes" + (" or more" if len(raw) > size else "")
        raise InputError(f"{path} has {found}; expected {header + size}; download it again")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(shape)


def _read_svhn(root: Path) -> RawTask:
    # torchvision expects the two files directly in its root; a folder of their own is accepted, too.
    folder = root / "svhn" if (root / "svhn").is_dir() else root
    return _raw_task("svhn", [_svhn_pool(folder, split) for split in ("train", "test")])


def _svhn_pool(folder: Path, split: str) -> Pool:
    _, filename, md5 = datasets.SVHN.split_list[split]
    try:
        data = datasets.SVHN(str(folder), split=split)
    except RuntimeError as error:
        raise InputError(
            f"{folder / filename} is missing or not the official file: its md5 is not {md5}, so the download is "
            "incomplete or the file was changed. Delete it and download it again (images of your own: use source "
            "'folder')"
        ) from error
    return _array_pool(split, torch.from_numpy(np.ascontiguousarray(data.data)), torch.from_numpy(data.labels))


def _array_pool(split: str, images: Tensor, labels: Tensor) -> Pool:
    return Pool(images, labels.tolist(), [f"{split}/{i}" for i in range(len(labels))])


def _read_gtsrb(root: Path) -> RawTask:
    # torchvision numbers the folders it finds: a missing one would shift every later label.
    _require_folders(root / "gtsrb" / "GTSRB" / "Training", [f"{i:05d}" for i in range(len(GTSRB_NAMES))])
    # There is no public way to the paths; the samples hold (path, class number).
    samples = (datasets.GTSRB(str(root), split=split)._samples for split in ("train", "test"))
    return _raw_task("gtsrb", [Pool.of_files(root / "gtsrb", side) for side in samples])


def _read_eurosat(root: Path) -> RawTask:
    folder = root / "eurosat" / "2750"
    _require_folders(folder, list(EUROSAT))
    samples = datasets.EuroSAT(str(root), loader=str).samples
    return _pinned_task("eurosat", folder, samples, EUROSAT_TEST_FRACTION)


def _read_dtd(root: Path) -> RawTask:
    train, val, test = (
        [Path(path) for path, _ in _walk(datasets.DTD(str(root), split=split, loader=str))]
        for split in ("train", "val", "test")
    )
    # The class comes from the folder: torchvision numbers the classes of each list separately.
    folders = sorted({path.parent.name for path in (*train, *val, *test)})
    pools = (
        Pool.of_files(root / "dtd" / "dtd" / "images", [(path, folders.index(path.parent.name)) for path in paths])
        for paths in (train + val, test)
    )
    return _raw_task("dtd", pools, "train1 + val1, test1", [readable_name(folder) for folder in folders])


def _read_sun397(root: Path) -> RawTask:
    folder = root / "SUN397"
    data = datasets.SUN397(str(root), loader=str)
    names = [readable_name(name.replace("/", " ")) for name in data.classes]
    samples = sorted(_walk(data))
    files = ("Training_01.txt", "Testing_01.txt")
    places = (folder, folder / "Partitions", root / "Partitions")
    lists = next((place for place in places if all((place / file).is_file() for file in files)), None)
    if lists is None:
        logger.warning("SUN397: Training_01.txt and Testing_01.txt not found under %s; using the pinned split", folder)
        return _pinned_task("sun397", folder, samples, SUN397_TEST_FRACTION, names)
    by_key = {Path(path).relative_to(folder).as_posix(): (path, label) for path, label in samples}
    pools = []
    for file in files:
        keys = [line.strip().lstrip("/") for line in (lists / file).read_text().splitlines() if line.strip()]
        if missing := [key for key in keys if key not in by_key]:
            raise InputError(
                f"{lists / file} lists {len(missing)} images that are not under {folder}, such as {missing[0]!r}; "
                "unpack the archive again"
            )
        pools.append(Pool.of_files(folder, [by_key[key] for key in keys]))
    return _raw_task("sun397", pools, "Training_01, Testing_01", names)


def _read_cars(root: Path) -> RawTask:
    for need in SOURCES["cars"].needs:
        if need.endswith(".mat"):
            _require_entries(root / need)
    train, test = (datasets.StanfordCars(str(root), split=split, loader=str) for split in ("train", "test"))
    pools = (Pool.of_files(root / "stanford_cars", list(_walk(data))) for data in (train, test))
    return _raw_task("cars", pools, OFFICIAL, train.classes)


def _require_entries(path: Path) -> None:
    """Raise `InputError` for a MATLAB file whose header claims more than `MAT_ENTRIES`: scipy makes room for them."""
    for name, shape, _ in scipy.io.whosmat(path):
        if math.prod(shape) > MAT_ENTRIES:
            raise InputError(f"{path} claims that its {name} has {math.prod(shape)} entries: download it again")


def _walk(data: Any) -> Iterator[tuple[str, int]]:
    """(path, label) of each image of a torchvision data set; `loader=str` makes it return paths instead of images."""
    for i in range(len(data)):
        path, label = data[i]
        yield str(path), int(label)


def _pinned_task(
    name: str, folder: Path, samples: Sequence[tuple[str, int]], fraction: float, class_names: Sequence[str] = ()
) -> RawTask:
    salt = f"{name} test 1"
    keys = [Path(path).relative_to(folder).as_posix() for path, _ in samples]
    pools = (Pool.of_files(folder, [samples[i] for i in side]) for side in pinned_split(keys, fraction, salt))
    return _raw_task(name, pools, f"test if sha256({salt!r}, path) < {fraction}", class_names)


# --- errors -----------------------------------------------------------------------------------------------------------


@validated_call
def missing_paths(source: VisionSource, root: Path) -> list[str]:
    """The paths that a data set needs below the root and that are not there, in any accepted spelling."""
    return [need for need in source.needs if not any(_is_there(root / form) for form in _forms(need))]


def _require_present(title: str, source: VisionSource, root: Path) -> None:
    if missing := missing_paths(source, root):
        folder = root / source.needs[0].split("/")[0]
        hint = ""
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            hint = f" {folder} looks like a folder of images: use source 'folder' for it."
        state = "is not there" if len(missing) == len(source.needs) else "is not complete"
        raise InputError(f"{title} {state}: missing under {root}: {', '.join(missing)}.{hint} {source.get}")


def _is_there(path: Path) -> bool:
    return path.is_file() or path.is_dir()  # no pipe, which would block the reader


def _forms(need: str) -> list[str]:
    """The accepted spellings of a needed path: unpacked or not, SVHN in its folder or in the root."""
    return [need, need.removesuffix(".gz"), need.removeprefix("svhn/")]


def _require_folders(place: Path, expected: Sequence[str]) -> None:
    found = {path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")}
    missing, extra = sorted(set(expected) - found), sorted(found - set(expected))
    if missing or extra:
        wrong = [f"{what} {', '.join(which)}" for what, which in (("missing", missing), ("unexpected", extra)) if which]
        raise InputError(f"{place}: class folders {'; '.join(wrong)}; expected the {len(expected)} of the data set")


_MNIST_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")

SOURCES: dict[str, VisionSource] = {
    "mnist": VisionSource(
        _read_mnist,
        tuple(f"MNIST/raw/{file}-ubyte.gz" for file in _MNIST_FILES),
        "Download the four files (packed or not) from https://ossci-datasets.s3.amazonaws.com/mnist/.",
    ),
    "gtsrb": VisionSource(
        _read_gtsrb,
        ("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
        "Download GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip from "
        "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/published-archive.html and unpack them "
        "in gtsrb/.",
    ),
    "eurosat": VisionSource(
        _read_eurosat,
        ("eurosat/2750",),
        "Download EuroSAT.zip (RGB) from https://huggingface.co/datasets/torchgeo/eurosat (or EuroSAT_RGB.zip from "
        "https://zenodo.org/records/7711810) and unpack it so that the ten class folders lie in eurosat/2750/.",
    ),
    "svhn": VisionSource(
        _read_svhn,
        ("svhn/train_32x32.mat", "svhn/test_32x32.mat"),
        "Download both files (format 2, cropped digits) from http://ufldl.stanford.edu/housenumbers/.",
    ),
    "dtd": VisionSource(
        _read_dtd,
        ("dtd/dtd/images", "dtd/dtd/labels/train1.txt", "dtd/dtd/labels/val1.txt", "dtd/dtd/labels/test1.txt"),
        "Download dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd/ and unpack it in dtd/.",
    ),
    "sun397": VisionSource(
        _read_sun397,
        ("SUN397/ClassName.txt",),
        "Download SUN397.tar.gz and Partitions.zip (Xiao et al., 2010; the original server is gone, mirrors keep "
        "copies), unpack the first in the root and the second in SUN397/, so that SUN397/a/abbey/ and "
        "SUN397/Training_01.txt exist. Or put the images into a folder train/<class>, test/<class> and use source "
        "'folder'.",
    ),
    "cars": VisionSource(
        _read_cars,
        (
            "stanford_cars/cars_train",
            "stanford_cars/cars_test",
            "stanford_cars/devkit/cars_meta.mat",
            "stanford_cars/devkit/cars_train_annos.mat",
            "stanford_cars/cars_test_annos_withlabels.mat",
        ),
        "The original server is gone: get a copy of cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
        "cars_test_annos_withlabels.mat and unpack them in stanford_cars/. Or put the images into a folder "
        "train/<class>, test/<class> and use source 'folder'.",
    ),
}

VISION_NAMES = tuple(SOURCES)
