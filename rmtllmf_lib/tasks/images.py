"""Decode image files of any kind to RGB pixels of one size.

Every file is opened by `opened`, which reads regular files of listed formats and of bounded size alone; `open_rgb`
turns it upright by its EXIF tag and converts grey, palette, CMYK, transparent and 16-bit images to plain 8-bit RGB. The
error for files that cannot be decoded names all of them.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from rmtllmf_lib.arrays import instance_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.threads import Item, Result, ordered
from rmtllmf_lib.validated import validated_call

# Pillow's names of the formats that it decodes by itself, or by a plug-in that is registered with it (HEIF, JXL). Of
# the others, some run external programs (EPS). TGA has no signature: it is tried last.
FORMATS = (
    "AVIF", "BMP", "DDS", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SUN", "TIFF", "WEBP", "TGA",
)  # fmt: skip
with suppress(ImportError):
    importlib.import_module("pillow_heif.HeifImagePlugin")  # registers itself

MAX_ASPECT = 1000  # ratio of the sides up to which a whole image is resized before its centre is cut out
DARK = 4096  # 16-bit images below this value are nearly black, unless they hold 12 bits

logger = logging.getLogger(__name__)

Indices = Sequence[int] | NDArray[np.integer[Any]] | Tensor


TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_MAX = 258, 262, 281  # the numbers of tags


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
        self._checked = False

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

    def errors(self) -> list[str]:
        """A message for each image that cannot be decoded; all are decoded once, and not again if there was none."""
        found = [] if self._checked else [m for m in _in_threads(self._error, self.items, "checking images") if m]
        self._checked = not found
        return found

    def _error(self, item: Any) -> str:
        try:
            self.decode(item)
        except InputError as error:
            return str(error)
        return ""


@validated_call
def require_decodable(several: Iterable[LazyImages]) -> None:
    """Decode every image once; `InputError` names all that cannot be decoded."""
    if errors := [message for images in several for message in images.errors()]:
        raise InputError("\n".join(errors))


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """The `decode` of lazy images held in one (n, 1 or 3, H, W) uint8 tensor; a handle is a position."""

    array: Tensor

    __repr__ = short_repr

    def __call__(self, index: int) -> Image.Image:
        """The image at position `index`, RGB."""
        pixels = self.array[index].expand(3, -1, -1).permute(1, 2, 0)
        return Image.fromarray(pixels.contiguous().numpy())


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to upright 8-bit RGB.

    The EXIF orientation is applied; transparent images are composed over white (dropping the alpha channel would show
    the colour underneath); 16-bit grey is divided by 257, and grey of fewer bits in 16 by less, where a TIFF file says
    so; of an animation, the first frame is taken.

    Raises
    ------
    InputError
        for 32-bit integer and floating-point images, whose range is unknown, and colours of fewer bits in 16.
    """
    instance_of(image, Image.Image, "image")
    tags = getattr(image, "tag_v2", {})
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow's own conversion to 8 bits clips at 255. It opens 16-bit PGM files (older versions: PNG files too) in
        # mode "I", with values up to 65535.
        return Image.fromarray(_eight_bits(image, tags)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"its pixels are 32-bit ({image.mode!r}) with no known range; save it with 8 or 16 bits")
    if (white := _white(tags)) < 65_535:  # of 16-bit colours Pillow keeps the upper 8 bits
        raise InputError(
            f"its colours have values up to {white} in 16 bits; scale them to 65535, or save it with 8 bits"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _white(tags: Mapping[int, Any]) -> int:
    """Largest value of a channel by the tags of a TIFF file; 65535 without them.

    MaxSampleValue may also be the largest value that occurs: it counts where it is that of a number of bits.
    """
    bits = max(np.atleast_1d(tags.get(TIFF_BITS, 16)).tolist(), default=16)
    largest = max(np.atleast_1d(tags.get(TIFF_MAX, 0)).tolist(), default=0)
    if bits <= 8:
        return 65_535
    return int(largest) if largest in [2**n - 1 for n in range(9, 16)] else 2 ** min(int(bits), 16) - 1


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """Grey values of a 16-bit image, (H, W), of which 255 is white."""
    white = _white(tags)
    grey = np.minimum(np.asarray(image, dtype=np.int64), white)
    if tags.get(TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts up to 8 bits alone
        grey = white - grey
    elif white == 65_535 and 0 < grey.max(initial=0) < DARK:
        _warn_of_dark(os.path.dirname(getattr(image, "filename", "")))
    return ((grey * 255 + white // 2) // white).astype(np.uint8)


@lru_cache(maxsize=1000)
def _warn_of_dark(folder: str) -> None:
    logger.warning(
        "16-bit images in %s have no value above %d of 65535: they are read as nearly black. If they hold 12 bits, "
        "multiply them by 16, or save them as TIFF with MaxSampleValue 4095",
        folder or "memory",
        DARK - 1,
    )


def image_endings() -> set[str]:
    """Endings of file names, such as ``.jpg``, that promise one of the `FORMATS`."""
    return {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}


def pixel_limit() -> int:
    """Pixels that one file may hold: the environment variable RMTLLMF_MAX_PIXELS, or what Pillow allows by default."""
    typed = os.environ.get("RMTLLMF_MAX_PIXELS")
    if typed is None:
        return 2 * (Image.MAX_IMAGE_PIXELS or 2**61)  # it warns at half of what it refuses
    return whole_number(int(typed) if typed.isdecimal() else typed, "RMTLLMF_MAX_PIXELS")


def require_regular(path: str | Path) -> None:
    """Raise `InputError` for a pipe, a device or a folder, which could block or never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"{path} is not a regular file")


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file, of which the header is read at once.

    Raises
    ------
    InputError
        naming the file, for anything that goes wrong inside the block: it is missing, not a regular file, of none of
        the `FORMATS`, truncated, or has more pixels than `pixel_limit()`.
    """
    limit = pixel_limit()
    try:
        require_regular(path)
        if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = limit
        Image.init()
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if (pixels := image.width * image.height) > limit:
                raise Image.DecompressionBombError(f"it has {pixels} pixels, more than {limit}")
            yield image
    except Exception as error:  # on broken bytes decoders raise OSError, SyntaxError, struct.error and many more
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"{error}" or type(error).__name__
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            reason += "; the environment variable RMTLLMF_MAX_PIXELS raises the limit"
        raise InputError(f"unreadable image {path}: {reason}. Replace the file or remove it from the folder") from error


def open_rgb(path: str | Path) -> Image.Image:
    """Read an image file as upright RGB; `InputError` as in `opened`."""
    with opened(path) as image:
        return to_rgb(image)


def inspect_file(path: str | Path) -> tuple[int, str]:
    """Size in bytes and sha256 (hex) of a file whose header must be that of an image.

    The hash is kept in memory for as long as size and times of the file stay the same.
    """
    with opened(path):
        status = os.stat(path)
        return _size_and_hash(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=2**20)
def _size_and_hash(path: str | Path, size: int, *times: int) -> tuple[int, str]:
    with open(path, "rb") as file:
        return size, hashlib.file_digest(file, "sha256").hexdigest()


@validated_call
def inspect_files(paths: Sequence[str | Path]) -> list[tuple[int, str]]:
    """`inspect_file` for many files, in order; raises for the first that is not an image."""
    return _in_threads(inspect_file, paths, "checking files")


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
    """`function` of every item, in order, computed by up to eight threads, with a progress bar on a terminal."""
    results = ordered(function, items, min(8, os.cpu_count() or 1))
    return list(tqdm(results, description, len(items), unit="image", disable=None, leave=False))


def resize_image(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to `image_size` (bicubic, antialiased), crop the centre: (size, size, 3) uint8."""
    instance_of(image, Image.Image, "image")
    whole_number(image_size, "image_size")
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        image = transforms.center_crop(image, [min(height, MAX_ASPECT * width), min(width, MAX_ASPECT * height)])
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
    batch : int
        Images resized at once.

    Returns
    -------
    (n, 3, image_size, image_size) uint8
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} of {images.ndim} dimensions" if isinstance(images, Tensor) else f"{images!r:.60}"
        raise InputError(f"images are {found}: expected a uint8 tensor of shape (n, 1 or 3, H, W)")
    whole_number(image_size, "image_size")
    whole_number(batch, "batch")
    if images.shape[1:] == (3, image_size, image_size):
        return images
    out = torch.empty((len(images), 3, image_size, image_size), dtype=torch.uint8)
    for start in range(0, len(images), batch):
        # This uint8 kernel rounds between its two passes exactly as Pillow does; a float kernel would differ more.
        part = transforms.resize(images[start : start + batch], [image_size], InterpolationMode.BICUBIC, antialias=True)
        out[start : start + batch] = transforms.center_crop(part, [image_size, image_size])
    return out


@validated_call
def decode_images(images: Tensor | LazyImages | Sequence[Image.Image], image_size: int, what: str = "images") -> Tensor:
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
