"""Plain shapes and everyday things: for pre-training only, so that the base learns more than its eight tasks."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, length, public_functions


def _on_ground(c: Canvas) -> Array:
    front, back = c.contrasting()
    c.fill(back, 0.2, 3)
    return front


def circle(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.disk(0, 0, c.uniform(0.45, 0.75)), front)


def ring(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(np.abs(c.disk(0, 0, c.uniform(0.45, 0.65))) - c.level(0.08, 0.16), front)


def square(c: Canvas) -> None:
    front = _on_ground(c)
    side = c.uniform(0.4, 0.65)
    c.shape(c.box(0, 0, side, side), front)


def bar(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.box(0, 0, 0.8, c.uniform(0.12, 0.25)), front)


def triangle(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.polygon((0.0, -0.7), (0.75, 0.6), (-0.75, 0.6)), front)


def cross(c: Canvas) -> None:
    front, width = _on_ground(c), c.uniform(0.12, 0.22)
    c.shape(np.minimum(c.box(0, 0, 0.75, width), c.box(0, 0, width, 0.75)), front)


def star(c: Canvas) -> None:
    front = _on_ground(c)
    turn = np.abs((np.arctan2(c.u, -c.v) / (2 * np.pi) * 5 + 0.5) % 1.0 - 0.5) * 2.0
    c.shape(length(c.u, c.v) - (0.8 - 0.48 * turn).astype(np.float32), front)


def hexagon(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.regular(6, 0.62), front)


def arrow(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.box(-0.2, 0, 0.5, 0.13), front)
    c.shape(c.polygon((0.85, 0.0), (0.2, 0.45), (0.2, -0.45)), front)


def flower(c: Canvas) -> None:
    _on_ground(c)
    petals = c.any_colour()
    for k in range(6):
        a = np.pi * k / 3
        c.shape(c.disk(0.42 * float(np.cos(a)), 0.42 * float(np.sin(a)), 0.26), petals)
    c.shape(c.disk(0, 0, 0.24), c.colour((0.1, 0.16), (0.7, 1.0), (0.7, 1.0)))


def tree(c: Canvas) -> None:
    _on_ground(c)
    c.shape(c.box(0, 0.55, 0.09, 0.4), c.colour((0.05, 0.1), (0.4, 0.7), (0.2, 0.45)))
    c.shape(c.disk(0, -0.2, c.uniform(0.4, 0.58)), c.colour((0.22, 0.4), (0.4, 0.85), (0.25, 0.6)))


def fish(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.ellipse(0.12, 0, 0.58, 0.3), front)
    c.shape(c.polygon((-0.4, 0.0), (-0.8, 0.35), (-0.8, -0.35)), front)
    c.shape(c.disk(0.42, -0.06, 0.06), (0.05, 0.05, 0.05))


def face(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(c.disk(0, 0, 0.75), front)
    for u in (-0.28, 0.28):
        c.shape(c.disk(u, -0.2, 0.1), (0.05, 0.05, 0.05))
    c.shape(np.maximum(np.abs(c.disk(0, 0.05, 0.42)) - 0.05, 0.15 - c.v), (0.05, 0.05, 0.05))


def cup(c: Canvas) -> None:
    front = _on_ground(c)
    c.shape(np.abs(c.disk(0.5, 0.05, 0.25)) - 0.06, front)
    c.shape(c.polygon((-0.5, -0.5), (0.5, -0.5), (0.38, 0.6), (-0.38, 0.6)), front)


CONCEPTS = public_functions(globals())
