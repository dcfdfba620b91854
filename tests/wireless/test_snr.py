"""SNR of each user, another noise floor, and values by rank."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, snr_db, with_floor
from rmtllmf_lib.wireless.receiver import by_rank
from wireless import unit_uplink


def test_snr_is_the_mean_over_the_antennas() -> None:
    uplink = Uplink(np.array([[1, 2j], [1, 0], [1, 0], [1, 0]]), np.array([2.0, 1.0]), np.asarray(0.1))
    assert snr_db(uplink) == pytest.approx([10 * np.log10(20), 10.0])


def test_snr_needs_noise_and_power() -> None:
    uplink = unit_uplink(np.random.default_rng(0))
    with pytest.raises(InputError, match="noise floor"):
        snr_db(Uplink(uplink.H, uplink.power, np.asarray(0.0)))
    with pytest.raises(InputError, match="received power"):
        snr_db(Uplink(uplink.H, 0 * uplink.power, uplink.noise_floor))


def test_a_higher_floor_lowers_the_snr_and_nothing_else() -> None:
    uplink = unit_uplink(np.random.default_rng(1))
    raised = with_floor(uplink, 7.0)
    assert snr_db(raised) == pytest.approx(snr_db(uplink) - 7)
    assert raised.received_power == pytest.approx(uplink.received_power)
    with pytest.raises(InputError, match="gain_db"):
        with_floor(uplink, np.nan)


def test_rank_goes_from_the_weakest_to_the_strongest() -> None:
    uplink = unit_uplink(np.random.default_rng(1), 5)
    assert np.array_equal(by_rank(uplink.received_power, uplink), np.sort(uplink.received_power))
    with pytest.raises(InputError, match=r"values has shape \(3,\)"):
        by_rank(np.zeros(3), uplink)
