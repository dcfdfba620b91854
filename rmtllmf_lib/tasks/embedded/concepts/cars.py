"""Vehicles seen from the side (counterpart of Stanford Cars), told apart by their profile."""

from __future__ import annotations

from rmtllmf_lib.tasks.embedded.draw import Array, Canvas, public_functions

GLASS = (0.75, 0.85, 0.95)
TYRE = (0.08, 0.08, 0.08)


def _street(c: Canvas) -> Array:
    """Draw sky or wall and a road; return the colour of the car's body."""
    body, wall = c.contrasting()
    c.fill(wall, 0.15, 3)
    c.shape(0.42 + c.level(-0.08, 0.08) - c.v, c.colour((0.0, 1.0), (0.0, 0.15), (0.2, 0.6)))
    return body


def _wheels(c: Canvas, *positions: float, r: float = 0.17) -> None:
    for u in positions:
        c.shape(c.disk(u, 0.42, r), TYRE)
        c.shape(c.disk(u, 0.42, 0.45 * r), (0.7, 0.7, 0.7))


def _profile(c: Canvas, body: Array, hull: tuple[float, float, float], cabin: tuple[float, ...], roof: float) -> None:
    """Draw a hull (left, right, top) and a cabin trapezoid (bottom left, top left, top right, bottom right)."""
    left, right, top = hull
    c.shape(c.polygon((left, top), (right, top + 0.05), (right + 0.04, 0.4), (left - 0.02, 0.4)), body)
    if cabin:
        a, b, d, e = cabin
        c.shape(c.polygon((a, top + 0.02), (b, roof), (d, roof), (e, top + 0.04)), body)
        inset = 0.07
        window = ((a + inset, top), (b + inset * 0.7, roof + 0.06), (d - 0.05, roof + 0.06), (e - 0.1, top))
        c.shape(c.polygon(*window), GLASS)


def sedan(c: Canvas) -> None:
    body = _street(c)
    _profile(c, body, (-0.9, 0.9, 0.03), (-0.55, -0.32, 0.22, 0.5), -0.3)
    _wheels(c, -0.55, 0.57)


def hatchback(c: Canvas) -> None:
    body = _street(c)
    _profile(c, body, (-0.65, 0.72, 0.0), (-0.66, -0.55, 0.12, 0.42), -0.4)
    _wheels(c, -0.42, 0.45)


def pickup(c: Canvas) -> None:
    body = _street(c)
    _profile(c, body, (-0.95, 0.92, 0.08), (-0.12, -0.06, 0.28, 0.5), -0.36)
    c.shape(c.box(-0.93, 0.0, 0.03, 0.12), body)
    _wheels(c, -0.6, 0.57, r=0.2)


def van(c: Canvas) -> None:
    body = _street(c)
    c.shape(c.polygon((-0.85, -0.52), (0.45, -0.52), (0.88, 0.0), (0.9, 0.4), (-0.85, 0.4)), body)
    c.shape(c.polygon((0.3, -0.4), (0.45, -0.4), (0.72, -0.03), (0.3, -0.03)), GLASS)
    _wheels(c, -0.52, 0.55)


def bus(c: Canvas) -> None:
    body = _street(c)
    c.shape(c.box(0.0, -0.1, 0.96, 0.5), body)
    for k in range(6):
        c.shape(c.box(-0.78 + 0.31 * k, -0.3, 0.12, 0.15), GLASS)
    _wheels(c, -0.62, 0.62, r=0.15)


def convertible(c: Canvas) -> None:
    body = _street(c)
    _profile(c, body, (-0.9, 0.9, 0.06), (), 0.0)
    c.shape(c.segment(0.12, 0.05, -0.02, -0.22, 0.03), TYRE)
    for u in (-0.3, -0.05):
        c.shape(c.disk(u, -0.08, 0.09), (0.25, 0.2, 0.18))
    _wheels(c, -0.55, 0.57)


def limousine(c: Canvas) -> None:
    body = _street(c)
    _profile(c, body, (-1.0, 1.0, 0.12), (-0.85, -0.72, 0.52, 0.75), -0.14)
    for u in (-0.45, -0.15, 0.15):
        c.shape(c.box(u, 0.0, 0.03, 0.13), body)
    _wheels(c, -0.72, 0.75, r=0.14)


def jeep(c: Canvas) -> None:
    body = _street(c)
    c.shape(c.box(-0.2, -0.22, 0.5, 0.35), body)
    c.shape(c.box(0.15, 0.18, 0.85, 0.2), body)
    for u in (-0.45, 0.0):
        c.shape(c.box(u, -0.3, 0.17, 0.15), GLASS)
    c.shape(c.disk(-0.8, 0.02, 0.17), TYRE)
    _wheels(c, -0.42, 0.62, r=0.24)


CONCEPTS = public_functions(globals())
