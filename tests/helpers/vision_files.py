"""Miniatures of the public data sets, written in their official layouts."""

import gzip
import struct
from pathlib import Path

import numpy as np
import scipy.io

from image_files import colour, write_image
from rmtllmf_lib.tasks.prompts import EUROSAT


def write_idx(path: Path, array: np.ndarray, packed: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    (path.with_name(path.name + ".gz") if packed else path).write_bytes(gzip.compress(content) if packed else content)


def write_mnist(root: Path, packed: bool = True) -> None:
    for part, count in (("train", 60), ("t10k", 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.broadcast_to((labels * 20)[:, None, None], (count, 28, 28)).copy()
        images[:, 0, 0] = np.arange(count)
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images, packed)
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels, packed)


def write_gtsrb(root: Path) -> None:
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(43):
        for i in range(2):
            write_image(root / f"gtsrb/GTSRB/Training/{label:05d}/{i:05d}_00000.ppm", label, shade=i)
        write_image(root / f"gtsrb/GTSRB/Final_Test/Images/{42 - label:05d}.ppm", label, shade=9)
        rows.append(f"{42 - label:05d}.ppm;8;8;0;0;7;7;{label}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows) + "\n")


def write_eurosat(root: Path) -> None:
    for label, name in enumerate(EUROSAT):
        for i in range(20):
            write_image(root / f"eurosat/2750/{name}/{name}_{i + 1}.jpg", label, shade=i)


def write_svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 40), ("test", 20)):
        labels = np.arange(count) % 10
        images = np.stack([np.broadcast_to(np.uint8(colour(label)), (32, 32, 3)) for label in labels], axis=-1)
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": images, "y": y})


def write_dtd(root: Path, textures: tuple[str, ...] = ("banded", "polka-dotted", "woven")) -> None:
    lists: dict[str, list[str]] = {"train1": [], "val1": [], "test1": []}
    for label, name in enumerate(textures):
        for i in range(12):
            write_image(root / f"dtd/dtd/images/{name}/{name}_{i:04d}.jpg", label, shade=i)
            lists[("train1", "val1", "test1")[i % 3]].append(f"{name}/{name}_{i:04d}.jpg")
    (root / "dtd/dtd/labels").mkdir(parents=True)
    for part, lines in lists.items():
        (root / f"dtd/dtd/labels/{part}.txt").write_text("\n".join(lines) + "\n")


SUN_CLASSES = ("/a/abbey", "/a/apartment_building/outdoor", "/b/bank_vault")


def write_sun397(root: Path, lists: Path | None = None) -> None:
    chosen: dict[str, list[str]] = {"Training_01.txt": [], "Testing_01.txt": []}
    for label, name in enumerate(SUN_CLASSES):
        for i in range(20):
            write_image(root / f"SUN397{name}/sun_{label}{i:03d}.jpg", label, shade=i)
            if i < 14:  # the official lists leave images out, too
                chosen["Training_01.txt" if i % 2 else "Testing_01.txt"].append(f"{name}/sun_{label}{i:03d}.jpg")
    (root / "SUN397" / "ClassName.txt").write_text("\n".join(SUN_CLASSES) + "\n")
    if lists is not None:
        lists.mkdir(parents=True, exist_ok=True)
        for file, lines in chosen.items():
            (lists / file).write_text("\n".join(lines) + "\n")


def write_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
    for part, annotations in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        (folder / annotations).parent.mkdir(parents=True, exist_ok=True)
        rows = np.zeros(15, dtype=[("class", object), ("fname", object)])
        for i in range(15):
            rows[i] = (np.uint8(i % 3 + 1), f"{i + 1:05d}.jpg")
            write_image(folder / f"cars_{part}" / f"{i + 1:05d}.jpg", i % 3, shade=i)
        scipy.io.savemat(folder / annotations, {"annotations": rows})
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(names, dtype=object)})
