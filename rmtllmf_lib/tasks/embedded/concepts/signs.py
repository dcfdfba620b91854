"""Traffic signs (counterpart of GTSRB), told apart by shape, colour and pictogram."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import PRETRAINING_FONTS, Array, Canvas, glyph_atlas, length, public_functions

WHITE, BLACK = (0.95, 0.95, 0.95), (0.08, 0.08, 0.08)


def _roadside(c: Canvas) -> None:
    c.fill(c.colour((0.0, 1.0), (0.0, 0.45), (0.25, 0.85)), 0.4, 3)


def _red(c: Canvas) -> Array:
    return c.colour((-0.03, 0.03), (0.75, 1.0), (0.6, 0.9))


def _blue(c: Canvas) -> Array:
    return c.colour((0.57, 0.65), (0.7, 1.0), (0.5, 0.85))


def _ring_sign(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.disk(0, 0, 0.8), _red(c))
    c.shape(c.disk(0, 0, 0.58), WHITE)


def _blue_disk(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.disk(0, 0, 0.82), WHITE)
    c.shape(c.disk(0, 0, 0.76), _blue(c))


def _arrow(c: Canvas, *bends: tuple[float, float]) -> None:
    """Draw an arrow along a polyline; its head sits on the last point and points along the last segment."""
    for (u0, v0), (u1, v1) in zip(bends, bends[1:], strict=False):
        c.shape(c.segment(u0, v0, u1, v1, 0.09), WHITE)
    (u0, v0), (u1, v1) = bends[-2:]
    du, dv = (u1 - u0) / np.hypot(u1 - u0, v1 - v0), (v1 - v0) / np.hypot(u1 - u0, v1 - v0)
    tip, side = (u1 + 0.3 * du, v1 + 0.3 * dv), (-0.27 * dv, 0.27 * du)
    c.shape(c.polygon(tip, (u1 + side[0], v1 + side[1]), (u1 - side[0], v1 - side[1])), WHITE)


def stop(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.regular(8, 0.8, 0.5), WHITE)
    c.shape(c.regular(8, 0.73, 0.5), _red(c))
    for u in (-0.45, -0.15, 0.15, 0.45):
        c.shape(c.box(u, 0.0, 0.09, 0.2), WHITE)


def give_way(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.polygon((-0.85, -0.65), (0.85, -0.65), (0.0, 0.85)), _red(c))
    c.shape(c.polygon((-0.52, -0.46), (0.52, -0.46), (0.0, 0.48)), WHITE)


def no_entry(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.disk(0, 0, 0.8), _red(c))
    c.shape(c.box(0, 0, 0.55, 0.14), WHITE)


def priority(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.diamond(0, 0, 0.95), WHITE)
    c.shape(c.diamond(0, 0, 0.72), c.colour((0.11, 0.15), (0.8, 1.0), (0.8, 1.0)))


def speed_limit(c: Canvas) -> None:
    _ring_sign(c)
    atlas = glyph_atlas("0123456789", PRETRAINING_FONTS)
    tens = c.rng.integers(1, 10, c.n)
    font = c.rng.integers(0, len(PRETRAINING_FONTS), c.n) * 10
    for which, u in ((tens, -0.22), (np.zeros_like(tens), 0.22)):
        c.paint(c.glyph(atlas, font + which, u, 0.0, 0.42), BLACK)


def no_overtaking(c: Canvas) -> None:
    _ring_sign(c)
    for u, colour in ((-0.24, _red(c)), (0.24, np.broadcast_to(np.array(BLACK, np.float32), (c.n, 3)))):
        c.shape(c.box(u, 0.08, 0.17, 0.1), colour)
        c.shape(c.box(u, -0.08, 0.11, 0.1), colour)


def warning(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.polygon((0.0, -0.85), (0.9, 0.68), (-0.9, 0.68)), _red(c))
    c.shape(c.polygon((0.0, -0.5), (0.57, 0.49), (-0.57, 0.49)), WHITE)
    c.shape(c.box(0, 0.05, 0.07, 0.22), BLACK)
    c.shape(c.disk(0, 0.38, 0.07), BLACK)


def end_of_limits(c: Canvas) -> None:
    _roadside(c)
    c.shape(c.disk(0, 0, 0.8), (0.4, 0.4, 0.4))
    c.shape(c.disk(0, 0, 0.72), WHITE)
    for offset in (-0.16, 0.0, 0.16):
        c.shape(c.segment(-0.4 + offset, 0.4 + offset, 0.4 + offset, -0.4 + offset, 0.04), BLACK)


def turn_left(c: Canvas) -> None:
    _blue_disk(c)
    _arrow(c, (0.25, 0.45), (0.25, -0.1), (-0.2, -0.1))


def turn_right(c: Canvas) -> None:
    _blue_disk(c)
    _arrow(c, (-0.25, 0.45), (-0.25, -0.1), (0.2, -0.1))


def straight_ahead(c: Canvas) -> None:
    _blue_disk(c)
    _arrow(c, (0.0, 0.5), (0.0, -0.25))


def roundabout(c: Canvas) -> None:
    _blue_disk(c)
    radius, turn = length(c.u, c.v), np.arctan2(c.v, c.u)
    gaps = np.abs(((turn / (2 * np.pi) * 3) % 1.0) - 0.5) - 0.34
    c.paint(c.mask(np.abs(radius - 0.42) - 0.1) * np.clip(0.5 - gaps * 8, 0, 1), WHITE)


CONCEPTS = public_functions(globals(), suffix=" sign")
