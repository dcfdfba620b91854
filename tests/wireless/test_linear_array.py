"""A uniform linear array: responses, angular spread against scattered paths, and the surrogate covariance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.linear_array import (
    arriving_cov,
    azimuths,
    draw_places,
    response,
    sensed_directions,
    spread_correlation,
    surrogate_cov,
    uplinks_from,
)
from rmtllmf_lib.wireless.receiver import lmmse_filter, sic_mse

angles = st.floats(-1.5, 1.5)


def test_the_phase_is_that_of_the_way_to_each_antenna() -> None:
    """Against the distances from a far source to antennas half a wavelength apart along the y axis."""
    wavelength, theta = 0.125, 0.4
    far = 1e6 * np.array([np.cos(theta), np.sin(theta)])
    antennas = np.column_stack([np.zeros(5), wavelength / 2 * np.arange(5)])
    way = np.linalg.norm(far - antennas, axis=1)
    expected = np.exp(-2j * np.pi * (way - way[0]) / wavelength)
    np.testing.assert_allclose(response(theta, 5), expected, atol=1e-5)


def test_spread_is_the_mean_over_scattered_paths() -> None:
    rng = np.random.default_rng(0)
    theta, spread = 0.5, np.deg2rad(5)
    paths = response(theta + spread * rng.standard_normal(200_000), 8)
    found = np.einsum("ni,nj->ij", paths, paths.conj()) / len(paths)
    assert np.abs(found - spread_correlation(theta, spread, 8)).max() < 0.02  # the model is of first order


@given(angles, st.floats(0, 0.34), st.integers(1, 12))
def test_it_is_a_correlation_matrix(theta: float, spread: float, rx: int) -> None:
    R = spread_correlation(theta, spread, rx)
    np.testing.assert_allclose(R.diagonal(), 1)
    np.testing.assert_allclose(R, R.conj().T)
    assert np.linalg.eigvalsh(R)[0] > -1e-9


def test_without_spread_there_is_one_path() -> None:
    a = response([0.1, -0.7], 6)
    np.testing.assert_allclose(spread_correlation([0.1, -0.7], 0.0, 6), a[:, :, None] * a[:, None, :].conj())


def test_azimuths_and_the_half_plane() -> None:
    np.testing.assert_allclose(azimuths([[1, 0], [1, 1], [2, -2]]), [0, np.pi / 4, -np.pi / 4])
    with pytest.raises(InputError, match="x = -3 m"):
        azimuths([[1, 0], [-3, 1]])
    with pytest.raises(InputError, match="x = 0 m"):
        azimuths([0, 1])
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        azimuths([1, 2, 3])


@pytest.mark.parametrize("theta", [np.pi / 2, -2.0, np.pi])
def test_a_jammer_behind_the_array_is_refused(theta: float) -> None:
    for refused in (
        lambda: response(theta, 4),
        lambda: arriving_cov([0.1, theta], 1.0, 0.0, 4),
        lambda: surrogate_cov([theta], 1.0, 1.0, 4),
        lambda: sensed_directions([theta], 0.1, np.random.default_rng(0)),
    ):
        with pytest.raises(InputError, match="azimuth has .* degrees"):
            refused()


def test_places_are_before_the_array_in_the_sector() -> None:
    places = draw_places((5000, 2), np.random.default_rng(1), nearest_m=10, farthest_m=20, widest_deg=30)
    distance, azimuth = np.linalg.norm(places, axis=-1), azimuths(places)
    assert places.shape == (5000, 2, 2)
    assert distance.min() >= 10 - 1e-9 and distance.max() <= 20 + 1e-9
    assert np.abs(azimuth).max() <= np.deg2rad(30) + 1e-9
    assert abs(distance.mean() - 15) < 0.2 and abs(azimuth.mean()) < 0.02


def test_fading_has_the_spread_and_the_gain_of_its_place() -> None:
    places = np.broadcast_to(np.array([[300.0, 100.0], [200.0, -400.0]]), (20_000, 2, 2))
    uplink = uplinks_from(places, np.random.default_rng(2), spread=0.15, num_rx_antennas=4)
    for q, place in enumerate(places[0]):
        h = uplink.H[..., q]
        found = np.einsum("ni,nj->ij", h, h.conj()) / len(h)
        wavelength = 299_792_458 / 2.4e9
        gain = (wavelength / (4 * np.pi * np.linalg.norm(place))) ** 2  # free space
        expected = gain * spread_correlation(np.arctan2(place[1], place[0]), 0.15, 4)
        np.testing.assert_allclose(found, expected, atol=0.05 * gain)


def test_a_jammer_s_power_is_what_it_brings_to_the_antennas() -> None:
    C = arriving_cov([[0.1, 0.5], [-0.2, 0.9]], [1.0, 3.0], 0.1, 8)
    np.testing.assert_allclose(np.einsum("...ii->...", C), 4.0)
    alone = arriving_cov([0.5], 3.0, 0.1, 8)
    np.testing.assert_allclose(C[0] - arriving_cov([0.1], 1.0, 0.1, 8), alone)


def test_filters_for_the_true_surrogate_have_the_largest_sinr() -> None:
    """Against the generalised Rayleigh quotient, `max |w g|^2 / (w K w^H) = g^H K^-1 g`."""
    rng = np.random.default_rng(3)
    uplink = uplinks_from(draw_places((3,), rng), rng, spread=0.1, num_rx_antennas=6)
    scaled = Uplink(uplink.H, uplink.power / uplink.noise_floor, 1.0)
    C = surrogate_cov([0.3, -0.4], 50.0, 1.0, 6)
    a = response([0.3, -0.4], 6)
    by_hand = np.eye(6) + 50 * sum(np.outer(each, each.conj()) for each in a)
    np.testing.assert_allclose(C, by_hand)
    F = lmmse_filter(scaled, C)
    for q in range(3):
        others = [k for k in range(3) if k != q]
        K = C + scaled.G[:, others] @ scaled.G[:, others].conj().T
        sinr = abs(F[q] @ scaled.G[:, q]) ** 2 / (F[q] @ K @ F[q].conj()).real
        best = (scaled.G[:, q].conj() @ np.linalg.solve(K, scaled.G[:, q])).real
        np.testing.assert_allclose(sinr, best, rtol=1e-9)


def test_one_path_jammers_and_their_surrogate_are_the_same() -> None:
    rng = np.random.default_rng(4)
    uplink = uplinks_from(draw_places((5, 3), rng), rng, spread=0.1, num_rx_antennas=6)
    theta, power = np.array([0.3, -0.5]), 7 * uplink.noise_floor[0]
    true = uplink.thermal_cov + arriving_cov(theta, 6 * power, 0.0, 6)
    sensed = surrogate_cov(theta, power, uplink.noise_floor[0], 6)
    np.testing.assert_allclose(sic_mse(uplink, true), sic_mse(uplink, sensed))


def test_sensed_directions() -> None:
    theta = np.full(20_000, 0.2)
    found = sensed_directions(theta, 0.05, np.random.default_rng(5))
    assert abs(found.std() - 0.05) < 0.002 and abs(found.mean() - 0.2) < 0.002
    assert (sensed_directions(theta, 0.0, np.random.default_rng(5)) == theta).all()
    assert (np.abs(sensed_directions(theta, 9.0, np.random.default_rng(5))) < np.pi / 2).all()


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(InputError, match="spread is 0.5"):
        spread_correlation(0.1, 0.5, 4)
    with pytest.raises(InputError, match="at least one user"):
        uplinks_from(np.zeros((0, 2)), rng, spread=0.1)
    with pytest.raises(InputError, match="a direction for each jammer"):
        surrogate_cov(0.1, 1.0, 1.0, 4)
    with pytest.raises(InputError, match="power"):
        arriving_cov([0.1], -1.0, 0.1, 4)
    with pytest.raises(InputError, match="widest_deg"):
        draw_places((2,), rng, widest_deg=90.0)
