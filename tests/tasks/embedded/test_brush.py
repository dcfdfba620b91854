"""The compiled loops of drawing, bit by bit against NumPy, which rounds every step to float32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.tasks.embedded import brush

N, S = 3, 7
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=20, deadline=None)


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@few
@given(seeds, st.floats(-30, 30))
def test_distance_is_that_of_the_c_library(seed: int, exponent: float) -> None:
    u, v = (numbers(seed + k, 500) * np.float32(2.0**exponent) for k in (0, 1))
    out = np.empty_like(u)
    brush.distance(u, v, out)
    assert np.array_equal(out, np.hypot(u, v))


@few
@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_painting(seed: int, dtype: type) -> None:
    rgb, colour, signed = numbers(seed, 3, N, S, S), numbers(seed + 1, N, 3), numbers(seed + 2, N, S, S).astype(dtype)
    pixel = np.abs(numbers(seed + 3, N)) + np.float32(0.1)
    coverage = np.clip(0.5 - signed / pixel[:, None, None], 0.0, 1.0)
    expected = rgb.copy()
    for k in range(3):
        expected[k] += coverage * (colour[:, k, None, None] - expected[k])
    shape, painted = rgb.copy(), rgb.copy()
    brush.paint_shape(shape, signed, pixel, colour)
    brush.paint(painted, coverage, colour)
    assert np.array_equal(shape, expected)
    assert np.array_equal(painted, expected)


@few
@given(seeds, st.integers(1, 6))
def test_interpolation(seed: int, cells: int) -> None:
    grid, t = numbers(seed, N, cells + 1, cells + 1), np.abs(numbers(seed + 1, S)) % 1
    low = np.random.default_rng(seed).integers(0, cells, S)
    rows = grid[:, low] * (1 - t)[None, :, None] + grid[:, low + 1] * t[None, :, None]
    out = np.empty((N, S, S), np.float32)
    brush.interpolate(grid, low, t, out)
    assert np.array_equal(out, rows[:, :, low] * (1 - t) + rows[:, :, low + 1] * t)


@few
@given(seeds, st.integers(1, 5))
def test_edges(seed: int, count: int) -> None:
    u, v, edges = numbers(seed, N, S, S), numbers(seed + 1, N, S, S), numbers(seed + 2, count, 3, N)
    nu, nv, offset = edges.transpose(1, 0, 2)[..., None, None]
    out = np.empty_like(u)
    brush.beyond(u, v, edges, out)
    assert np.array_equal(out, (u * nu + v * nv - offset).max(axis=0))


@few
@given(seeds)
def test_stamping(seed: int) -> None:
    masks, u, v = numbers(seed, 4, 5, 5), numbers(seed + 1, N, S, S), numbers(seed + 2, N, S, S)
    which = np.random.default_rng(seed).integers(0, 4, N)
    cu, cv, half = numbers(seed + 3, N), numbers(seed + 4, N), np.abs(numbers(seed + 5, N)) + np.float32(0.2)
    column, row = (((x - c[:, None, None]) / half[:, None, None] * 0.5 + 0.5) * 5 for x, c in ((u, cu), (v, cv)))
    inside = (column >= 0) & (column < 5) & (row >= 0) & (row < 5)
    place = [np.clip(x, 0, 4).astype(np.intp) for x in (row, column)]
    out = np.empty_like(u)
    brush.stamp(masks, which, u, v, cu, cv, half, out)
    assert np.array_equal(out, masks[which[:, None, None], place[0], place[1]] * inside)


@few
@given(seeds, st.integers(0, 2), st.sampled_from([0.4, 1.0]), st.sampled_from([0.9, 1.0, 1.25]))
def test_developing(seed: int, blurs: int, part: float, gamma: float) -> None:
    rgb, mixing, noise = numbers(seed, 3, N, S, S), numbers(seed + 1, N, 3, 3), numbers(seed + 2, 3, N, S, S)
    gain, offset = numbers(seed + 3, N), numbers(seed + 4, N)
    out = np.empty((N, 3, S, S), np.uint8)
    brush.develop(rgb, mixing, gain, offset, blurs, np.float32(part), np.float32(gamma), noise, out)
    for n in range(N):
        for k in range(3):
            m = mixing[n, k]
            plane = ((m[0] * rgb[0, n] + m[1] * rgb[1, n] + m[2] * rgb[2, n]) - np.float32(0.5)) * gain[n] + offset[n]
            for _ in range(blurs):
                plane = plane + (binomial(binomial(plane).T).T - plane) * np.float32(part)
            if gamma != 1:
                plane = np.clip(plane, 0, 1) ** np.float32(gamma)
            exact = np.clip((plane + noise[k, n]) * np.float32(255) + np.float32(0.5), 0, 255)
            far = np.abs(exact - np.round(exact)) > 1e-3  # powers differ in their last bit from processor to processor
            assert (out[n, k] == exact.astype(np.uint8))[far | (gamma == 1)].all()


def binomial(plane: np.ndarray) -> np.ndarray:
    soft = plane.copy()
    soft[1:-1] = plane[1:-1] * np.float32(0.5) + (plane[:-2] + plane[2:]) * np.float32(0.25)
    return soft


def test_a_blur_keeps_what_is_even() -> None:
    even = np.full((1, 1, S, S), 0.25, np.float32).repeat(3, 0)
    out = np.empty((1, 3, S, S), np.uint8)
    one = np.ones(1, np.float32)
    brush.develop(
        even, np.eye(3, dtype=np.float32)[None], one, 0.5 * one, 2, one[0], one[0], 0 * even, out
    )  # fmt: skip
    assert (out == 64).all()
    assert out.dtype == np.uint8


@pytest.mark.parametrize("kernel", [k for k in vars(brush).values() if hasattr(k, "py_func")])
def test_holds_no_lock(kernel: object) -> None:
    """Blocks are drawn in threads."""
    assert kernel.targetoptions["nogil"]  # type: ignore[attr-defined]
