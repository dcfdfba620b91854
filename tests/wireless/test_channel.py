"""The uplink, its budget and its draws."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import (
    LinkBudget,
    Uplink,
    draw_distances,
    draw_fading,
    draw_uplinks,
    exponential_correlation,
    thermal_noise_w,
    uplinks_at,
)
from rmtllmf_lib.wireless.path_loss import PathLoss
from rmtllmf_lib.wireless.receiver import sic_mse

H = np.arange(24).reshape(2, 3, 4) + 1j


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_uplink_derives_what_follows_from_its_three_fields() -> None:
    uplink = Uplink(H, np.array([1.0, 4, 9, 0]), np.array([2.0, 3.0]))
    assert (uplink.num_rx_antennas, uplink.num_users, uplink.batch_shape) == (3, 4, (2,))
    np.testing.assert_allclose(uplink.G, H * [1, 2, 3, 0])
    np.testing.assert_allclose(uplink.received_power, np.linalg.norm(uplink.G, axis=1) ** 2)
    np.testing.assert_allclose(uplink.thermal_cov, np.stack([2 * np.eye(3), 3 * np.eye(3)]))
    assert uplink[1].batch_shape == () and uplink[1].noise_floor == 3
    np.testing.assert_array_equal(uplink[::-1].H, H[::-1])
    np.testing.assert_array_equal(uplink[1:].power, uplink.power[1:])
    np.testing.assert_array_equal(uplink[1:].noise_floor, [3])
    np.testing.assert_array_equal(uplink[np.array([True, False])].power, uplink.power[:1])
    assert uplink.H.dtype == np.complex128 and uplink.power.shape == (2, 4)
    with pytest.raises(ValueError, match="read-only"):
        uplink.H[0] = 0
    with pytest.raises(InputError, match=r"batch has shape \(2,\)"):
        uplink[5]


def test_drops_can_be_gone_through() -> None:
    uplink = Uplink(H[None].repeat(3, axis=0), np.arange(1.0, 7).reshape(3, 2, 1).repeat(4, axis=2), 1)
    rows = list(uplink)
    assert [row.batch_shape for row in rows] == [(2,)] * 3
    drops = [drop for row in uplink for drop in row]
    assert [drop.power[0] for drop in drops] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(drops[3].H, uplink[1, 1].H)
    with pytest.raises(InputError, match="a single drop"):
        list(drops[0])


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"H": H[0, 0]}, r"H has shape \(4,\)"),
        ({"H": H[:, :, :0]}, r"H has shape \(2, 3, 0\)"),
        ({"H": H[:, :0]}, r"H has shape \(2, 0, 4\)"),
        ({"H": H * np.nan}, "H holds NaN or infinity"),
        ({"H": [["a"]]}, "H has dtype"),
        ({"H": [[1, 2], [3]]}, "H is ragged"),
        ({"power": np.ones(3)}, r"power has shape \(3,\): expected \(..., user\) = \(2, 4\), as H \(2, 3, 4\)"),
        ({"power": np.ones((3, 4))}, r"power has shape \(3, 4\): expected \(..., user\) = \(2, 4\)"),
        ({"power": -np.ones(4)}, "power is -1 at its smallest: expected at least 0"),
        ({"power": np.ones(4) * 1j}, "power has dtype complex128: expected real numbers"),
        ({"power": np.full(4, np.inf)}, "power holds NaN or infinity"),
        ({"noise_floor": -1e-20}, "noise_floor is -1e-20 at its smallest"),
        ({"noise_floor": np.ones(3)}, r"noise_floor has shape \(3,\): expected \(...\) = \(2,\)"),
    ],
)
def test_bad_uplinks(changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Uplink(**{"H": H, "power": np.ones(4), "noise_floor": np.asarray(1.0), **changed})


def test_thermal_noise_is_174_dbm_in_a_hertz() -> None:
    assert 10 * np.log10(thermal_noise_w(1.0) * 1e3) == pytest.approx(-173.975, abs=1e-3)
    assert thermal_noise_w(2e5, 10) == pytest.approx(2e6 * thermal_noise_w(1.0))
    assert LinkBudget(noise_figure_db=3).noise_floor_w == thermal_noise_w(180e3, 3)
    for bad in ({"bandwidth_hz": 0}, {"noise_figure_db": -1}, {"power_w": -1}, {"power_w": 1j}, {"power_w": [1, 2]}):
        with pytest.raises(InputError, match=next(iter(bad))):
            LinkBudget(**bad)


def test_distances_are_uniform_by_distance_or_by_area(rng: np.random.Generator) -> None:
    d = draw_distances((5000,), rng)
    assert stats.kstest(d, stats.uniform(100, 900).cdf).pvalue > 0.001
    d = draw_distances((5000,), rng, placement="area", nearest_m=50, farthest_m=200)
    assert stats.kstest(d**2, stats.uniform(2500, 37500).cdf).pvalue > 0.001
    assert (draw_distances((3,), rng, nearest_m=5, farthest_m=5) == 5).all()
    for bad in ({"placement": "grid"}, {"nearest_m": 0}, {"farthest_m": 99}):
        with pytest.raises(InputError, match=next(iter(bad))):
            draw_distances((3,), rng, **bad)


def test_rayleigh_fading(rng: np.random.Generator) -> None:
    power = np.abs(draw_fading((4000, 2, 3), rng)) ** 2
    assert stats.kstest(power[:, 0, 0], stats.expon.cdf).pvalue > 0.001
    assert power.mean() == pytest.approx(1, abs=0.03)


def test_rician_fading(rng: np.random.Generator) -> None:
    h = draw_fading((20000, 4, 1), rng, rician_k_db=6.0)
    k = 10**0.6
    power = np.abs(h) ** 2
    assert power.mean() == pytest.approx(1, abs=0.02)
    assert (power**2).mean() == pytest.approx((2 + 4 * k + k**2) / (1 + k) ** 2, rel=0.03)
    steep = draw_fading((5, 4, 3), rng, rician_k_db=200.0)  # the direct path alone: one phase step per user
    np.testing.assert_allclose(np.abs(steep), 1, atol=1e-9)
    steps = steep[:, 1:] / steep[:, :-1]
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones((1, 3, 1)), atol=1e-9)


def test_correlated_fading(rng: np.random.Generator) -> None:
    R = exponential_correlation(3, 0.6j)
    assert R[0, 2] == 0.6j**2 and R[2, 0] == np.conj(0.6j**2)
    h = draw_fading((40000, 3, 1), rng, rx_correlation=R)[..., 0]
    np.testing.assert_allclose(np.einsum("ni,nj->ij", h, h.conj()) / len(h), R, atol=0.03)
    same = draw_fading((2, 3, 2), rng, rx_correlation=np.ones((3, 3)))  # fully correlated: singular
    np.testing.assert_allclose(same, same[:, :1] * np.ones((1, 3, 1)), atol=1e-7)
    for bad, message in (
        (np.eye(2), r"shape \(2, 2\): expected \(rx, rx\) = \(3, 3\)"),
        (2 * np.eye(3), "not a correlation matrix"),
        (np.eye(3) + np.triu(np.ones((3, 3)), 1), "not a correlation matrix"),
        (1.9 * np.eye(3) - 0.9 * np.ones((3, 3)), "rx_correlation is indefinite"),
    ):
        with pytest.raises(InputError, match=message):
            draw_fading((2, 3, 2), rng, rx_correlation=bad)
    with pytest.raises(InputError, match="modulus at most 1"):
        exponential_correlation(3, 1.1)


def test_the_paper_s_setting() -> None:
    uplink = draw_uplinks(6000, np.random.default_rng(3))
    assert uplink.H.shape == (6000, 16, 8)
    assert (uplink.power == 1e-4).all()
    gain = (np.abs(uplink.H) ** 2).mean(axis=1)
    wavelength = 299_792_458 / 2.4e9
    expected = (wavelength / (4 * np.pi)) ** 2 / (100 * 1000)  # the mean of 1 / d^2 over 100…1000 m
    assert gain.mean() == pytest.approx(expected, rel=0.03)
    mse = sic_mse(uplink, uplink.thermal_cov).mean(-1)
    assert mse.mean() == pytest.approx(0.01303, abs=4 * mse.std() / 6000**0.5)


def test_draws_follow_the_generator_and_the_places() -> None:
    one, same = (draw_uplinks(3, np.random.default_rng(1), num_users=2) for _ in range(2))
    np.testing.assert_array_equal(one.H, same.H)
    louder = dataclasses.replace(LinkBudget(), power_w=1.0, path_loss=PathLoss(carrier_hz=1.2e9))
    far = draw_uplinks(3, np.random.default_rng(1), num_users=2, budget=louder)
    np.testing.assert_allclose(far.H, 2 * one.H, rtol=1e-12)
    rng = np.random.default_rng(2)
    near = uplinks_at([[100.0, 1000.0]] * 4000, rng, num_rx_antennas=4)
    ratio = (np.abs(near.H) ** 2).mean(axis=(0, 1))
    assert ratio[0] / ratio[1] == pytest.approx(100, rel=0.05)
    shadowed = draw_uplinks(3, rng, budget=LinkBudget(path_loss=PathLoss("UMi")), rician_k_db=3.0)
    assert shadowed.batch_shape == (3,)


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"n": 1.5}, {"n": True}, {"num_users": 0}, {"num_rx_antennas": 0}, {"rician_k_db": np.nan}]
)
def test_bad_draws(rng: np.random.Generator, bad: dict) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        draw_uplinks(**{"n": 2, "rng": rng, **bad})


def test_bad_places(rng: np.random.Generator) -> None:
    for distance in (np.ones((2, 0)), 5.0, [0.0, 1.0], [1.0, np.nan]):
        with pytest.raises(InputError, match="distance_m"):
            uplinks_at(distance, rng)
    with pytest.raises(InputError, match="shape"):
        draw_fading((3,), rng)


def test_one_noise_floor_is_stored_once() -> None:
    many = draw_uplinks(300, np.random.default_rng(0), num_rx_antennas=32)
    C = many.thermal_cov
    assert C.shape == (300, 32, 32)
    assert C.base is not None and C.strides[0] == 0
    np.testing.assert_array_equal(C[7], many.noise_floor[7] * np.eye(32))
    own = Uplink(many.H, many.power, many.noise_floor * np.linspace(1, 2, 300))
    np.testing.assert_array_equal(own.thermal_cov[7], own.noise_floor[7] * np.eye(32))
    np.testing.assert_array_equal(sic_mse(many, C), sic_mse(many, np.array(C)))


def test_large_thermal_covariances_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    uplink = Uplink(np.ones((3, 4, 2)), 1.0, [1.0, 2.0, 3.0])
    monkeypatch.setattr("rmtllmf_lib.wireless.channel._LARGE", 500)
    with pytest.warns(UserWarning, match=r"\(3, 4, 4\) takes"):
        assert uplink.thermal_cov.shape == (3, 4, 4)


@pytest.mark.parametrize("dtype", [np.complex64, np.float32])
def test_correlations_measured_in_single_precision(dtype: type) -> None:
    R = exponential_correlation(3, 0.7).real.astype(dtype)
    R[0, 1] *= 1 + 1e-6
    single, double = (
        draw_fading((2, 3, 2), np.random.default_rng(0), rx_correlation=each)
        for each in (R, exponential_correlation(3, 0.7))
    )
    np.testing.assert_allclose(single, double, atol=1e-5)
    with pytest.raises(InputError, match="rx_correlation is not a correlation"):
        draw_fading((2, 3, 2), np.random.default_rng(0), rx_correlation=R.astype(complex))
