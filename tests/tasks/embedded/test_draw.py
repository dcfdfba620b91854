"""Shapes against plain geometry, random numbers, painting, glyphs."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from canvases import canvas, still
from rmtllmf_lib.tasks.embedded.draw import (
    SIZE,
    TASK_FONTS,
    Array,
    Canvas,
    Pose,
    glyph_atlas,
    hsv,
    length,
    public_functions,
)

seeds = st.integers(0, 2**32 - 1)
small_numbers = st.floats(-0.9, 0.9)
sizes = st.floats(0.05, 0.9)
few = settings(max_examples=15, deadline=None)


# --- geometry ---------------------------------------------------------------------------------------------------------


def to_outline(c: Canvas, corners: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Distance of every pixel to the nearest side: to the line where its foot lies between the corners."""
    pixel = c.u.astype(float) + 1j * c.v
    gaps = []
    for first, second in zip(corners, [*corners[1:], corners[0]], strict=True):
        a, b = complex(*first), complex(*second)
        along = (pixel - a) * (b - a).conjugate() / abs(b - a)  # turned so that the side lies on the real axis
        ends = np.minimum(abs(pixel - a), abs(pixel - b))
        gaps.append(np.where((0 <= along.real) & (along.real <= abs(b - a)), abs(along.imag), ends))
    return np.minimum.reduce(gaps)


