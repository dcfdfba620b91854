"""What the functions of the uplink say to values of the wrong kind."""

from collections.abc import Callable

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, jammer_power, largest_rate
from rmtllmf_lib.wireless.allocation import published_covariance_eigenvalues
from rmtllmf_lib.wireless.channel import (
    LinkBudget,
    complex_normal,
    draw_distances,
    draw_fading,
    draw_uplinks,
    snr_db,
    uplinks_at,
    with_floor,
)
from rmtllmf_lib.wireless.csi import imperfect_csi
from rmtllmf_lib.wireless.optimality import saddle_margins
from rmtllmf_lib.wireless.path_loss import PathLoss
from rmtllmf_lib.wireless.receiver import (
    by_rank,
    common_error,
    interference_free_rates,
    lmmse_mse,
    require_noise_cov,
    sic_filters,
    sic_order,
    sic_rates,
    sum_rate,
)
from rmtllmf_lib.wireless.simulate import draw_symbols, measure_mse
from wireless import unit_uplink

UPLINK = unit_uplink(np.random.default_rng(0), 2)
COV = UPLINK.thermal_cov

DRAWS: list[Callable] = [
    lambda rng: draw_uplinks(2, rng),
    lambda rng: draw_distances((2, 3), rng),
    lambda rng: complex_normal((2,), rng),
    lambda rng: draw_fading((2, 3), rng),
    lambda rng: uplinks_at([100.0], rng),
    lambda rng: PathLoss().draw_db([100.0], rng),
    lambda rng: PathLoss("UMa").draw_db([100.0], rng),
    lambda rng: imperfect_csi(UPLINK, 0.5, rng),
    lambda rng: draw_symbols((2,), rng, "qam64"),
    lambda rng: measure_mse(UPLINK, COV, n=2, rng=rng),
    lambda rng: saddle_margins(sum_rate, UPLINK, 1.0, COV, rng),
]
TAKERS: list[Callable] = [
    lambda uplink: attack(uplink, 1.0),
    lambda uplink: attack(UPLINK, 1.0, csi=uplink or "x"),
    lambda uplink: attacked_cov(uplink, 1.0, "none"),
    lambda uplink: jammer_power(uplink, 1.0),
    lambda uplink: largest_rate(uplink, COV),
    lambda uplink: published_covariance_eigenvalues(uplink, 1.0),
    lambda uplink: snr_db(uplink),
    lambda uplink: with_floor(uplink, 1.0),
    lambda uplink: imperfect_csi(uplink, 0.5, np.random.default_rng(0)),
    lambda uplink: by_rank(np.ones((2, 4)), uplink),
    *(lambda uplink, f=f: f(uplink, COV) for f in (interference_free_rates, lmmse_mse, sic_filters)),
    lambda uplink: sic_order(uplink),
    lambda uplink: require_noise_cov(COV, uplink),
    lambda uplink: saddle_margins(sum_rate, uplink, 1.0, COV, np.random.default_rng(0)),
    lambda uplink: measure_mse(uplink, COV, n=2, rng=np.random.default_rng(0)),
]


@pytest.mark.parametrize("rng", [0, None, "seed", np.random.RandomState(0), np.random])
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_take_a_generator(draw: Callable, rng: object) -> None:
    with pytest.raises(InputError, match=r"rng is .*default_rng"):
        draw(rng)


@pytest.mark.parametrize("uplink", [None, "uplink", np.ones((2, 6, 4))])
@pytest.mark.parametrize("take", TAKERS)
def test_uplinks_are_uplinks(take: Callable, uplink: object) -> None:
    if isinstance(uplink, np.ndarray) and take is TAKERS[1]:
        uplink = [uplink]
    with pytest.raises(InputError, match="(uplink|csi) is .*Uplink"):
        take(uplink)


@pytest.mark.parametrize("order", [None, "weakest", "", 1])
def test_an_order_has_a_name(order: object) -> None:
    """None would decode by index."""
    for take in (sic_rates, sic_filters, lambda *given: attack(UPLINK, 1.0, order=given[-1])):
        with pytest.raises(InputError, match="order is"):
            take(UPLINK, COV, order)


@pytest.mark.parametrize("symbols", ["guassian", "Gaussian", None, "qam16"])
def test_symbols_have_a_known_distribution(symbols: object) -> None:
    with pytest.raises(InputError, match="symbols is"):
        draw_symbols((2,), np.random.default_rng(0), symbols)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [3, (2, -1), (2.0,), "ab", None])
def test_shapes_are_whole_numbers(shape: object) -> None:
    for draw in (complex_normal, draw_distances, draw_fading, draw_symbols):
        with pytest.raises(InputError, match="shape is"):
            draw(shape, np.random.default_rng(0))  # type: ignore[arg-type]


def test_settings_are_of_their_kind() -> None:
    with pytest.raises(InputError, match="budget is 'urban'"):
        draw_uplinks(2, np.random.default_rng(0), budget="urban")
    with pytest.raises(InputError, match="path_loss is 'UMa'"):
        LinkBudget(path_loss="UMa")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exponent is '3'"):
        PathLoss(exponent="3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"kind is 'non'.*'none'"):
        attacked_cov(UPLINK, 1.0, "non")
    with pytest.raises(InputError, match="error_cov has the trace 0"):
        common_error(np.zeros((2, 2)))
