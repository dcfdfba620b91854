"""Receivers that assume other channels or noise: against symbols sent and against the textbook's filters."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.csi import imperfect_csi
from rmtllmf_lib.wireless.mismatch import Cancelled, mismatched_error_cov, scaled_mse
from rmtllmf_lib.wireless.receiver import ORDERS, Order, error_cov, sic_mse
from rmtllmf_lib.wireless.simulate import draw_symbols, measure_mse, receive
from wireless import colored, complex_normal, later_users, textbook_filters, unit_uplink


@pytest.mark.parametrize("order", ORDERS)
def test_mse_is_what_symbols_meet(order: Order) -> None:
    rng = np.random.default_rng(2)
    uplink, C, design = unit_uplink(rng), colored(rng), colored(rng)
    csi = imperfect_csi(uplink, 0.8, rng, estimate="mmse")
    found = measure_mse(uplink, C, n=40_000, rng=rng, order=order, design_cov=design, csi=csi)
    E = mismatched_error_cov(uplink, C, design, order, csi=csi)
    assert (np.abs(found.mse - np.diagonal(E).real) < 5 * found.standard_error).all()
    assert np.abs(found.error_cov - E).max() < 0.05 * np.abs(E).max()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cancelled", ["estimated", "exact"])
def test_it_is_the_sum_over_what_reaches_each_estimate(order: Order, cancelled: Cancelled) -> None:
    """User by user: the textbook's filter for the estimate, and each symbol's way through the true channels."""
    rng = np.random.default_rng(4)
    uplink, C = unit_uplink(rng), colored(rng)
    csi = imperfect_csi(uplink, 0.7, rng)
    F, later = textbook_filters(csi, C, order), later_users(csi, order)
    E = mismatched_error_cov(uplink, C, None, order, csi=csi, cancelled=cancelled)
    for q in range(4):
        mse = (F[q] @ C @ F[q].conj()).real + abs(1 - F[q] @ uplink.G[:, q]) ** 2
        for k in set(range(4)) - {q}:
            removed = 0 if k in later[q] else csi.G[:, k] if cancelled == "estimated" else uplink.G[:, k]
            mse += abs(F[q] @ (uplink.G[:, k] - removed)) ** 2
        np.testing.assert_allclose(E[q, q].real, mse, rtol=1e-9)


def test_perfect_knowledge_is_the_ordinary_receiver() -> None:
    rng = np.random.default_rng(5)
    uplink, C, design = unit_uplink(rng, 3), colored(rng, 3), colored(rng)
    for csi, cancelled in ((None, "estimated"), (uplink, "estimated"), (uplink, "exact")):
        found = mismatched_error_cov(uplink, C, design, csi=csi, cancelled=cancelled)
        np.testing.assert_allclose(found, error_cov(uplink, C, design), atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_scaled_mse_is_the_least_of_all_scales(order: Order) -> None:
    """Symbols are sent, and each user's estimates scaled by least squares."""
    rng = np.random.default_rng(10)
    uplink, C, design = unit_uplink(rng), 5 * colored(rng), colored(rng)
    csi = imperfect_csi(uplink, 0.9, rng)
    n = 100_000
    s = draw_symbols((4, n), rng)
    y = uplink.G @ s + np.linalg.cholesky(C) @ complex_normal(rng, 6, n)
    estimates, _ = receive(y, csi, design, order=order, sent=s)
    factor = (s * estimates.conj()).mean(axis=1) / (np.abs(estimates) ** 2).mean(axis=1)
    found = (np.abs(s - factor[:, None] * estimates) ** 2).mean(axis=1)
    np.testing.assert_allclose(scaled_mse(uplink, C, design, order, csi=csi), found, rtol=0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_a_matched_receiver_has_the_right_scale_already(order: Order) -> None:
    rng = np.random.default_rng(11)
    uplink, C = unit_uplink(rng, 3), colored(rng, 3)
    np.testing.assert_allclose(scaled_mse(uplink, C, order=order), sic_mse(uplink, C, order))
    # the scale of the design does not matter to a single user, whose filter only changes its length
    alone = unit_uplink(rng, users=1)
    np.testing.assert_allclose(scaled_mse(alone, C[0], 100 * C[0]), sic_mse(alone, C[0]))


def test_a_user_who_is_not_heard_has_mse_one() -> None:
    rng = np.random.default_rng(12)
    uplink = Uplink(complex_normal(rng, 4, 2), [1.0, 0.0], 0.1)
    found = scaled_mse(uplink, uplink.thermal_cov, 2 * uplink.thermal_cov)
    assert found[1] == 1 and 0 < found[0] < 1


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(13)
    uplink = unit_uplink(rng)
    for measured in (mismatched_error_cov, scaled_mse):
        with pytest.raises(InputError, match=r"csi has H of shape \(6, 3\)"):
            measured(uplink, np.eye(6), csi=unit_uplink(rng, users=3))
        with pytest.raises(InputError, match="cancelled"):
            measured(uplink, np.eye(6), cancelled="soft")  # type: ignore[operator]
        with pytest.raises(InputError, match="noise_cov"):
            measured(uplink, np.eye(5))
    with pytest.raises(InputError, match=r"csi has H of shape \(6, 3\)"):
        measure_mse(uplink, np.eye(6), n=10, rng=rng, csi=unit_uplink(rng, users=3))
