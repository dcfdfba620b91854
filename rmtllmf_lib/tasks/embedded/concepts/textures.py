"""Surfaces that fill the frame (counterpart of the Describable Textures): told apart by pattern alone."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, length, public_functions


def _two_tone(c: Canvas, coverage: Array) -> None:
    front, back = c.contrasting()
    c.fill(back, 0.12, 4)
    c.paint(coverage, front)


def _wave(phase: Array, sharp: float = 2.5) -> Array:
    """Periodic coverage in [0, 1], with period 1 in the phase."""
    return np.clip(0.5 + sharp * np.sin(2.0 * np.pi * phase), 0.0, 1.0).astype(np.float32)


def _fraction(x: Array) -> Array:
    return x - np.floor(x)


def striped(c: Canvas) -> None:
    _two_tone(c, _wave(c.u * c.level(1.6, 3.2) + c.level(0, 1)))


def dotted(c: Canvas) -> None:
    f = c.level(1.3, 2.2)
    a, b = _fraction(c.u * f + c.level(0, 1)) - 0.5, _fraction(c.v * f + c.level(0, 1)) - 0.5
    _two_tone(c, np.clip(0.5 + (c.level(0.22, 0.32) - length(a, b)) / (c.pixel * f), 0, 1))


def checkered(c: Canvas) -> None:
    f = c.level(0.8, 1.7)
    product = np.sin(2 * np.pi * (c.u * f + c.level(0, 1))) * np.sin(2 * np.pi * (c.v * f + c.level(0, 1)))
    _two_tone(c, np.clip(0.5 + 4.0 * product, 0, 1))


def grid(c: Canvas) -> None:
    f, w = c.level(1.2, 2.2), c.level(0.12, 0.2)
    a, b = _fraction(c.u * f + c.level(0, 1)) - 0.5, _fraction(c.v * f + c.level(0, 1)) - 0.5
    _two_tone(c, np.clip(0.5 + (w - np.minimum(np.abs(a), np.abs(b))) / (c.pixel * f), 0, 1))


def zigzag(c: Canvas) -> None:
    f = c.level(1.2, 1.9)
    tooth = np.abs(_fraction(c.u * f + c.level(0, 1)) - 0.5)
    _two_tone(c, _wave(c.v * c.level(1.5, 2.4) + 1.6 * tooth))


def wavy(c: Canvas) -> None:
    swing = c.level(0.14, 0.24) * np.sin(2 * np.pi * (c.u * c.level(0.6, 1.0) + c.level(0, 1)))
    _two_tone(c, _wave((c.v + swing) * c.level(1.7, 2.6)))


def brick(c: Canvas) -> None:
    f = c.level(1.7, 2.6)
    row = c.v * f + c.level(0, 1)
    b = _fraction(row) - 0.5
    a = _fraction(c.u * f * 0.5 + 0.5 * (np.floor(row) % 2)) - 0.5
    joint = np.minimum(0.5 - np.abs(b), 2.0 * (0.5 - np.abs(a)))
    _two_tone(c, np.clip(0.5 + (joint - c.level(0.09, 0.14)) / (c.pixel * f), 0, 1))


def spiral(c: Canvas) -> None:
    r, a = length(c.u, c.v), np.arctan2(c.v, c.u)
    turn = np.where(c.coin(), 1.0, -1.0).astype(np.float32)[:, None, None]
    _two_tone(c, _wave(r * c.level(1.6, 2.6) + turn * a / (2 * np.pi) + c.level(0, 1)))


def honeycomb(c: Canvas) -> None:
    f, height = c.level(1.2, 1.9), np.float32(np.sqrt(3.0))
    x, y = c.u * f + c.level(0, 1), c.v * f + c.level(0, 1)
    edge = np.full_like(x, 9.0)
    second = edge.copy()
    for du, dv in ((0.0, 0.0), (0.5, height / 2)):
        a = _fraction(x + du) - 0.5
        b = (_fraction((y + dv) / height) - 0.5) * height
        distance = np.maximum(np.abs(a), 0.5 * np.abs(a) + 0.866 * np.abs(b))
        second = np.minimum(second, np.maximum(edge, distance))
        edge = np.minimum(edge, distance)
    _two_tone(c, np.clip(0.5 + (0.5 - c.level(0.09, 0.13) - edge) / (c.pixel * f), 0, 1))


def marbled(c: Canvas) -> None:
    warp = c.noise(3) * 2.2 + c.noise(7) * 0.7
    _two_tone(c, _wave(warp + 0.3 * c.u * c.level(0.0, 1.0), 1.2))


CONCEPTS = public_functions(globals())
