"""Vectorised drawing of small images: a canvas holds a batch, and every call draws on all of it.

Shapes are signed distances, so edges are antialiased without supersampling; each image of the batch has its own pose,
colours and shape parameters. Coordinates are the object's own: the square [-1, 1]², `u` to the right, `v` downwards.
All operations are element-wise on arrays that fit in the cache, so the number of threads does not change the bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtllmf_lib.tasks.embedded import brush

Array = NDArray[np.floating[Any]]  # float32 throughout; NumPy's types are looser than its results
Number = float | np.floating[Any] | Array  # a constant, or one value per image of shape (n,)

SIZE = 32  # pixels a side
LUMA = np.array([0.3, 0.59, 0.11], np.float32)  # brightness of red, green and blue


@dataclass(frozen=True)
class Pose:
    """The ranges from which the pose of an object before the camera is drawn.

    Attributes
    ----------
    angle : float pair
        Rotation, degrees.
    size : float pair
        Size of the object; 1 fills the frame.
    shift : float
        Largest displacement, in halves of the frame.
    flip : bool
        Mirror half of the images left to right.
    """

    angle: tuple[float, float] = (-10.0, 10.0)
    size: tuple[float, float] = (0.75, 1.05)
    shift: float = 0.15
    flip: bool = False

    def at(self, severity: float) -> Pose:
        """Wider ranges: turned further (12 degrees each way), smaller, further off the centre; 0 changes nothing."""
        turn = 12.0 * severity
        return replace(
            self,
            angle=(self.angle[0] - turn, self.angle[1] + turn),
            size=(self.size[0] * (1 - 0.15 * severity), self.size[1]),
            shift=self.shift * (1 + 0.4 * severity),
        )


def _per_image(value: Number) -> float | np.floating[Any] | Array:
    """Reshape a per-image parameter (n,) to broadcast over the pixels."""
    return value[:, None, None] if isinstance(value, np.ndarray) else value


def hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """Colours (n, 3) in [0, 1] from hue, saturation, value of shape (n,), each in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0], np.float32) + 6.0 * hue[:, None]) % 6.0
    drop = np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (value[:, None] * (1.0 - saturation[:, None] * drop)).astype(np.float32)


def _full(values: Array, shape: tuple[int, ...]) -> Array:
    """The values broadcast to this shape and contiguous; compiled loops do not check bounds."""
    full = np.broadcast_to(values, shape)
    return np.ascontiguousarray(values if values.shape == full.shape else full)


def length(x: Array, y: Array) -> Array:
    """Length of vectors, sqrt(x² + y²), in float32."""
    out = np.empty(np.broadcast_shapes(x.shape, y.shape), np.float32)
    brush.distance(_full(x, out.shape).reshape(-1), _full(y, out.shape).reshape(-1), out.reshape(-1))
    return out


