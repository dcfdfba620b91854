"""Land use from a satellite (counterpart of EuroSAT), told apart by colour, grain and layout."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, length, public_functions


def _green(c: Canvas, value: tuple[float, float] = (0.35, 0.6)) -> Array:
    return c.colour((0.2, 0.36), (0.3, 0.65), value)


def forest(c: Canvas) -> None:
    c.fill(c.colour((0.28, 0.42), (0.45, 0.8), (0.15, 0.32)), 0.45, 12)


def meadow(c: Canvas) -> None:
    c.fill(c.colour((0.14, 0.26), (0.3, 0.55), (0.4, 0.6)), 0.25, 5)
    c.paint(0.6 * np.clip(4.0 * (c.noise(6) - 0.55), 0, 1), _green(c, (0.2, 0.35)))


def pasture(c: Canvas) -> None:
    c.fill(c.colour((0.22, 0.32), (0.4, 0.65), (0.55, 0.75)), 0.06, 3)
    c.shape(np.abs(c.v - c.level(-0.7, 0.7)) - 0.05, _green(c, (0.15, 0.25)))
    c.shape(c.disk(c.uniform(-0.8, 0.8), c.uniform(-0.8, 0.8), c.uniform(0.08, 0.16)), _green(c, (0.15, 0.25)))


def cropland(c: Canvas) -> None:
    c.fill(c.colour((0.06, 0.3), (0.3, 0.6), (0.4, 0.75)), 0.05, 3)
    cut_u, cut_v = c.level(-0.35, 0.35), c.level(-0.35, 0.35)
    for side in (c.u - cut_u, cut_v - c.v, np.maximum(cut_u - c.u, c.v - cut_v)):
        c.shape(side, c.colour((0.05, 0.32), (0.25, 0.65), (0.35, 0.8)))
    furrow = 0.5 + 0.5 * np.sin(c.level(16, 22) * c.u)
    c.paint(0.25 * furrow * c.mask(c.v - cut_v), (0.25, 0.18, 0.1))


def orchard(c: Canvas) -> None:
    c.fill(c.colour((0.07, 0.16), (0.3, 0.55), (0.5, 0.75)), 0.1, 4)
    f = c.level(1.8, 2.6)
    a, b = (c.u * f) % 1.0 - 0.5, (c.v * f) % 1.0 - 0.5
    c.paint(np.clip(0.5 + (0.3 - length(a, b)) / (c.pixel * f), 0, 1), _green(c, (0.2, 0.35)))


def river(c: Canvas) -> None:
    c.fill(_green(c), 0.2, 5)
    bend = c.level(0.2, 0.45) * np.sin(c.level(1.8, 3.2) * c.v + c.level(0, 6))
    c.shape(np.abs(c.u - bend) - c.level(0.1, 0.22), c.colour((0.52, 0.64), (0.35, 0.7), (0.3, 0.55)))


def lake(c: Canvas) -> None:
    c.fill(_green(c), 0.2, 5)
    wobble = 0.35 * (c.noise(3) - 0.5)
    c.shape(c.disk(0.0, 0.0, c.uniform(0.55, 0.8)) + wobble, c.colour((0.54, 0.66), (0.45, 0.8), (0.25, 0.5)))


def highway(c: Canvas) -> None:
    c.fill(_green(c), 0.2, 4)
    c.shape(np.abs(c.v) - c.level(0.12, 0.2), c.colour((0, 1), (0, 0.1), (0.45, 0.7)))
    c.shape(np.abs(c.v) - 0.02, (0.95, 0.95, 0.9))
    c.shape(np.abs(c.u - c.level(-0.6, 0.6)) - 0.05, c.colour((0, 1), (0, 0.1), (0.45, 0.7)))


def residential(c: Canvas) -> None:
    c.fill(_green(c, (0.35, 0.5)), 0.15, 6)
    for v in (-0.55, 0.45):
        c.shape(np.abs(c.v - v) - 0.05, (0.55, 0.55, 0.55))
    for v in (-0.85, -0.25, 0.15, 0.75):
        for u in (-0.8, -0.3, 0.2, 0.7):
            jitter = c.uniform(-0.06, 0.06)
            c.shape(c.box(u + jitter, v, c.uniform(0.1, 0.16), 0.1), c.colour((0.0, 0.08), (0.3, 0.7), (0.5, 0.85)))


def industrial(c: Canvas) -> None:
    c.fill(c.colour((0, 1), (0, 0.12), (0.35, 0.55)), 0.08, 4)
    for u, v in ((-0.5, -0.5), (0.5, -0.45), (-0.1, 0.5)):
        hu, hv = c.uniform(0.25, 0.42), c.uniform(0.2, 0.35)
        c.shape(c.box(u, v, hu, hv), c.colour((0.5, 0.65), (0, 0.25), (0.7, 1.0)))
        c.shape(c.box(u, v, hu, 0.02), (0.5, 0.5, 0.5))


CONCEPTS = public_functions(globals())
