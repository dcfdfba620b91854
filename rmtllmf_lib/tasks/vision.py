"""Seven public data sets in the layouts of torchvision, from a root folder; nothing is ever downloaded.

Splits: the official ones of MNIST, GTSRB, SVHN and Stanford Cars; DTD: train and val of partition 1 for training, test
of partition 1 for testing; SUN397: the lists of partition 1 where they lie beside the images. EuroSAT has no official
split, nor has SUN397 without its lists: there a hash of each image's path decides (`pinned_split`), so an image keeps
its part whatever other files are present.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io.matlab import MatReadError
from torch import Tensor
from torchvision import datasets

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import MEMORY_LIMIT, Pool, assemble_task
from rmtllmf_lib.tasks.base import Task, hash_fraction
from rmtllmf_lib.tasks.images import LazyImages, open_rgb
from rmtllmf_lib.tasks.prompts import EUROSAT_FOLDERS, GTSRB_NAMES, PROMPTS, readable_name

EUROSAT_TEST_FRACTION = 0.2
SUN397_TEST_FRACTION = 0.5  # as in the official partitions

logger = logging.getLogger(__name__)

OFFICIAL = "official split"

# What csv, scipy and torchvision raise over damaged files.
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, TypeError, MatReadError, zlib.error)


@dataclass(frozen=True)
class Parts:
    """What a reader returns: the two official parts, the rule that separates them, and the data set's own names."""

    train: Pool
    test: Pool
    split_note: str = OFFICIAL
    class_names: Sequence[str] | None = None


@dataclass(frozen=True)
class VisionSource:
    """One data set: how to read it, what must lie under the root, and where that is to be had."""

    read: Callable[[Path], Parts]
    needs: tuple[str, ...]
    get: str


