"""Views of places (counterpart of SUN397), told apart by layout and colour of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, public_functions


def _sky(c: Canvas) -> None:
    c.fill(c.colour((0.52, 0.64), (0.15, 0.6), (0.65, 1.0)), 0.1, 3)


def _below(c: Canvas, line: Array | float, colour: Array | Sequence[float]) -> None:
    c.shape(line - c.v, colour)


def beach(c: Canvas) -> None:
    _sky(c)
    h = c.level(-0.15, 0.15)
    _below(c, h - 0.2, c.colour((0.48, 0.6), (0.5, 0.85), (0.45, 0.75)))
    _below(c, h + 0.3 + 0.12 * np.sin(2.5 * c.u + c.level(0, 6)), c.colour((0.1, 0.14), (0.25, 0.5), (0.8, 1.0)))


def mountain(c: Canvas) -> None:
    _sky(c)
    peak, top = c.uniform(-0.35, 0.35), c.uniform(-0.75, -0.4)
    c.shape(c.polygon((peak, top), (1.3, 0.6), (-1.3, 0.6)), c.colour((0.55, 0.75), (0.05, 0.3), (0.3, 0.5)))
    c.shape(c.polygon((peak, top), (peak + 0.28, top + 0.3), (peak - 0.28, top + 0.3)), (0.97, 0.97, 1.0))
    _below(c, 0.5, c.colour((0.22, 0.38), (0.4, 0.7), (0.25, 0.5)))


def skyline(c: Canvas) -> None:
    _sky(c)
    for u in np.linspace(-0.9, 0.9, 7):
        height = c.uniform(0.3, 1.2)
        tower = c.box(float(u), 0.9 - height / 2, c.uniform(0.1, 0.16), height / 2 + 0.2)
        c.shape(tower, c.colour((0.55, 0.7), (0.0, 0.25), (0.15, 0.5)))


def woods(c: Canvas) -> None:
    c.fill(c.colour((0.22, 0.38), (0.4, 0.75), (0.35, 0.65)), 0.4, 8)
    for u in (-0.75, -0.3, 0.15, 0.65):
        width = c.level(0.06, 0.13)
        trunk = np.abs(c.u - (u + c.level(-0.12, 0.12))) - width
        c.shape(trunk, c.colour((0.05, 0.1), (0.3, 0.6), (0.12, 0.35)))


def sunset(c: Canvas) -> None:
    c.fill(c.colour((0.0, 0.1), (0.55, 0.9), (0.75, 1.0)), 0.12, 3)
    h = c.level(0.1, 0.35)
    sun = c.disk(c.uniform(-0.4, 0.4), h[:, 0, 0] - 0.15, c.uniform(0.2, 0.32))
    c.shape(sun, c.colour((0.12, 0.17), (0.3, 0.6), (0.95, 1.0)))
    _below(c, h, c.colour((0.7, 1.0), (0.3, 0.7), (0.12, 0.35)))


def road(c: Canvas) -> None:
    _sky(c)
    h = c.uniform(-0.2, 0.1)
    _below(c, h[:, None, None], c.colour((0.12, 0.34), (0.3, 0.6), (0.4, 0.65)))
    c.shape(c.polygon((-0.06, h), (0.06, h), (0.75, 1.3), (-0.75, 1.3)), c.colour((0, 1), (0, 0.08), (0.25, 0.45)))
    c.shape(c.polygon((-0.01, h), (0.01, h), (0.08, 1.3), (-0.08, 1.3)), (0.95, 0.95, 0.85))


def desert(c: Canvas) -> None:
    _sky(c)
    for level in (-0.15, 0.2, 0.6):
        crest = level + c.level(0.08, 0.2) * np.sin(c.level(1.5, 3.0) * c.u + c.level(0, 6))
        _below(c, crest, c.colour((0.06, 0.12), (0.45, 0.75), (0.6, 0.95)))


def harbor(c: Canvas) -> None:
    _sky(c)
    _below(c, c.level(0.15, 0.3), c.colour((0.5, 0.62), (0.4, 0.75), (0.3, 0.55)))
    for u in (-0.6, 0.0, 0.6):
        x = u + c.uniform(-0.12, 0.12)
        c.shape(c.box(x, -0.2, 0.025, 0.6), (0.35, 0.25, 0.2))
        hull = c.any_colour()
        c.shape(c.polygon((x - 0.27, 0.38), (x + 0.27, 0.38), (x + 0.18, 0.58), (x - 0.18, 0.58)), hull)
        c.shape(c.polygon((x + 0.03, -0.7), (x + 0.26, 0.22), (x + 0.03, 0.22)), (0.95, 0.95, 0.95))


def night(c: Canvas) -> None:
    c.fill(c.colour((0.6, 0.75), (0.4, 0.8), (0.06, 0.22)), 0.2, 3)
    c.shape(c.disk(c.uniform(-0.5, 0.5), c.uniform(-0.6, -0.2), c.uniform(0.16, 0.28)), (0.97, 0.95, 0.8))
    for _ in range(9):
        c.shape(c.disk(c.uniform(-1, 1), c.uniform(-1, 0.4), 0.035), (1, 1, 1))
    _below(c, c.level(0.5, 0.75), (0.03, 0.03, 0.05))


def waterfall(c: Canvas) -> None:
    c.fill(c.colour((0.05, 0.36), (0.15, 0.5), (0.2, 0.45)), 0.35, 6)
    width = c.level(0.16, 0.32)
    streaks = 0.8 + 0.2 * np.sin(22 * c.u + c.level(0, 6))
    c.paint(c.mask(np.abs(c.u - c.level(-0.2, 0.2)) - width) * streaks, (0.9, 0.95, 1.0))
    _below(c, c.level(0.55, 0.7), c.colour((0.48, 0.58), (0.25, 0.55), (0.6, 0.85)))


def house(c: Canvas) -> None:
    _sky(c)
    _below(c, c.level(0.4, 0.6), c.colour((0.22, 0.36), (0.4, 0.7), (0.35, 0.65)))
    c.shape(c.box(0, 0.22, 0.55, 0.38), c.any_colour())
    c.shape(c.polygon((0.0, -0.72), (0.72, -0.12), (-0.72, -0.12)), c.colour((-0.04, 0.08), (0.4, 0.8), (0.3, 0.65)))
    c.shape(c.box(0.0, 0.4, 0.11, 0.2), (0.25, 0.15, 0.1))
    for u in (-0.33, 0.33):
        c.shape(c.box(u, 0.12, 0.1, 0.1), (0.95, 0.9, 0.6))


def corridor(c: Canvas) -> None:
    c.fill(c.colour((0, 1), (0.0, 0.3), (0.75, 0.95)), 0.05, 3)
    far = c.uniform(0.2, 0.32)
    inner = far[:, None, None]
    c.shape(np.maximum(np.abs(c.u), inner) - np.abs(c.v) * np.sign(c.v), c.colour((0.04, 0.12), (0.2, 0.6), (0.3, 0.6)))
    c.shape(np.maximum(np.abs(c.v), inner) - np.abs(c.u), c.colour((0, 1), (0.05, 0.35), (0.5, 0.75)))
    c.shape(c.box(0, 0, far, far), c.colour((0, 1), (0, 0.3), (0.15, 0.4)))


CONCEPTS = public_functions(globals())
