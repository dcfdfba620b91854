"""Receivers against textbook formulas, Monte Carlo, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.receiver import (
    error_cov,
    lmmse_error_cov,
    lmmse_filter,
    lmmse_mse,
    require_noise_cov,
    sic_filters,
    sic_mse,
    sic_order,
    sic_rates,
    sum_rate,
    sum_rate_published,
)
from wireless import colored, complex_normal, later_users, qam64, textbook_filters, textbook_rates, unit_uplink

ORDERS = ["weakest-first", "strongest-first"]
SYMBOLS = {"Gaussian": complex_normal, "64-QAM": qam64}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rx, users", [(6, 4), (3, 5), (4, 1), (1, 3)])
def test_rates_and_filters_are_the_textbook_s(rng: np.random.Generator, order: str, rx: int, users: int) -> None:
    uplink, C = unit_uplink(rng, 3, rx=rx, users=users), colored(rng, 3, rx=rx)
    rates, W, joint = sic_rates(uplink, C, order), sic_filters(uplink, C, order), lmmse_filter(uplink, C)
    for i in range(3):
        np.testing.assert_allclose(rates[i], textbook_rates(uplink[i], C[i], order), rtol=1e-11)
        np.testing.assert_allclose(W[i], textbook_filters(uplink[i], C[i], order), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(joint[i], textbook_filters(uplink[i], C[i], None), rtol=1e-9, atol=1e-12)
    A = uplink.G.conj().swapaxes(-1, -2) @ np.linalg.inv(C) @ uplink.G
    np.testing.assert_allclose(lmmse_error_cov(uplink, C), np.linalg.inv(np.eye(users) + A), atol=1e-12)
    np.testing.assert_allclose(sum_rate_published(uplink, C), np.log1p(np.einsum("...ii", A).real), rtol=1e-12)
    np.testing.assert_allclose(rates.sum(-1), np.linalg.slogdet(np.eye(users) + A)[1], rtol=1e-12)
    np.testing.assert_allclose(rates.sum(-1), sum_rate(uplink, C), rtol=1e-12)


@pytest.mark.parametrize("symbols", SYMBOLS)
@pytest.mark.parametrize("order", ORDERS)
def test_mse_is_what_symbols_meet(rng: np.random.Generator, order: str, symbols: str) -> None:
    """Matched and unaware of the jammer, all within 3 standard errors."""
    count = 100_000
    uplink, C = unit_uplink(rng), colored(rng)
    s = SYMBOLS[symbols](rng, uplink.num_users, count)
    z = np.linalg.cholesky(C) @ complex_normal(rng, uplink.num_rx_antennas, count)
    for design in (C, uplink.thermal_cov):
        W, joint = sic_filters(uplink, design, order), lmmse_filter(uplink, design)
        errors = []
        for q, later in enumerate(later_users(uplink, order)):
            heard = [q, *later]
            errors.append(s[q] - W[q] @ (uplink.G[:, heard] @ s[heard] + z))
        for e, expected in (
            (np.array(errors), error_cov(uplink, C, design, order)),
            (s - joint @ (uplink.G @ s + z), error_cov(uplink, C, design, receiver="lmmse")),
        ):
            power = np.abs(e) ** 2
            assert (abs(power.mean(1) - np.diag(expected).real) < 3 * power.std(1) / count**0.5).all()
            cross = e[0] * e[1].conj()
            assert abs(cross.mean() - expected[0, 1]) < 3 * cross.std() / count**0.5
    np.testing.assert_allclose(np.diag(error_cov(uplink, C, C, order)).real, sic_mse(uplink, C, order), rtol=1e-12)
    np.testing.assert_allclose(
        np.diag(error_cov(uplink, C, C, receiver="lmmse")).real, lmmse_mse(uplink, C), rtol=1e-12
    )


def test_matched_sic_errors_are_uncorrelated(rng: np.random.Generator) -> None:
    uplink, C = unit_uplink(rng, 5), colored(rng, 5)
    for order in ORDERS:
        expected = sic_mse(uplink, C, order)[..., None] * np.eye(4)
        np.testing.assert_allclose(error_cov(uplink, C, order=order), expected, rtol=0, atol=0)
        np.testing.assert_allclose(error_cov(uplink, C, C, order), expected, atol=1e-13)
    np.testing.assert_array_equal(error_cov(uplink, C, receiver="lmmse"), lmmse_error_cov(uplink, C))


@pytest.mark.parametrize("order", ORDERS)
def test_subtracting_linear_estimates_is_joint_lmmse(rng: np.random.Generator, order: str) -> None:
    """An uncoded analog link has no gain from cancellation.

    Each user is estimated from what is left, the errors made about the users before included.
    """
    uplink, C = unit_uplink(rng), colored(rng)
    G, users = uplink.G, uplink.num_users
    residual = np.eye(users, dtype=complex)  # of s, after subtracting what is known: s - s^ = residual s + noise z
    noise = np.zeros((users, 6), dtype=complex)
    left_s, left_z = G.copy(), np.eye(6, dtype=complex)  # y minus estimates = left_s s + left_z z
    for q in sic_order(uplink, order):
        cov = left_s @ left_s.conj().T + left_z @ C @ left_z.conj().T
        # the best linear estimate of what remains of s_q, from what remains of y
        filt = (residual[q] @ left_s.conj().T + noise[q] @ C @ left_z.conj().T) @ np.linalg.pinv(cov, rcond=1e-12)
        residual[q], noise[q] = residual[q] - filt @ left_s, noise[q] - filt @ left_z
        left_s = left_s - np.outer(G[:, q], filt @ left_s)
        left_z = left_z - np.outer(G[:, q], filt @ left_z)
    E = residual @ residual.conj().T + noise @ C @ noise.conj().T
    np.testing.assert_allclose(E, lmmse_error_cov(uplink, C), atol=1e-10)
    assert (lmmse_mse(uplink, C) >= sic_mse(uplink, C, order) * (1 - 1e-12)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
def test_what_must_not_change_the_rates(seed: int, rx: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    uplink, C = unit_uplink(rng, rx=rx, users=users), colored(rng, rx=rx)
    rotation = np.linalg.qr(complex_normal(rng, rx, rx))[0]
    turned = Uplink(rotation @ uplink.H, uplink.power, uplink.noise_floor)
    shuffle = rng.permutation(users)
    shuffled = Uplink(uplink.H[:, shuffle], uplink.power[shuffle], uplink.noise_floor)
    for order in ORDERS:
        rates = sic_rates(uplink, C, order)
        np.testing.assert_allclose(sic_rates(turned, rotation @ C @ rotation.conj().T, order), rates, rtol=1e-10)
        np.testing.assert_allclose(sic_rates(shuffled, C, order), rates[shuffle], rtol=1e-11)
        np.testing.assert_allclose(rates.sum(), sum_rate(uplink, C), rtol=1e-12)
    published, right = sum_rate_published(uplink, C), sum_rate(uplink, C)
    assert published <= right * (1 + 1e-12)
    assert users > 1 or published == pytest.approx(right, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.sampled_from(ORDERS))
def test_what_must_not_change_the_errors(seed: int, rx: int, users: int, order: str) -> None:
    """Of receivers that believe in another covariance, the hardest case; filters turn with the antennas."""
    rng = np.random.default_rng(seed)
    uplink, C, design = (
        unit_uplink(rng, rx=rx, users=users),
        colored(rng, rx=rx),
        colored(rng, rx=rx) + 0.1 * np.eye(rx),
    )
    turn = np.linalg.qr(complex_normal(rng, rx, rx))[0]
    turned = Uplink(turn @ uplink.H, uplink.power, uplink.noise_floor)
    turned_C, turned_design = (turn @ cov @ turn.conj().T for cov in (C, design))
    shuffle = rng.permutation(users)
    shuffled = Uplink(uplink.H[:, shuffle], uplink.power[shuffle], uplink.noise_floor)
    for receiver in ("sic", "lmmse"):
        E = error_cov(uplink, C, design, order, receiver=receiver)
        close = {"rtol": 1e-8, "atol": 1e-9 * np.abs(E).max()}
        np.testing.assert_allclose(error_cov(turned, turned_C, turned_design, order, receiver=receiver), E, **close)
        mixed = error_cov(shuffled, C, design, order, receiver=receiver)
        np.testing.assert_allclose(mixed, E[np.ix_(shuffle, shuffle)], **close)
        assert np.linalg.eigvalsh(E).min() >= -1e-12 * np.abs(E).max()
    for filters in (lmmse_filter, sic_filters):
        F = filters(uplink, design)
        np.testing.assert_allclose(filters(turned, turned_design) @ turn, F, rtol=1e-8, atol=1e-9 * np.abs(F).max())


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e-3, 1e6])
def test_scaling_power_and_noise_together_changes_nothing(rng: np.random.Generator, scale: float) -> None:
    uplink, C = unit_uplink(rng, 4), colored(rng, 4)
    scaled = Uplink(uplink.H, uplink.power * scale, uplink.noise_floor * scale)
    for order in ORDERS:
        np.testing.assert_allclose(sic_rates(scaled, C * scale, order), sic_rates(uplink, C, order), rtol=1e-12)
        np.testing.assert_allclose(sic_mse(scaled, C * scale, order), sic_mse(uplink, C, order), rtol=1e-12)
    for rate in (sum_rate, sum_rate_published):
        np.testing.assert_allclose(rate(scaled, C * scale), rate(uplink, C), rtol=1e-12)
    np.testing.assert_allclose(lmmse_error_cov(scaled, C * scale), lmmse_error_cov(uplink, C), atol=1e-13)
    for filters in (sic_filters, lmmse_filter):
        expected = filters(uplink, C) / np.sqrt(scale)
        np.testing.assert_allclose(filters(scaled, C * scale), expected, rtol=1e-10, atol=1e-12 / np.sqrt(scale))
    np.testing.assert_allclose(
        error_cov(scaled, C * scale, scaled.thermal_cov), error_cov(uplink, C, uplink.thermal_cov), atol=1e-11
    )


def test_weak_and_strong_users_keep_their_digits() -> None:
    for power in (1e-18, 1e-9, 1.0, 1e12):
        uplink = Uplink(np.array([[0.6], [0.8j]]), np.asarray(power), np.asarray(1.0))
        assert sic_rates(uplink, np.eye(2))[0] == pytest.approx(np.log1p(power), rel=1e-13, abs=0)
        assert lmmse_mse(uplink, np.eye(2))[0] == pytest.approx(1 / (1 + power), rel=1e-12, abs=0)


def test_order_and_its_ties() -> None:
    uplink = Uplink(np.eye(4), np.array([2.0, 1.0, 2.0, 1.0]), np.asarray(1.0))
    assert sic_order(uplink).tolist() == [1, 3, 0, 2]
    assert sic_order(uplink, "strongest-first").tolist() == [0, 2, 1, 3]
    many = Uplink(np.ones((2, 100)), np.tile([1.0, 2.0], 50), np.asarray(1.0))
    assert sic_order(many).tolist() == [*range(0, 100, 2), *range(1, 100, 2)]
    assert sic_order(many, "strongest-first").tolist() == [*range(1, 100, 2), *range(0, 100, 2)]


def test_one_covariance_meets_many_drops_and_one_drop_many_covariances(rng: np.random.Generator) -> None:
    uplink, C = unit_uplink(rng, 300), colored(rng, 2, 1)
    rates = sic_rates(uplink, C)
    assert rates.shape == (2, 300, 4)
    np.testing.assert_allclose(rates[1, 299], sic_rates(uplink[299], C[1, 0]), rtol=1e-13)
    np.testing.assert_allclose(sic_filters(uplink, C)[1, 7], sic_filters(uplink[7], C[1, 0]), rtol=1e-12)
    one = uplink[3]
    np.testing.assert_allclose(sic_rates(one, C[:, 0])[1], sic_rates(one, C[1, 0]), rtol=1e-13)
    assert error_cov(one, C[:, 0], one.thermal_cov).shape == (2, 4, 4)


def test_no_drop_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"batch of drops has shape \(0,\)"):
        sic_mse(unit_uplink(rng), np.empty((0, 6, 6)))


def test_covariances_of_any_memory_layout(rng: np.random.Generator) -> None:
    drops = draw_uplinks(3, rng, num_users=2, num_rx_antennas=6)
    one = drops.noise_floor[0] * colored(rng)
    repeated = np.array(np.broadcast_to(one, (3, 6, 6)))  # numpy keeps the drops innermost in memory
    assert not repeated.flags.c_contiguous
    np.testing.assert_array_equal(sic_rates(drops, repeated), sic_rates(drops, np.ascontiguousarray(repeated)))


def test_published_gap_between_the_sum_rates() -> None:
    """White noise, unit gains, 0 dB: what is printed as (4) is a small part of (13)."""
    rng = np.random.default_rng(0)
    uplink = Uplink(complex_normal(rng, 200, 16, 8), np.asarray(1.0), np.asarray(1.0))
    C = uplink.thermal_cov
    assert (sum_rate_published(uplink, C) < sum_rate(uplink, C)).all()
    assert sum_rate_published(uplink, C).mean() == pytest.approx(np.log(1 + 128), abs=0.05)


def test_strongest_first_has_the_lower_mean_mse() -> None:
    uplink = draw_uplinks(2000, np.random.default_rng(1))
    weak, strong = (sic_mse(uplink, uplink.thermal_cov, order).mean() for order in ORDERS)
    assert strong < weak < lmmse_mse(uplink, uplink.thermal_cov).mean()
    assert sic_mse(uplink, uplink.thermal_cov).std(0).shape == (8,)


def test_covariance_comes_back_hermitian(rng: np.random.Generator) -> None:
    uplink, C = unit_uplink(rng), colored(rng)
    given = C * (1 + 1e-13 * rng.standard_normal(C.shape))
    before = given.copy()
    C = require_noise_cov(given, uplink)
    np.testing.assert_array_equal(C, C.conj().T)
    np.testing.assert_array_equal(given, before)
