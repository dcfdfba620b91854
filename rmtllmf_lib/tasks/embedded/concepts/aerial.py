"""Objects from an aeroplane (counterpart of RESISC45): one object in its surroundings, in any direction."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, public_functions


def _ground(c: Canvas) -> None:
    c.fill(c.colour((0.08, 0.36), (0.15, 0.55), (0.3, 0.65)), 0.15, 5)


def _grey(c: Canvas, low: float, high: float) -> Array:
    return c.colour((0, 1), (0, 0.08), (low, high))


def _water(c: Canvas) -> None:
    c.fill(c.colour((0.5, 0.64), (0.4, 0.8), (0.3, 0.6)), 0.12, 8)


def airplane(c: Canvas) -> None:
    c.fill(_grey(c, 0.3, 0.6), 0.1, 4)
    body = _grey(c, 0.85, 1.0)
    c.shape(c.ellipse(0, 0, 0.8, 0.13), body)
    for side in (-1.0, 1.0):
        wing = ((0.22, 0.0), (-0.18, side * 0.8), (-0.36, side * 0.8), (-0.12, 0.0))
        c.shape(c.polygon(*(wing if side > 0 else wing[::-1])), body)
        tail = ((-0.55, 0.0), (-0.7, side * 0.32), (-0.82, side * 0.32), (-0.75, 0.0))
        c.shape(c.polygon(*(tail if side > 0 else tail[::-1])), body)


def runway(c: Canvas) -> None:
    _ground(c)
    c.shape(np.abs(c.v) - 0.32, _grey(c, 0.3, 0.5))
    dash = np.abs((c.u * 1.7) % 1.0 - 0.5) - 0.28
    c.paint(c.mask(np.abs(c.v) - 0.04) * np.clip(0.5 - 8 * dash, 0, 1), (1, 1, 1))
    for v in (-0.28, 0.28):
        c.shape(np.abs(c.v - v) - 0.02, (1, 1, 1))


def baseball_field(c: Canvas) -> None:
    c.fill(c.colour((0.24, 0.34), (0.4, 0.7), (0.4, 0.65)), 0.08, 4)
    fan = np.maximum(c.disk(0.0, 0.75, 1.25), np.abs(c.u) + 0.95 * c.v - 0.75)
    c.shape(fan, c.colour((0.06, 0.1), (0.45, 0.7), (0.55, 0.8)))
    c.shape(c.diamond(0.0, 0.25, 0.36), c.colour((0.24, 0.34), (0.4, 0.7), (0.4, 0.65)))


def tennis_court(c: Canvas) -> None:
    _ground(c)
    c.shape(c.box(0, 0, 0.85, 0.5), c.colour((0.0, 1.0), (0.45, 0.75), (0.35, 0.65)))
    line = np.abs(c.box(0, 0, 0.7, 0.36))
    for stroke in (line, np.abs(c.u) + 0.0 * c.v, np.maximum(np.abs(c.v), np.abs(c.u) - 0.4)):
        c.paint(c.mask(stroke - 0.035) * c.mask(c.box(0, 0, 0.74, 0.4)), (1, 1, 1))


def bridge(c: Canvas) -> None:
    _water(c)
    for side in (-1.0, 1.0):
        c.shape(0.72 - side * c.u + 0.1 * (c.noise(4) - 0.5), c.colour((0.15, 0.36), (0.3, 0.55), (0.3, 0.55)))
    c.shape(np.abs(c.v) - c.level(0.1, 0.17), _grey(c, 0.6, 0.85))
    c.shape(np.abs(c.v) - 0.02, _grey(c, 0.2, 0.35))


def storage_tanks(c: Canvas) -> None:
    _ground(c)
    r = c.uniform(0.24, 0.34)
    for u, v in ((-0.45, -0.45), (0.45, -0.45), (-0.45, 0.45), (0.45, 0.45)):
        c.shape(c.disk(u + 0.08, v + 0.08, r), (0.12, 0.12, 0.12))
        c.shape(c.disk(u, v, r), _grey(c, 0.8, 1.0))


def roundabout(c: Canvas) -> None:
    _ground(c)
    asphalt = _grey(c, 0.35, 0.55)
    for stroke in (np.abs(c.u) - 0.14 + 0.0 * c.v, np.abs(c.v) - 0.14 + 0.0 * c.u, c.disk(0, 0, 0.58)):
        c.shape(stroke, asphalt)
    c.shape(c.disk(0, 0, 0.3), c.colour((0.25, 0.36), (0.4, 0.7), (0.35, 0.6)))


def stadium(c: Canvas) -> None:
    c.fill(_grey(c, 0.4, 0.65), 0.1, 4)
    c.shape(c.ellipse(0, 0, 0.92, 0.7), _grey(c, 0.75, 0.95))
    c.shape(c.ellipse(0, 0, 0.66, 0.45), c.colour((0.0, 0.06), (0.4, 0.7), (0.5, 0.75)))
    c.shape(c.box(0, 0, 0.42, 0.24), c.colour((0.26, 0.34), (0.5, 0.8), (0.4, 0.65)))


def ship(c: Canvas) -> None:
    _water(c)
    hull = c.polygon((-0.8, -0.2), (0.4, -0.2), (0.88, 0.0), (0.4, 0.2), (-0.8, 0.2))
    c.shape(hull, c.colour((0, 1), (0, 0.7), (0.35, 0.8)))
    c.shape(c.box(-0.55, 0, 0.16, 0.14), (0.95, 0.95, 0.95))
    c.shape(c.box(0.05, 0, 0.28, 0.09), _grey(c, 0.2, 0.6))


def parking_lot(c: Canvas) -> None:
    c.fill(_grey(c, 0.3, 0.5), 0.05, 4)
    for v in (-0.6, 0.0, 0.6):
        for u in (-0.8, -0.48, -0.16, 0.16, 0.48, 0.8):
            c.paint(c.mask(c.box(u, v, 0.1, 0.19)) * c.coin(0.85)[:, None, None], c.any_colour())


def island(c: Canvas) -> None:
    _water(c)
    outline = c.disk(0, 0, c.uniform(0.55, 0.7)) + 0.4 * (c.noise(4) - 0.5)
    c.shape(outline - 0.1, c.colour((0.1, 0.14), (0.25, 0.5), (0.8, 0.95)))
    c.shape(outline + 0.06, c.colour((0.25, 0.38), (0.4, 0.7), (0.25, 0.5)))


def intersection(c: Canvas) -> None:
    _ground(c)
    asphalt = _grey(c, 0.35, 0.55)
    for across in (c.u, c.v):
        c.shape(np.abs(across) - 0.24, asphalt)
    for across, along in ((c.u, c.v), (c.v, c.u)):
        c.shape(np.maximum(np.abs(across) - 0.025, 0.3 - np.abs(along)), (0.95, 0.95, 0.9))


CONCEPTS = public_functions(globals())
