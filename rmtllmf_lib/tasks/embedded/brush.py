"""Compiled inner loops of drawing: each visits a pixel once, where NumPy visits it once per operation.

Every operation is rounded to float32, in the order in which it is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmtllmf_lib.compiled import compiled

Floats = NDArray[np.float32]


@compiled
def distance(u: Floats, v: Floats, out: Floats) -> None:
    """Write sqrt(u² + v²) to `out`, all flat, rounded once like the C library's `hypotf`."""
    for k in range(len(out)):
        x, y = np.float64(u[k]), np.float64(v[k])
        out[k] = np.float32(np.sqrt(x * x + y * y))


@compiled
def interpolate(grid: Floats, low: NDArray[np.intp], t: Floats, out: Floats) -> None:
    """Interpolate grids (n, g, g) to fields (n, S, S); pixel i lies at grid coordinate `low[i] + t[i]`."""
    one, row = np.float32(1.0), np.empty(grid.shape[2], np.float32)
    for n in range(len(grid)):
        for i in range(len(t)):
            above, below = grid[n, low[i]], grid[n, low[i] + 1]
            for point in range(len(row)):
                row[point] = above[point] * (one - t[i]) + below[point] * t[i]
            for j in range(len(t)):
                out[n, i, j] = row[low[j]] * (one - t[j]) + row[low[j] + 1] * t[j]


@compiled
def beyond(u: Floats, v: Floats, edges: Floats, out: Floats) -> None:
    """Maximum of `nu * u + nv * v - offset` over the edges (e, 3, n), into (n, S, S)."""
    for n in range(len(out)):
        x, y, far = u[n].reshape(-1), v[n].reshape(-1), out[n].reshape(-1)
        for e in range(len(edges)):
            nu, nv, offset = edges[e, 0, n], edges[e, 1, n], edges[e, 2, n]
            for place in range(len(far)):
                edge = (x[place] * nu + y[place] * nv) - offset
                far[place] = edge if e == 0 else max(far[place], edge)


@compiled
def stamp(
    masks: Floats, which: NDArray[np.intp], u: Floats, v: Floats, cu: Floats, cv: Floats, half: Floats, out: Floats
) -> None:
    """Coverage (n, S, S) by the tiles `which` (n,) of masks (g, A, A), centred at (cu, cv), from -half to half."""
    side, centre = np.float32(masks.shape[1]), np.float32(0.5)
    for n in range(len(out)):
        tile, x, y, cover = masks[which[n]], u[n].reshape(-1), v[n].reshape(-1), out[n].reshape(-1)
        for place in range(len(cover)):
            column = ((x[place] - cu[n]) / half[n] * centre + centre) * side
            row = ((y[place] - cv[n]) / half[n] * centre + centre) * side
            inside = column >= 0 and column < side and row >= 0 and row < side
            cover[place] = tile[int(row), int(column)] if inside else np.float32(0.0)


@compiled
def paint(rgb: Floats, coverage: NDArray[np.floating], colour: Floats) -> None:
    """Blend colours (n, 3) over pictures (3, n, S, S) with a coverage (n, S, S) in [0, 1]."""
    for k in range(rgb.shape[0]):
        for n in range(rgb.shape[1]):
            tone, plane, cover = colour[n, k], rgb[k, n].reshape(-1), coverage[n].reshape(-1)
            for place in range(len(plane)):
                plane[place] = plane[place] + cover[place] * (tone - plane[place])


@compiled
def paint_shape(rgb: Floats, signed: NDArray[np.floating], pixel: Floats, colour: Floats) -> None:
    """As `paint`, with the coverage by a shape: its signed distances (n, S, S) and the size of a pixel (n,)."""
    cover = np.empty_like(signed[0]).reshape(-1)
    half, none, full = np.float32(0.5), np.float32(0.0), np.float32(1.0)
    for n in range(rgb.shape[1]):
        edge = signed[n].reshape(-1)
        for place in range(len(edge)):
            cover[place] = min(max(half - edge[place] / pixel[n], none), full)
        for k in range(rgb.shape[0]):
            tone, plane = colour[n, k], rgb[k, n].reshape(-1)
            for place in range(len(plane)):
                plane[place] = plane[place] + cover[place] * (tone - plane[place])


@compiled
def blur(plane: Floats, weight: np.float32, soft: Floats) -> None:
    """Mix a 3 × 3 binomial blur into a plane (S, S) with this weight; the frame has no neighbours outside.

    `soft`, of the same shape, is overwritten.
    """
    side, row = len(plane), np.empty(len(plane), np.float32)
    half, quarter = np.float32(0.5), np.float32(0.25)
    for i in range(side):
        inner = 0 < i < side - 1
        for j in range(side):
            row[j] = plane[i, j] * half + (plane[i - 1, j] + plane[i + 1, j]) * quarter if inner else plane[i, j]
        soft[i, 0], soft[i, side - 1] = row[0], row[side - 1]
        for j in range(1, side - 1):
            soft[i, j] = row[j] * half + (row[j - 1] + row[j + 1]) * quarter
    for i in range(side):
        for j in range(side):
            plane[i, j] = plane[i, j] + (soft[i, j] - plane[i, j]) * weight


@compiled
def develop(
    rgb: Floats,
    mixing: Floats,
    gain: Floats,
    offset: Floats,
    blurs: int,
    weight: np.float32,
    gamma: np.float32,
    noise: Floats,
    out: NDArray[np.uint8],
) -> None:
    """Turn pictures (3, n, S, S) into photographs (n, 3, S, S); see `Camera`.

    The colours are mixed by (n, 3, 3), shifted by -1/2, multiplied by gain (n,) and shifted by offset (n,); then
    blurred `blurs` times with the weight, raised to gamma, and the noise (3, n, S, S) is added.
    """
    side = rgb.shape[2]
    half, white, none, one = np.float32(0.5), np.float32(255.0), np.float32(0.0), np.float32(1.0)
    plane, soft = np.empty((side, side), np.float32), np.empty((side, side), np.float32)
    flat = plane.reshape(-1)
    for n in range(rgb.shape[1]):
        red, green, blue = rgb[0, n].reshape(-1), rgb[1, n].reshape(-1), rgb[2, n].reshape(-1)
        for k in range(3):
            r, g, b = mixing[n, k, 0], mixing[n, k, 1], mixing[n, k, 2]
            for place in range(len(flat)):
                flat[place] = (((r * red[place] + g * green[place]) + b * blue[place]) - half) * gain[n] + offset[n]
            for _ in range(blurs):
                blur(plane, weight, soft)
            if gamma != one:
                for place in range(len(flat)):
                    flat[place] = min(max(flat[place], none), one) ** gamma
            grain, photograph = noise[k, n].reshape(-1), out[n, k].reshape(-1)
            for place in range(len(flat)):
                value = (flat[place] + grain[place]) * white + half
                photograph[place] = np.uint8(min(max(value, none), white))
