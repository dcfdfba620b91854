"""From image files of any kind to RGB pixels of one size.

A picture goes through one door, `open_rgb`: it is turned upright as its EXIF tag says, and grey, palette, CMYK,
transparent and 16-bit images come out as plain 8-bit RGB. A file that cannot be decoded is named in the error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms
from tqdm import tqdm

from rmtllmf_lib.errors import InputError

FINGERPRINT_BYTES = 64 * 2**10

Indices = Sequence[int] | NDArray[np.integer[Any]] | Tensor


class LazyImages(Sequence[Image.Image]):
    """RGB images that are decoded each time they are looked at.

    Parameters
    ----------
    items : sequence
        One handle per image: a path, an index, anything `decode` understands.
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
    """The `decode` of lazy images that lie in one (n, 1 or 3, H, W) uint8 tensor; a handle is a position."""

    array: Tensor

    def __call__(self, index: int) -> Image.Image:
        """The image at that position, RGB."""
        pixels = self.array[index].expand(3, -1, -1).permute(1, 2, 0)
        return Image.fromarray(pixels.contiguous().numpy())


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as upright 8-bit RGB.

    The EXIF orientation is applied; transparency is laid over white (dropping it would show whatever colour hides
    underneath); 16-bit grey is scaled by 1/257; of an animation, the first frame counts.

    Raises
    ------
    InputError
        for 32-bit integer and floating-point images, whose range nothing tells.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow's own conversion to 8 bits clips at 255. It opens 16-bit PGM files, and older versions PNG ones, in
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
    """The image in a file, as upright RGB.

    Raises
    ------
    InputError
        naming the file, if it is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on broken bytes: OSError, SyntaxError, struct.error, …
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: Exception) -> InputError:
    """The error that names an image file which cannot be used."""
    reason = "no such file" if isinstance(error, FileNotFoundError) else f"{error}" or type(error).__name__
    return InputError(f"unreadable image {path}: {reason}. Replace the file or take it out of the folder")


def inspect_file(path: str | Path) -> tuple[int, str]:
    """Size in bytes and sha256 (hex) of the first 64 KiB of an image file; its header must be that of an image."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read(FINGERPRINT_BYTES)).hexdigest()
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            with Image.open(file):
                return size, digest
    except MemoryError:
        raise
    except Exception as error:  # as above: a decoder may raise nearly anything
        raise unreadable(path, error) from error


def inspect_files(paths: Sequence[str | Path]) -> list[tuple[int, str]]:
    """`inspect_file` of many files, in their order; raises for the first that is no image."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(total=len(paths), desc="checking files", unit="image", disable=None, leave=False)
        with bar:
            try:
                out = []
                for found in pool.map(inspect_file, paths):
                    out.append(found)
                    bar.update()
                return out
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def resize_image(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Shorter side to `image_size` (bicubic, antialiased), then the centre square: (size, size, 3) uint8."""
    resized = transforms.resize(image, image_size, InterpolationMode.BICUBIC, antialias=True)
    return np.asarray(transforms.center_crop(resized, [image_size, image_size]), dtype=np.uint8)


def resize_batch(images: Tensor, image_size: int, batch: int = 4096) -> Tensor:
    """`resize_image` for images that are already one array of a common size, many at a time.

    Equal to it within two grey levels, one for 28 → 32 pixels (MNIST); more than 98 % of the values are identical.

    Parameters
    ----------
    images : (n, 1 or 3, H, W) uint8
        One channel is repeated to three after resizing.
    image_size : int
        Side of the result in pixels.

    Returns
    -------
    (n, 3, image_size, image_size) uint8
    """
    require_image_size(image_size)
    n, channels, height, width = images.shape
    if channels == 3 and height == width == image_size:
        return images
    size = [int(image_size * height / width), image_size]
    if height < width:
        size = [image_size, int(image_size * width / height)]
    out = torch.empty((n, 3, image_size, image_size), dtype=torch.uint8)
    for start in range(0, n, batch):
        part = images[start : start + batch]
        if [height, width] != size:
            # The uint8 kernel rounds between the two passes exactly as Pillow does; a float one would differ more.
            part = torch.nn.functional.interpolate(part, size=size, mode="bicubic", antialias=True)
        out[start : start + batch] = transforms.center_crop(part, [image_size, image_size])
    return out


def decode_images(images: Sequence[Image.Image], image_size: int, what: str = "images") -> Tensor:
    """Decode every image once, resize its shorter side to `image_size` and keep the centre square.

    Threads share the work (decoders release Python's lock); the result does not depend on how many there are. Memory:
    the result, n · 3 · image_size² bytes, and one decoded image per thread. A progress bar appears on a terminal only.

    Returns
    -------
    (n, 3, image_size, image_size) uint8
    """
    require_image_size(image_size)
    out = np.empty((len(images), 3, image_size, image_size), dtype=np.uint8)
    chunk = 32

    def work(start: int) -> int:
        stop = min(start + chunk, len(images))
        for i in range(start, stop):
            out[i] = resize_image(images[i], image_size).transpose(2, 0, 1)
        return stop - start

    progress = tqdm(total=len(images), desc=f"decoding {what}", unit="image", disable=None, leave=False)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, progress as bar:
        try:
            for done in pool.map(work, range(0, len(images), chunk)):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return torch.from_numpy(out)


def require_image_size(image_size: int) -> None:
    """Raise `InputError` unless `image_size` is a positive whole number of pixels."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise InputError(f"image_size is {image_size!r}; expected a positive whole number of pixels, such as 32 or 224")