class Canvas:
    """A batch of images being drawn.

    Parameters
    ----------
    n : int
        Number of images.
    rng : numpy.random.Generator
        Source of every random choice of the drawing.
    pose : Pose

    Attributes
    ----------
    u, v : (n, SIZE, SIZE) float32
        Object coordinates of the pixels.
    rgb : (3, n, SIZE, SIZE) float32
        The picture so far.
    """

    def __init__(self, n: int, rng: np.random.Generator, pose: Pose) -> None:
        self.n, self.rng = n, rng
        axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) * (2.0 / SIZE) - 1.0).astype(np.float32)
        theta, size = np.deg2rad(self.uniform(*pose.angle)), self.uniform(*pose.size)
        x = axis[None, None, :] - self.level(-pose.shift, pose.shift)
        y = axis[None, :, None] - self.level(-pose.shift, pose.shift)
        mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0).astype(np.float32) if pose.flip else np.ones(n, np.float32)
        cos, sin = (np.cos(theta) / size)[:, None, None], (np.sin(theta) / size)[:, None, None]
        self.u: Array = (cos * x + sin * y) * mirror[:, None, None]
        self.v: Array = cos * y - sin * x
        self.pixel: Array = (2.0 / SIZE / size)[:, None, None]
        self.rgb: Array = np.zeros((3, n, SIZE, SIZE), np.float32)

    # -- random numbers ------------------------------------------------------------------------------------------

    def uniform(self, low: float, high: float) -> Array:
        """One number per image, uniform in [low, high], shape (n,)."""
        return (low + (high - low) * self.rng.random(self.n, dtype=np.float32)).astype(np.float32)

    def level(self, low: float, high: float) -> Array:
        """As `uniform`, shape (n, 1, 1): one number for all pixels of an image."""
        return self.uniform(low, high)[:, None, None]

    def coin(self, probability: float = 0.5) -> NDArray[np.bool_]:
        """One True or False per image."""
        return self.rng.random(self.n, dtype=np.float32) < probability

    def colour(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Array:
        """One colour per image (n, 3), hue modulo 1."""
        return hsv(self.uniform(*hue) % 1.0, self.uniform(*saturation), self.uniform(*value))

    def any_colour(self) -> Array:
        """Any colour that is not very dark, (n, 3)."""
        return self.colour((0.0, 1.0), (0.0, 1.0), (0.15, 1.0))

    def contrasting(self) -> tuple[Array, Array]:
        """Two colours, (n, 3) each, whose brightness differs by at least 0.28; either may be the brighter one."""
        first, second = self.any_colour(), self.any_colour()
        gap = (first * LUMA).sum(1) - (second * LUMA).sum(1)
        far = np.where((first * LUMA).sum(1) > 0.5, 0.0, 1.0).astype(np.float32)[:, None]
        mix = np.where(np.abs(gap) < 0.35, 0.75, 0.0).astype(np.float32)[:, None]
        return first, second * (1.0 - mix) + far * mix

    def noise(self, bumps: int) -> Array:
        """Smooth random field in [0, 1] with `bumps` bumps across the frame, shape (n, SIZE, SIZE)."""
        grid = self.rng.random((self.n, bumps + 1, bumps + 1), dtype=np.float32)
        position = np.linspace(0.0, bumps * 0.999, SIZE, dtype=np.float32)
        low = position.astype(np.intp)
        t = position - low
        t = (t * t * (3.0 - 2.0 * t)).astype(np.float32)
        field = np.empty((self.n, SIZE, SIZE), np.float32)
        brush.interpolate(grid, low, t, field)
        return field

    # -- signed distances (negative inside), shape (n, SIZE, SIZE) -----------------------------------------------

    def disk(self, cu: Number, cv: Number, r: Number) -> Array:
        """Distance to a disk."""
        return length(self.u - _per_image(cu), self.v - _per_image(cv)) - _per_image(r)

    def ellipse(self, cu: Number, cv: Number, ru: Number, rv: Number) -> Array:
        """Distance (approximate) to an axis-parallel ellipse."""
        a, b = _per_image(ru), _per_image(rv)
        return (length((self.u - _per_image(cu)) / a, (self.v - _per_image(cv)) / b) - 1.0) * np.minimum(a, b)

    def box(self, cu: Number, cv: Number, hu: Number, hv: Number) -> Array:
        """Distance to a box with half sides `hu`, `hv`."""
        u, v = np.abs(self.u - _per_image(cu)), np.abs(self.v - _per_image(cv))
        return np.maximum(u - _per_image(hu), v - _per_image(hv))

    def diamond(self, cu: Number, cv: Number, r: Number) -> Array:
        """Distance to a square standing on a corner."""
        return (np.abs(self.u - _per_image(cu)) + np.abs(self.v - _per_image(cv)) - _per_image(r)) * np.float32(0.7071)

    def polygon(self, *corners: tuple[Number, Number]) -> Array:
        """Distance to a convex polygon; corners clockwise on the screen, each coordinate a number or (n,)."""
        edges = []
        for (u0, v0), (u1, v1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            du, dv = np.subtract(u1, u0), np.subtract(v1, v0)
            side = np.hypot(du, dv)
            nu, nv = (dv / side).astype(np.float32), (-du / side).astype(np.float32)
            edges.append((nu, nv, nu * u0 + nv * v0))
        return self._inside(edges)

    def _inside(self, edges: Sequence[tuple[Number, Number, Number]]) -> Array:
        """Distance to the set where `nu * u + nv * v <= offset` for all edges (nu, nv, offset) with unit normals."""
        distance = np.empty(self.u.shape, np.float32)
        brush.beyond(self.u, self.v, np.array([[self._each(x) for x in edge] for edge in edges]), distance)
        return distance

    def segment(self, u0: Number, v0: Number, u1: Number, v1: Number, width: Number) -> Array:
        """Distance to a line with round ends from (u0, v0) to (u1, v1)."""
        a, b = _per_image(u0), _per_image(v0)
        du, dv = _per_image(u1) - a, _per_image(v1) - b
        pu, pv = self.u - a, self.v - b
        t = np.clip((pu * du + pv * dv) / (du * du + dv * dv + 1e-9), 0.0, 1.0)
        return length(pu - t * du, pv - t * dv) - _per_image(width)

    def regular(self, sides: int, r: Number, turn: float = 0.0) -> Array:
        """Distance to a regular polygon around the origin; `turn` is a fraction of the angle between two corners."""
        angles = [2.0 * np.pi * (k + turn) / sides for k in range(sides)]
        return self._inside([(np.sin(a), -np.cos(a), 0.0) for a in angles]) - _per_image(r)

    # -- painting ------------------------------------------------------------------------------------------------

    def mask(self, distance: Array) -> Array:
        """Coverage in [0, 1] of the pixels by a shape, from its signed distance."""
        return np.clip(0.5 - distance / self.pixel, 0.0, 1.0)

    def paint(self, coverage: Array, colour: Array | Sequence[float]) -> None:
        """Blend a colour, (3,) or (n, 3), over the picture with a coverage in [0, 1]."""
        brush.paint(self.rgb, _full(coverage, self.u.shape), self._colours(colour))

    def shape(self, distance: Array, colour: Array | Sequence[float]) -> None:
        """Paint a shape given by its signed distance."""
        brush.paint_shape(self.rgb, _full(distance, self.u.shape), self.pixel[:, 0, 0], self._colours(colour))

    def _colours(self, colour: Array | Sequence[float]) -> Array:
        return _full(np.asarray(colour, np.float32), (self.n, 3))

    def fill(self, colour: Array | Sequence[float], mottle: float = 0.0, bumps: int = 6) -> None:
        """Fill the frame; `mottle` is the relative size of a smooth variation of the brightness."""
        tones = self._colours(colour)[:, :, None, None]
        light: Array = np.ones((1, 1, 1), np.float32)
        if mottle:
            light = self.noise(bumps)  # in place from here on: allocating would cost more than the arithmetic
            light *= 2.0
            light -= 1.0
            light *= mottle
            light += 1.0
        for k in range(3):
            np.multiply(tones[:, k], light, out=self.rgb[k])

    def glyph(self, masks: Array, which: NDArray[np.intp], cu: Number, cv: Number, size: Number) -> Array:
        """Coverage of glyph `which` (n,) of an atlas `masks` (g, A, A), centred at (cu, cv) with half side `size`."""
        coverage = np.empty(self.u.shape, np.float32)
        tiles = np.arange(len(masks))[np.broadcast_to(which, self.n)]  # IndexError if there is no such glyph
        brush.stamp(masks, tiles, self.u, self.v, self._each(cu), self._each(cv), self._each(size), coverage)
        return coverage

    def _each(self, value: Number) -> Array:
        """One value per image, (n,) float32."""
        return np.array(np.broadcast_to(value, self.n), np.float32)


# -- glyphs ------------------------------------------------------------------------------------------------------

# Bundled with matplotlib; tasks use fonts that pre-training never saw.
PRETRAINING_FONTS = ("DejaVuSans", "DejaVuSerif-Bold", "DejaVuSansMono", "DejaVuSans-Oblique", "cmss10", "STIXGeneral")
TASK_FONTS = ("DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold", "STIXGeneralBol", "cmb10")
_ATLAS = 48


@lru_cache(maxsize=8)
def glyph_atlas(characters: str, fonts: tuple[str, ...]) -> Array:
    """Coverage of every character in every font, (len(fonts) · len(characters), 48, 48), font-major, in [0, 1].

    Each glyph is centred and fills 80 % of the tile's height.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    tiles = []
    for font in fonts:
        face = ImageFont.truetype(str(folder / f"{font}.ttf"), 96)
        for character in characters:
            page = Image.new("L", (200, 200))
            ImageDraw.Draw(page).text((50, 40), character, font=face, fill=255)
            glyph = page.crop(page.getbbox())
            ratio = 0.8 * _ATLAS / max(glyph.height, glyph.width)
            glyph = glyph.resize((max(1, round(glyph.width * ratio)), max(1, round(glyph.height * ratio))))
            tile = Image.new("L", (_ATLAS, _ATLAS))
            tile.paste(glyph, ((_ATLAS - glyph.width) // 2, (_ATLAS - glyph.height) // 2))
            tiles.append(np.asarray(tile.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 255.0)
    return np.stack(tiles)


# -- concepts ----------------------------------------------------------------------------------------------------

Concept = Callable[[Canvas], None]


def public_functions(namespace: Mapping[str, Any], suffix: str = "") -> dict[str, Concept]:
    """A module's concepts: the public functions that it defines, by name with spaces for underscores.

    They stand in the order of their definitions, which is that of the labels.
    """
    return {
        f"{name.replace('_', ' ')}{suffix}": thing
        for name, thing in namespace.items()
        if inspect.isfunction(thing) and thing.__module__ == namespace["__name__"] and not name.startswith("_")
    }
