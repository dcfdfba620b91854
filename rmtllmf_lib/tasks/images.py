"""Decode image files of any kind to RGB pixels of one size.

Every file is opened by `open_rgb`, which turns it upright by its EXIF tag and converts grey, palette, CMYK, transparent
and 16-bit images to plain 8-bit RGB. The error for a file that cannot be decoded names it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.threads import Item, Result, ordered

FINGERPRINT_BYTES = 64 * 2**10

Indices = Sequence[int] | NDArray[np.integer[Any]] | Tensor


class LazyImages(Sequence[Image.Image]):
    """RGB images that are decoded each time they are accessed.

    Parameters
    ----------
    items : sequence
        One handle per image: a path, an index, anything that `decode` takes.
    decode : callable
        Turns a handle into an RGB `PIL.Image.Image`; raises `InputError` naming the file when it cannot.
    """

    def __init__(self, items: Sequence[Any], decode: Callable[[Any], Image.Image]) -> None:
        self.items = tuple(items)
        self.decode = decode

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> LazyImages: ...
    def __getitem__(self, index: int | slice) -> Image.Image | LazyImages:
        if isinstance(index, slice):
            return LazyImages(self.items[index], self.decode)
        return self.decode(self.items[index])

    def take(self, indices: Indices) -> LazyImages:
        """The images at `indices`, in that order, still lazy."""
        return LazyImages([self.items[int(i)] for i in indices], self.decode)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """The `decode` of lazy images held in one (n, 1 or 3, H, W) uint8 tensor; a handle is a position."""

    array: Tensor

    def __call__(self, index: int) -> Image.Image:
        """The image at position `index`, RGB."""
        pixels = self.array[index].expand(3, -1, -1).permute(1, 2, 0)
        return Image.fromarray(pixels.contiguous().numpy())


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to upright 8-bit RGB.

    The EXIF orientation is applied; transparent images are composed over white (dropping the alpha channel would show
    the colour underneath); 16-bit grey is divided by 257; of an animation, the first frame is taken.

    Raises
    ------
    InputError
        for 32-bit integer and floating-point images, whose range is unknown.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow's own conversion to 8 bits clips at 255. It opens 16-bit PGM files (older versions: PNG files too) in
        # mode "I", with values up to 65535.
        grey = np.asarray(image, dtype=np.int64)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"its pixels are 32-bit ({image.mode!r}) with no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def open_rgb(path: str | Path) -> Image.Image:
    """Read an image file as upright RGB.

    Raises
    ------
    InputError
        naming the file, if it is missing, truncated or not an image.
    """
    with _readable(path), Image.open(path) as image:
        return to_rgb(image)


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn any error of a decoder into an `InputError` that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # on broken bytes decoders raise OSError, SyntaxError, struct.error and many more
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"{error}" or type(error).__name__
        raise InputError(f"unreadable image {path}: {reason}. Replace the file or remove it from the folder") from error


def inspect_file(path: str | Path) -> tuple[int, str]:
    """Size in bytes and sha256 (hex) of the first 64 KiB of a file whose header must be that of an image."""
    with _readable(path), open(path, "rb") as file:
        digest = hashlib.sha256(file.read(FINGERPRINT_BYTES)).hexdigest()
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        with Image.open(file):
            return size, digest


def inspect_files(paths: Sequence[str | Path]) -> list[tuple[int, str]]:
    """`inspect_file` for many files, in order; raises for the first that is not an image."""
    return _in_threads(inspect_file, paths, "checking files")


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
    """`function` of every item, in order, computed by up to eight threads, with a progress bar on a terminal."""
    results = ordered(function, items, min(8, os.cpu_count() or 1))
    return list(tqdm(results, description, len(items), unit="image", disable=None, leave=False))


def resize_image(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to `image_size` (bicubic, antialiased), crop the centre: (size, size, 3) uint8."""
    resized = transforms.resize(image, image_size, InterpolationMode.BICUBIC, antialias=True)
    return np.asarray(transforms.center_crop(resized, [image_size, image_size]), dtype=np.uint8)


def resize_batch(images: Tensor, image_size: int, batch: int = 4096) -> Tensor:
    """`resize_image` for many images of a common size in one array.

    Equal to it within two grey levels (one for 28 → 32 pixels, MNIST); more than 98 % of the values are identical.

    Parameters
    ----------
    images : (n, 1 or 3, H, W) uint8
        A single channel is repeated to three after resizing.
    image_size : int
        Side of the result in pixels.

    Returns
    -------
    (n, 3, image_size, image_size) uint8
    """
    whole_number(image_size, "image_size")
    if images.shape[1:] == (3, image_size, image_size):
        return images
    out = torch.empty((len(images), 3, image_size, image_size), dtype=torch.uint8)
    for start in range(0, len(images), batch):
        # This uint8 kernel rounds between its two passes exactly as Pillow does; a float kernel would differ more.
        part = transforms.resize(images[start : start + batch], [image_size], InterpolationMode.BICUBIC, antialias=True)
        out[start : start + batch] = transforms.center_crop(part, [image_size, image_size])
    return out


def decode_images(images: Tensor | Sequence[Image.Image], image_size: int, what: str = "images") -> Tensor:
    """Decode every image once, resize its shorter side to `image_size` and crop the centre square.

    Several threads share the work (decoders release Python's lock); the result does not depend on their number. Memory:
    n · 3 · image_size² bytes for the result, and one decoded image per thread. A terminal shows a progress bar. An
    array needs no decoding and goes to `resize_batch`.

    Returns
    -------
    (n, 3, image_size, image_size) uint8
    """
    if isinstance(images, Tensor):
        return resize_batch(images, image_size)
    whole_number(image_size, "image_size")
    out = np.empty((len(images), 3, image_size, image_size), dtype=np.uint8)

    def decode(index: int) -> None:
        out[index] = resize_image(images[index], image_size).transpose(2, 0, 1)

    _in_threads(decode, range(len(images)), f"decoding {what}")
    return torch.from_numpy(out)