def vision_task(
    name: str,
    *,
    root: str | Path,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """One of the data sets in `VISION_NAMES`.

    Parameters
    ----------
    name : str
    root : path
        The folder that holds all data sets, each in torchvision's layout (`root/MNIST/raw`, `root/gtsrb`,
        `root/eurosat`, `root/svhn`, `root/dtd`, `root/SUN397`, `root/stanford_cars`).
    image_size, n_train, n_test, memory_limit
        As in `assemble_task`.

    Raises
    ------
    InputError
        An unknown name; a data set that is not there (the message says what to download and where to put it), is
        incomplete, or does not have the form that torchvision reads.
    """
    if name not in SOURCES:
        hint = " (for RESISC45, use source 'folder')" if name == "resisc45" else ""
        raise InputError(f"unknown torchvision task {name!r}: expected one of {', '.join(VISION_NAMES)}{hint}")
    place = Path(root).expanduser()
    source, prompts = SOURCES[name], PROMPTS[name]
    _require_present(name, source, place)
    with _explained(prompts.title, place, source):
        parts = source.read(place)
    return assemble_task(
        name=name,
        title=prompts.title,
        source="torchvision",
        class_names=prompts.class_names or parts.class_names or (),
        templates=prompts.templates,
        train=parts.train,
        test=parts.test,
        split_note=parts.split_note,
        image_size=image_size,
        n_train=n_train,
        n_test=n_test,
        memory_limit=memory_limit,
    )


def pinned_split(keys: Sequence[str], fraction: float, salt: str) -> tuple[list[int], list[int]]:
    """Train and test positions where no official split exists.

    An image is a test image if `hash_fraction(path, salt) < fraction`. Each image is decided on its own, so the split
    depends neither on the order of the files nor on which others are present; it is stratified up to the chance of
    the hash (EuroSAT: 20 % ± 0.7 % of the 3,000 images of a class).
    """
    test = [i for i, key in enumerate(keys) if hash_fraction(key, salt) < fraction]
    chosen = set(test)
    return [i for i in range(len(keys)) if i not in chosen], test


# --- the readers ------------------------------------------------------------------------------------------------------


def _read_mnist(root: Path) -> Parts:
    raw = root / "MNIST" / "raw"
    return Parts(_mnist_part(raw, "train"), _mnist_part(raw, "t10k"))


def _mnist_part(raw: Path, part: str) -> Pool:
    images = read_idx(_with_or_without_gz(raw / f"{part}-images-idx3-ubyte"), 3)
    labels = read_idx(_with_or_without_gz(raw / f"{part}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise InputError(
            f"{raw}: {len(images)} {part} images but {len(labels)} labels; the files do not belong together"
        )
    return _array_pool(part, images[:, None], labels.to(torch.int64))


def _with_or_without_gz(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")


def read_idx(path: Path, ndim: int) -> Tensor:
    """A uint8 array from a file in the idx format of MNIST, gzipped or not.

    torchvision reads only the unpacked files, and unpacks them only while downloading; the official archives as they
    are, on a disk that may be read-only, should do.

    Raises
    ------
    InputError
        if the file is damaged, truncated, or holds anything else than `ndim`-dimensional bytes.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}); download it again") from error
    header = 4 * (1 + ndim)
    if len(raw) < header or raw[:4] != bytes([0, 0, 8, ndim]):
        raise InputError(f"{path} is no idx file of {ndim}-dimensional bytes; download it again")
    shape = [int(n) for n in np.frombuffer(raw, dtype=">u4", count=ndim, offset=4)]
    if len(raw) != header + math.prod(shape):
        raise InputError(f"{path} has {len(raw)} bytes; expected {header + math.prod(shape)}; download it again")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).view(shape)


def _read_svhn(root: Path) -> Parts:
    # torchvision wants the two files directly in its root; beside other data sets a folder of their own is tidier.
    folder = root / "svhn" if (root / "svhn").is_dir() else root
    return Parts(_svhn_part(folder, "train"), _svhn_part(folder, "test"))


def _svhn_part(folder: Path, part: str) -> Pool:
    _, filename, md5 = datasets.SVHN.split_list[part]
    path = folder / filename
    if not path.is_file():
        raise InputError(f"{path} is missing. {_how(SOURCES['svhn'], folder.parent)}")
    try:
        data = datasets.SVHN(str(folder), split=part)
    except RuntimeError as error:
        raise InputError(
            f"{path} is not the official file: its md5 is not {md5}, so the download is incomplete or the file was "
            "changed. Delete it and download it again (images of your own: use source 'folder')"
        ) from error
    return _array_pool(part, torch.from_numpy(np.ascontiguousarray(data.data)), torch.from_numpy(data.labels))


def _array_pool(part: str, images: Tensor, labels: Tensor) -> Pool:
    return Pool(images, labels.tolist(), [f"{part}/{i}" for i in range(len(labels))])


def _read_gtsrb(root: Path) -> Parts:
    training = root / "gtsrb" / "GTSRB" / "Training"
    expected = [f"{i:05d}" for i in range(len(GTSRB_NAMES))]
    # torchvision numbers the folders it finds: with one missing, every later label would shift.
    _require_folders(training, expected)
    # There is no public way to the paths; the samples hold (path, class number).
    train, test = (_file_pool(root / "gtsrb", datasets.GTSRB(str(root), split=p)._samples) for p in ("train", "test"))
    return Parts(train, test)


def _read_eurosat(root: Path) -> Parts:
    folder = root / "eurosat" / "2750"
    _require_folders(folder, EUROSAT_FOLDERS)
    samples = datasets.EuroSAT(str(root), loader=str).samples
    return _pinned_parts(folder, samples, EUROSAT_TEST_FRACTION, "eurosat test 1", PROMPTS["eurosat"].class_names or ())


def _read_dtd(root: Path) -> Parts:
    # `loader=str` makes the public interface return paths instead of images.
    parts = {
        p: [path for path, _ in _walk(datasets.DTD(str(root), split=p, loader=str))] for p in ("train", "val", "test")
    }
    # The class comes from the folder: torchvision numbers the classes of each list on its own.
    folders = sorted({Path(path).parent.name for paths in parts.values() for path in paths})
    number = {folder: i for i, folder in enumerate(folders)}
    images = root / "dtd" / "dtd" / "images"

    def pool(paths: list[str]) -> Pool:
        return _file_pool(images, [(path, number[Path(path).parent.name]) for path in paths])

    return Parts(
        pool(parts["train"] + parts["val"]),
        pool(parts["test"]),
        "train1 + val1, test1",
        [readable_name(folder) for folder in folders],
    )


def _read_sun397(root: Path) -> Parts:
    folder = root / "SUN397"
    data = datasets.SUN397(str(root), loader=str)
    names = [readable_name(name.replace("/", " ")) for name in data.classes]
    samples = sorted(_walk(data))
    lists = next((place for place in (folder, folder / "Partitions", root / "Partitions") if _has_lists(place)), None)
    if lists is None:
        logger.warning("SUN397: Training_01.txt and Testing_01.txt not found under %s; using the pinned split", folder)
        return _pinned_parts(folder, samples, SUN397_TEST_FRACTION, "sun397 test 1", names)
    by_key = {Path(path).relative_to(folder).as_posix(): (path, label) for path, label in samples}
    pools = []
    for file in ("Training_01.txt", "Testing_01.txt"):
        keys = [line.strip().lstrip("/") for line in (lists / file).read_text().splitlines() if line.strip()]
        if missing := [key for key in keys if key not in by_key]:
            raise InputError(
                f"{lists / file} lists {len(missing)} images that are not under {folder}, such as {missing[0]!r}; "
                "unpack the archive again"
            )
        pools.append(_file_pool(folder, [by_key[key] for key in keys]))
    return Parts(pools[0], pools[1], "Training_01, Testing_01", names)


def _has_lists(folder: Path) -> bool:
    return all((folder / file).is_file() for file in ("Training_01.txt", "Testing_01.txt"))


def _read_cars(root: Path) -> Parts:
    train, test = (datasets.StanfordCars(str(root), split=p, loader=str) for p in ("train", "test"))
    folder = root / "stanford_cars"
    return Parts(_file_pool(folder, list(_walk(train))), _file_pool(folder, list(_walk(test))), OFFICIAL, train.classes)


def _walk(data: Any) -> Iterator[tuple[str, int]]:
    """(path, label) of a torchvision data set that was given `loader=str`."""
    for i in range(len(data)):
        path, label = data[i]
        yield str(path), int(label)


def _file_pool(folder: Path, samples: Sequence[tuple[str, int]]) -> Pool:
    paths = [Path(path) for path, _ in samples]
    keys = [path.relative_to(folder).as_posix() for path in paths]
    return Pool(LazyImages(paths, open_rgb), [int(label) for _, label in samples], keys)


def _pinned_parts(
    folder: Path, samples: Sequence[tuple[str, int]], fraction: float, salt: str, class_names: Sequence[str]
) -> Parts:
    keys = [Path(path).relative_to(folder).as_posix() for path, _ in samples]
    train, test = ([samples[i] for i in part] for part in pinned_split(keys, fraction, salt))
    note = f"test if sha256({salt!r}, path) < {fraction}"
    return Parts(_file_pool(folder, train), _file_pool(folder, test), note, class_names)


# --- errors -----------------------------------------------------------------------------------------------------------


def _how(source: VisionSource, root: Path) -> str:
    return f"Expected under {root}: {', '.join(source.needs)}. {source.get}"


def _require_present(name: str, source: VisionSource, root: Path) -> None:
    missing = [need for need in source.needs if not any((root / form).exists() for form in _forms(need))]
    if missing:
        folder = root / source.needs[0].split("/")[0]
        hint = ""
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            hint = f" {folder} looks like a folder of images: use source 'folder' for it."
        state = "is not there" if len(missing) == len(source.needs) else "is not complete"
        raise InputError(
            f"{PROMPTS[name].title} {state}: missing under {root}: {', '.join(missing)}.{hint} {source.get}"
        )


def _forms(need: str) -> list[str]:
    """The accepted spellings of a needed path: unpacked or not, SVHN in its folder or in the root."""
    forms = [need]
    if need.endswith(".gz"):
        forms.append(need.removesuffix(".gz"))
    if need.startswith("svhn/"):
        forms.append(need.removeprefix("svhn/"))
    return forms


def _require_folders(place: Path, expected: Sequence[str]) -> None:
    found = {path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")}
    missing, extra = sorted(set(expected) - found), sorted(found - set(expected))
    if missing or extra:
        wrong = [f"{what} {', '.join(which)}" for what, which in (("missing", missing), ("unexpected", extra)) if which]
        raise InputError(f"{place}: class folders {'; '.join(wrong)}; expected the {len(expected)} of the data set")


@contextmanager
def _explained(title: str, root: Path, source: VisionSource) -> Iterator[None]:
    """Turn whatever a reader trips over in damaged or incomplete data into one error that says what to do."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"{title} under {root} cannot be read ({type(error).__name__}: {error}); it seems damaged or incomplete. "
            f"{_how(source, root)}"
        ) from error


SOURCES: dict[str, VisionSource] = {
    "mnist": VisionSource(
        _read_mnist,
        tuple(
            f"MNIST/raw/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
        ),
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
