"""Colour, light, sharpness and noise of the cameras."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from canvases import PLAIN, still
from rmtllmf_lib.tasks.embedded import brush
from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.draw import SIZE

hues, saturations = st.floats(-180, 180), st.floats(-1, 2)
few = settings(max_examples=15, deadline=None)


@few
@given(hues, saturations)
def test_colour_response_keeps_grey(hue: float, saturation: float) -> None:
    matrix = Camera(hue=hue, saturation=saturation).matrix()
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix @ np.ones(3), np.ones(3), atol=1e-5)
    tinted = Camera(hue=hue, saturation=saturation, tint=(0.5, 1.0, 2.0)).matrix()
    np.testing.assert_allclose(tinted @ np.ones(3), [0.5, 1.0, 2.0], atol=1e-5)


@few
@given(hues)
def test_hue_is_a_rotation(hue: float) -> None:
    matrix = Camera(hue=hue).matrix().astype(float)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)
    assert (np.trace(matrix) - 1) / 2 == pytest.approx(math.cos(math.radians(hue)), abs=1e-5)


def test_special_colour_responses() -> None:
    np.testing.assert_allclose(Camera().matrix(), np.eye(3), atol=1e-6)
    red, green, blue = Camera(hue=120).matrix().T  # where the primaries go
    np.testing.assert_allclose([red, green, blue], np.eye(3)[[1, 2, 0]], atol=1e-6)
    grey = Camera(saturation=0).matrix()
    np.testing.assert_allclose(grey, np.tile([0.3, 0.59, 0.11], (3, 1)), atol=1e-6)


def blurred(plane: NDArray[np.float32], part: float) -> NDArray[np.float32]:
    soft = plane.copy()
    brush.blur(soft[0], np.float32(part), np.empty_like(soft[0]))
    return soft


def test_blur_keeps_the_light_inside() -> None:
    spot = np.zeros((1, 9, 9), np.float32)
    spot[0, 4, 4] = 1.0
    soft = blurred(spot, 1.0)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(soft[0, 3:6, 3:6], kernel, atol=1e-7)
    assert soft.sum() == pytest.approx(1) and blurred(soft, 1.0).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(blurred(spot, 0.25), 0.75 * spot + 0.25 * soft, atol=1e-7)
    ramp = np.add.outer(np.arange(9), 2 * np.arange(9)).astype(np.float32)[None]
    np.testing.assert_allclose(blurred(ramp, 0.7)[:, 1:-1, 1:-1], ramp[:, 1:-1, 1:-1], atol=1e-5)


def photograph(camera: Camera, colour: tuple[float, ...], n: int = 1) -> NDArray[np.uint8]:
    c = still(n)
    c.fill(colour)
    return camera.photograph(c)


def test_photograph_develops_to_bytes() -> None:
    plain = photograph(PLAIN, (0.0, 0.5, 1.0), n=2)
    assert plain.shape == (2, 3, SIZE, SIZE) and plain.dtype == np.uint8
    assert [int(x) for x in plain[0, :, 0, 0]] == [0, 128, 255] and len(np.unique(plain)) == 3
    beyond = photograph(Camera(gain=(3, 3), contrast=(2, 2), noise=(0, 0)), (0.0, 0.5, 1.0))
    assert [int(x) for x in beyond[0, :, 0, 0]] == [0, 255, 255]  # clipped, not wrapped around
    dark = photograph(Camera(gamma=2.0, gain=(1, 1), contrast=(1, 1), noise=(0, 0)), (0.5, 0.5, 0.5))
    assert int(dark[0, 0, 0, 0]) == 64
    flat = photograph(Camera(gain=(1, 1), contrast=(0.5, 0.5), noise=(0, 0)), (0.0, 0.5, 1.0))
    assert [int(x) for x in flat[0, :, 0, 0]] == [64, 128, 191]
    tinted = photograph(Camera(tint=(1, 0.5, 0), gain=(1, 1), contrast=(1, 1), noise=(0, 0)), (0.8, 0.8, 0.8))
    assert [int(x) for x in tinted[0, :, 0, 0]] == [204, 102, 0]


def test_noise_and_clutter_are_those_of_the_camera() -> None:
    noisy = photograph(Camera(gain=(1, 1), contrast=(1, 1), noise=(0.05, 0.05)), (0.5, 0.5, 0.5), n=20)
    assert noisy.std() / 255 == pytest.approx(0.05, rel=0.02)
    cluttered = photograph(Camera(gain=(1, 1), contrast=(1, 1), noise=(0, 0), clutter=0.5), (0.5, 0.5, 0.5), n=200)
    touched = (cluttered != 128).any((1, 2, 3)).sum()
    assert 65 < touched < 135
    mixed = photograph(Camera(gain=(1, 1), contrast=(1, 1), noise=(0, 0), jitter=0.1), (0.5, 0.5, 0.5), n=200)
    colours = mixed[:, :, 0, 0] / 255.0 - 0.5
    assert colours.std() == pytest.approx(0.1 * 0.5 * math.sqrt(3), rel=0.15)