def even_odd(c: Canvas, corners: list[tuple[float, float]]) -> NDArray[np.bool_]:
    """Inside, by the number of sides that a ray to the right crosses."""
    inside = np.zeros(c.u.shape, bool)
    for (u0, v0), (u1, v1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        crosses = (v0 > c.v) != (v1 > c.v)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (c.u < u0 + (c.v - v0) * (u1 - u0) / np.float64(v1 - v0))
    return inside


def assert_signed(distance: Array, inside: NDArray[np.bool_], gap: NDArray[np.float64], slack: float = 2e-3) -> None:
    """Exact inside; outside positive and no longer than the true distance. `gap` is the distance to the outline."""
    clear = gap > slack
    assert ((distance < 0) == inside)[clear].all()
    np.testing.assert_allclose(-distance[inside & clear], gap[inside & clear], atol=slack)
    assert (distance <= gap + slack)[~inside].all()


@st.composite
def convex(draw_from: st.DrawFn) -> list[tuple[float, float]]:
    """Corners on an ellipse, clockwise on the screen (v points down)."""
    steps = draw_from(st.lists(st.integers(15, 170), min_size=3, max_size=7))
    turns = np.cumsum([k * 2 * math.pi / sum(steps) for k in steps])
    cu, cv, ru, rv = (draw_from(x) for x in (small_numbers, small_numbers, st.floats(0.3, 1.2), st.floats(0.3, 1.2)))
    return [(cu + ru * math.cos(a), cv + rv * math.sin(a)) for a in turns]


@few
@given(convex(), seeds)
def test_polygon(corners: list[tuple[float, float]], seed: int) -> None:
    c = canvas(seed)
    assert_signed(c.polygon(*corners), even_odd(c, corners), to_outline(c, corners))
    shifts = np.array([0.0, 0.25, -0.5], np.float32)  # each image its own corners
    moved = c.polygon(*((u + shifts, v) for u, v in corners))
    for k, shift in enumerate(shifts):
        alone = c.polygon(*((u + float(shift), v) for u, v in corners))
        np.testing.assert_allclose(moved[k], alone[k], atol=1e-5)


@few
@given(small_numbers, small_numbers, sizes, seeds)
def test_disk(u: float, v: float, r: float, seed: int) -> None:
    c = canvas(seed)
    true = np.sqrt((c.u.astype(float) - u) ** 2 + (c.v.astype(float) - v) ** 2) - r
    np.testing.assert_allclose(c.disk(u, v, r), true, atol=1e-5)
    np.testing.assert_allclose(c.disk(u, v, np.full(c.n, r, np.float32)), true, atol=1e-5)
    np.testing.assert_allclose(c.ellipse(u, v, r, r), true, atol=1e-4)


@few
@given(small_numbers, small_numbers, sizes, sizes, seeds)
def test_box(u: float, v: float, hu: float, hv: float, seed: int) -> None:
    c = canvas(seed)
    corners = [(u - hu, v - hv), (u + hu, v - hv), (u + hu, v + hv), (u - hu, v + hv)]
    gap = to_outline(c, corners)
    inside = (np.abs(c.u - u) < hu) & (np.abs(c.v - v) < hv)
    assert_signed(c.box(u, v, hu, hv), inside, gap)


@few
@given(small_numbers, small_numbers, small_numbers, small_numbers, sizes, seeds)
def test_segment(u0: float, v0: float, u1: float, v1: float, width: float, seed: int) -> None:
    c = canvas(seed, n=1)
    points = np.linspace((u0, v0), (u1, v1), 500)
    gaps = np.hypot(c.u[..., None] - points[:, 0], c.v[..., None] - points[:, 1])
    np.testing.assert_allclose(c.segment(u0, v0, u1, v1, width), gaps.min(-1) - width, atol=3e-3)


@few
@given(small_numbers, small_numbers, sizes, sizes, seeds)
def test_ellipse_has_the_right_outline(u: float, v: float, ru: float, rv: float, seed: int) -> None:
    c = canvas(seed)
    level = ((c.u - u) / ru) ** 2 + ((c.v - v) / rv) ** 2
    clear = np.abs(level - 1) > 1e-3
    assert ((c.ellipse(u, v, ru, rv) < 0) == (level < 1))[clear].all()


@few
@given(small_numbers, small_numbers, sizes, seeds)
def test_diamond(u: float, v: float, r: float, seed: int) -> None:
    c = canvas(seed)
    corners = [(u, v - r), (u + r, v), (u, v + r), (u - r, v)]
    assert_signed(c.diamond(u, v, r), even_odd(c, corners), to_outline(c, corners))


@pytest.mark.parametrize("sides", [3, 5, 6, 8])
@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_regular(sides: int, turn: float) -> None:
    c, half = canvas(1), math.pi / sides
    turns = [2 * math.pi * (k + turn) / sides + half for k in range(sides)]  # from the top, clockwise
    corners = [(0.6 / math.cos(half) * math.sin(a), -0.6 / math.cos(half) * math.cos(a)) for a in turns]
    assert_signed(c.regular(sides, 0.6, turn), even_odd(c, corners), to_outline(c, corners))


def test_coverage_adds_up_to_the_area() -> None:
    c = still()
    pixel = (2 / SIZE) ** 2
    for distance, area in (
        (c.disk(0.1, -0.05, 0.6), math.pi * 0.36),
        (c.box(0.03, 0.1, 0.5, 0.31), 4 * 0.5 * 0.31),
        (c.polygon((0.0, -0.7), (0.75, 0.6), (-0.75, 0.6)), 0.75 * 1.3),
    ):
        assert c.mask(distance).sum() * pixel == pytest.approx(area, rel=0.01)
    assert set(np.unique(c.mask(c.disk(0, 0, 0.6)))) > {0.0, 1.0}


@few
@given(seeds)
def test_object_coordinates_are_a_turned_scaled_shifted_grid(seed: int) -> None:
    c = canvas(seed, n=4)
    for axis in (1, 2):
        steps = np.hypot(np.diff(c.u, axis=axis), np.diff(c.v, axis=axis))
        np.testing.assert_allclose(steps, np.broadcast_to(c.pixel, steps.shape), rtol=1e-3)
    right = np.stack([np.diff(c.u, axis=2)[:, :31], np.diff(c.v, axis=2)[:, :31]])
    down = np.stack([np.diff(c.u, axis=1)[:, :, :31], np.diff(c.v, axis=1)[:, :, :31]])
    assert (np.abs((right * down).sum(0)) < 1e-4).all()
    assert ((0.5 <= 2 / SIZE / c.pixel) & (2 / SIZE / c.pixel <= 1.5)).all()


def test_pose_keeps_to_its_ranges() -> None:
    grid = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    np.testing.assert_allclose(still().u[0], np.broadcast_to(grid, (SIZE, SIZE)), atol=1e-6)
    np.testing.assert_allclose(still().v[0], np.broadcast_to(grid[:, None], (SIZE, SIZE)), atol=1e-6)
    c = canvas(n=400, pose=Pose((0, 0), (1, 1), 0.2, True))
    mirrored = c.u[:, 0, 0] > c.u[:, 0, -1]
    assert 130 < mirrored.sum() < 270  # half of them: six standard deviations are 60
    for moved in (np.abs(c.u.mean((1, 2))), np.abs(c.v.mean((1, 2)))):
        assert 0.15 < moved.max() <= 0.2 + 1e-6
    turned = canvas(n=400, pose=Pose((-30, 30), (1, 1), 0))
    angle = np.rad2deg(np.arctan2(turned.v[:, 0, 0] - turned.v[:, 0, -1], turned.u[:, 0, -1] - turned.u[:, 0, 0]))
    assert 25 < np.abs(angle).max() <= 30.01


# --- colours and painting ---------------------------------------------------------------------------------------------


@few
@given(st.floats(0, 1, width=32, exclude_max=True), st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_hsv_is_that_of_the_standard_library(hue: float, saturation: float, value: float) -> None:
    colour = hsv(*(np.array([x], np.float32) for x in (hue, saturation, value)))
    assert colour.dtype == np.float32
    np.testing.assert_allclose(colour[0], colorsys.hsv_to_rgb(hue, saturation, value), atol=1e-5)


@few
@given(seeds)
def test_random_numbers_keep_to_their_ranges(seed: int) -> None:
    c = canvas(seed, n=50)
    first, second = c.contrasting()
    for colour in (c.any_colour(), first, second, c.colour((-0.2, 1.3), (0, 1), (0, 1))):
        assert colour.shape == (50, 3) and colour.dtype == np.float32
        assert ((colour >= 0) & (colour <= 1)).all()
    luma = np.array([0.3, 0.59, 0.11])
    assert (np.abs(first @ luma - second @ luma) > 0.28).all()
    field = c.noise(5)
    assert field.shape == (50, SIZE, SIZE) and (0 <= field).all() and (field <= 1).all()
    assert (field.std((1, 2)) > 0.05).all() and (np.abs(np.diff(field, axis=1)) < 0.5).all()
    numbers = c.uniform(-2.0, 3.0)
    assert numbers.dtype == np.float32 and ((numbers >= -2) & (numbers <= 3)).all()


def test_coins_have_their_probability() -> None:
    c = canvas(n=2000)
    assert not c.coin(0.0).any() and c.coin(1.0).all()
    assert abs(int(c.coin(0.3).sum()) - 600) < 5 * math.sqrt(2000 * 0.21)


def test_paint_mixes_by_coverage() -> None:
    c = still(2)
    c.fill((0.2, 0.4, 0.6))
    before = c.rgb.copy()
    c.paint(np.zeros((2, SIZE, SIZE), np.float32), (1, 1, 1))
    assert np.array_equal(c.rgb, before)
    coverage = np.zeros((2, SIZE, SIZE), np.float32)
    coverage[:, :8], coverage[:, 8:16] = 1.0, 0.5
    c.paint(coverage, np.array([[1, 0, 0], [0, 1, 0]], np.float32))
    np.testing.assert_allclose(c.rgb[:, 0, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(c.rgb[:, 1, 0, 0], [0, 1, 0])
    np.testing.assert_allclose(c.rgb[:, 0, 10, 0], [0.6, 0.2, 0.3])
    assert np.array_equal(c.rgb[:, :, 16:], before[:, :, 16:])


def test_fill_is_even_unless_mottled() -> None:
    c = still()
    c.fill((0.5, 0.25, 0.1))
    assert [len(np.unique(plane)) for plane in c.rgb] == [1, 1, 1]
    c.fill((0.5, 0.25, 0.1), mottle=0.2)
    light = c.rgb[0, 0] / 0.5
    assert 0.8 <= light.min() < 0.9 < 1.1 < light.max() <= 1.2
    np.testing.assert_allclose(c.rgb[1, 0] / 0.25, light, rtol=1e-5)  # light changes, the colour does not


# --- glyphs -----------------------------------------------------------------------------------------------------------


def test_glyph_stands_upright_where_it_is_put() -> None:
    marked = np.zeros((2, 48, 48), np.float32)
    marked[1, :24, :24] = 1.0  # the upper left quarter
    c = still()
    coverage = c.glyph(marked, np.array([1]), 0.25, -0.25, 0.5)
    expected = (c.u > -0.25) & (c.u < 0.25) & (c.v > -0.75) & (c.v < -0.25)
    assert np.array_equal(coverage > 0, expected)
    assert not c.glyph(marked, np.array([0]), 0.25, -0.25, 0.5).any()


def test_atlas_holds_every_character_of_every_font() -> None:
    characters_ = "0123456789"
    atlas = glyph_atlas(characters_, TASK_FONTS)
    assert atlas.shape == (len(TASK_FONTS) * 10, 48, 48) and atlas.dtype == np.float32
    assert 0 <= atlas.min() and 0.9 < atlas.max() <= 1
    tiles = atlas.reshape(len(TASK_FONTS), 10, -1)
    for font in tiles:
        gaps = np.abs(font[:, None] - font[None]).mean(-1)
        assert gaps[~np.eye(10, dtype=bool)].min() > 0.02
    ink = [np.flatnonzero(tile.max(1) > 0.5) for tile in atlas]  # rows with ink: centred, four fifths of the tile
    assert all(34 <= rows[-1] - rows[0] + 1 <= 40 and abs(rows[0] + rows[-1] - 47) <= 3 for rows in ink)
    alone = glyph_atlas("3", TASK_FONTS)
    assert np.array_equal(alone, atlas[3::10])
    assert np.array_equal(glyph_atlas(characters_, TASK_FONTS[1:2]), atlas[10:20])  # font by font


def test_what_does_not_fit_the_canvas_is_refused() -> None:
    """Compiled loops read on beyond the end of an array."""
    c = canvas(n=3)
    with pytest.raises(ValueError, match="broadcast"):
        c.paint(np.ones((2, SIZE, SIZE), np.float32), (1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="broadcast"):
        c.shape(c.u, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="broadcast"):
        c.polygon((0.0, 0.0), (np.ones(2, np.float32), 0.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="broadcast"):
        length(c.u, c.v[:2])
    with pytest.raises(IndexError):
        c.glyph(np.ones((4, 5, 5), np.float32), np.array([0, 1, 4]), 0.0, 0.0, 0.5)
    expected = np.hypot(c.u, c.v[:1, :1])
    assert np.array_equal(length(c.u, c.v[:1, :1]), expected) and expected.shape == c.u.shape


def test_concepts_are_the_public_functions_of_a_module_in_order() -> None:
    def no_entry(c: Canvas) -> None: ...
    def barn(c: Canvas) -> None: ...
    def _helper(c: Canvas) -> None: ...

    module = {"__name__": __name__, "no_entry": no_entry, "length": length, "_helper": _helper, "SIZE": 1, "barn": barn}
    assert list(public_functions(module).items()) == [("no entry", no_entry), ("barn", barn)]
    assert list(public_functions(module, suffix=" sign")) == ["no entry sign", "barn sign"]
