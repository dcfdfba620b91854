"""Correlations of the users' errors."""

import numpy as np
import pytest

from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.receiver import common_error, error_correlations, error_cov
from wireless import unit_uplink


def test_common_error() -> None:
    assert common_error(np.diag([0.1, 0.4, 0.2])) == pytest.approx(1)
    assert common_error(np.full((5, 5), 0.3)) == pytest.approx(5)
    assert common_error([[1, -1], [-1, 1]]) == pytest.approx(0)
    assert common_error([[1, 1j], [-1j, 1]]) == pytest.approx(1)
    uplink = unit_uplink(np.random.default_rng(0), 3)
    C = attack(uplink, 1.0, "sum-aligned").noise_cov
    np.testing.assert_allclose(common_error(error_cov(uplink, C)), 1)
    assert (common_error(error_cov(uplink, C, receiver="lmmse")) > 1).all()


def test_error_correlations() -> None:
    found = error_correlations([[[4, 3j], [-3j, 9]], [[1, -1], [-1, 1]], [[1, 0], [0, 0]]])
    np.testing.assert_allclose(found, [[[1, 0.5], [0.5, 1]], [[1, 1], [1, 1]], [[1, np.nan], [np.nan, np.nan]]])
