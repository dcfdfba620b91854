"""Filters and MSEs against the LMMSE equaliser of Sionna, which scales its estimates to be unbiased."""

import numpy as np
import pytest

from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import lmmse_filter, lmmse_mse, sic_filters, sic_mse
from wireless import colored, complex_normal, later_users, unit_uplink

torch = pytest.importorskip("torch")
mimo = pytest.importorskip("sionna.phy.mimo", reason="Sionna comes with the test extra")

SHAPES = [(16, 8), (6, 4), (3, 5), (4, 1), (1, 3)]


def equalised(y: np.ndarray, G: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased estimates, and the variances of their errors."""
    given = (torch.tensor(part) for part in (y, G, C))
    estimate, variance = mimo.lmmse_equalizer(*given, precision="double")
    return estimate.numpy(), variance.numpy()


def drops(rx: int, users: int) -> tuple[Uplink, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rx + 10 * users)
    return unit_uplink(rng, 5, rx=rx, users=users), colored(rng, 5, rx=rx), complex_normal(rng, 5, rx)


@pytest.mark.parametrize(("rx", "users"), SHAPES)
def test_joint_receiver(rx: int, users: int) -> None:
    uplink, C, y = drops(rx, users)
    expected, variance = equalised(y, uplink.G, C)
    F, mse = lmmse_filter(uplink, C), lmmse_mse(uplink, C)
    bias = np.einsum("nur,nru->nu", F, uplink.G)
    np.testing.assert_allclose((F @ y[..., None])[..., 0] / bias, expected, rtol=1e-9)
    np.testing.assert_allclose(bias, 1 - mse, rtol=1e-9)
    np.testing.assert_allclose(mse / (1 - mse), variance, rtol=1e-9)


@pytest.mark.parametrize("order", ["weakest-first", "strongest-first"])
@pytest.mark.parametrize(("rx", "users"), SHAPES)
def test_successive_cancellation(rx: int, users: int, order: str) -> None:
    """Each user meets Sionna's equaliser with those of the users still to be decoded."""
    uplink, C, y = drops(rx, users)
    F, mse = sic_filters(uplink, C, order), sic_mse(uplink, C, order)
    for drop in range(5):
        for q, later in enumerate(later_users(uplink[drop], order)):
            expected, variance = equalised(y[drop], uplink.G[drop][:, [q, *later]], C[drop])
            f, error = F[drop, q], mse[drop, q]
            bias = f @ uplink.G[drop, :, q]
            np.testing.assert_allclose(f @ y[drop] / bias, expected[0], rtol=1e-9)
            np.testing.assert_allclose(bias, 1 - error, rtol=1e-9)
            np.testing.assert_allclose(error / (1 - error), variance[0], rtol=1e-9)
