"""Miniature image files for the tests of the loaders: every picture tells its class by its colour."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def colour(label: int) -> tuple[int, int, int]:
    return (20 * label % 256, 255 - 20 * label % 256, 90)


def write_image(path: Path, label: int = 0, size: tuple[int, int] = (8, 8), shade: int = 0) -> Path:
    """One picture of a class; different `shade` gives different pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pixels = np.empty((size[1], size[0], 3), dtype=np.uint8)
    pixels[:] = colour(label)
    pixels[0, 0, 2] = shade
    Image.fromarray(pixels).save(path)
    return path


def write_tiff(
    path: Path, values: np.ndarray, photometric: int = 1, most: int | None = None, bits: int = 16, width: int = 0
) -> None:
    """A TIFF file of one uncompressed strip, with tags that Pillow does not write; `most` is its MaxSampleValue."""
    mark = ">" if values.dtype.str[0] == ">" else "<"
    channels = values.shape[2] if values.ndim == 3 else 1
    tags = {256: width or values.shape[1], 257: len(values), 258: bits, 259: 1, 262: photometric, 273: 0, 277: channels}
    tags |= {278: len(values), 279: values.nbytes} | ({} if most is None else {281: most})
    shorts = {tag: [value] * (channels if tag in (258, 281) else 1) for tag, value in tags.items()}
    extra, start = b"", 8 + 2 + 12 * len(tags) + 4
    size = sum(2 * len(several) for several in shorts.values() if len(several) > 2)
    entries = b""
    for tag, several in sorted(shorts.items()):
        several = [start + size] if tag == 273 else several
        packed = struct.pack(f"{mark}{len(several)}H", *several)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{mark}I", start + len(extra)), extra + packed
        entries += struct.pack(f"{mark}HHI", tag, 3, len(several)) + packed.ljust(4, b"\0")
    head = (b"II" if mark == "<" else b"MM") + struct.pack(f"{mark}HIH", 42, 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + extra + values.tobytes())


def linked_copy(folder: Path, copy: Path) -> Path:
    """A copy of a folder by hard links: fast, but a file must be removed or replaced, not changed in place."""
    return Path(shutil.copytree(folder, copy, copy_function=os.link, dirs_exist_ok=True))


def replace_file(path: Path, content: bytes | str) -> Path:
    """Put another file in the place of one that may be shared with other copies."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_folder(root: Path, train: dict[str, int], test: dict[str, int], suffix: str = ".png") -> Path:
    """A task folder with that many images per class."""
    shade = 0
    for part, counts in (("train", train), ("test", test)):
        (root / part).mkdir(parents=True, exist_ok=True)
        for name, count in counts.items():
            (root / part / name).mkdir(exist_ok=True)
            for i in range(count):
                shade += 1
                write_image(
                    root / part / name / f"{i}{suffix}", label=sorted({**train, **test}).index(name), shade=shade
                )
    return root
