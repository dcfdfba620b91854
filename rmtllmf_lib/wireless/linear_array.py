"""A uniform linear array in the plane: directions, channels with angular spread, jammers with a place.

The array lies on the y axis with its middle at the origin and looks along the x axis. A source at (x, y) has the
azimuth `atan2(y, x)`, 0 broadside and positive to the left; behind the array, at x <= 0, it would look as one in front,
so such places are refused. Distances are in m, azimuths in rad.

The receiver of [1]_ and [2]_ has no samples of the jammer's noise: it senses the directions from which a jammer
transmits, and designs filters of the largest SINR for a surrogate covariance made of the array's responses.

References
----------
.. [1] A. Djuhera, V. C. Andrei, X. Li, U. J. Monich, H. Boche, W. Saad, "R-SFLLM: Jamming resilient framework for split
   federated learning with large language models", arXiv:2407.11654, 2024.
.. [2] V. C. Andrei, A. Djuhera, X. Li, U. J. Monich, W. Saad, H. Boche, "Resilient, federated large language models
   over wireless networks: Why the PHY matters", IEEE Global Communications Conference, 2024.
.. [3] E. Bjornson, J. Hoydis, L. Sanguinetti, "Massive MIMO networks: Spectral, energy, and hardware efficiency",
   Foundations and Trends in Signal Processing 11 (2017) 154-655, section 2.6 (the model of local scattering).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import (
    Complex,
    Real,
    fitted,
    instance_of,
    numpy_generator,
    real_array,
    real_number,
    whole_number,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import LinkBudget, Uplink, array_shape, complex_normal, draw_distances
from rmtllmf_lib.wireless.simulate import covariance_root
from rmtllmf_lib.wireless.square_root import adjoint

SPACING = 0.5  # of the antennas, in wavelengths
LARGEST_SPREAD = np.deg2rad(20.0)  # beyond it the model's sum over small angles is off


def azimuths(places: ArrayLike) -> Real:
    """Azimuths of sources at `places` (..., 2), x and y in m: (...) in rad, between -pi/2 and pi/2.

    Raises
    ------
    InputError
        for a source behind the array or in its line, at x <= 0.
    """
    place = real_array(places, "places")
    if place.ndim == 0 or place.shape[-1] != 2:
        raise InputError(f"places has shape {place.shape}: expected (..., 2), x and y of each source")
    behind = place[..., 0] <= 0
    if behind.any():
        raise InputError(
            f"places has a source at x = {place[..., 0][behind][0]:g} m: expected x > 0, in the half-plane before the "
            "array, which cannot tell front from back"
        )
    return np.asarray(np.arctan2(place[..., 1], place[..., 0]))


def response(azimuth: ArrayLike, num_rx_antennas: int) -> Complex:
    """The array's response to a plane wave, (..., rx): `exp(2 pi i n d sin(theta))` for antenna n, of modulus 1.

    Parameters
    ----------
    azimuth : (...) float, rad
        theta, within the half-plane, |theta| < pi / 2.
    num_rx_antennas : int
        N_R, at half-wavelength spacing.
    """
    phase = 2 * np.pi * SPACING * np.sin(_within(azimuth))
    return np.asarray(np.exp(1j * phase[..., None] * np.arange(whole_number(num_rx_antennas, "num_rx_antennas"))))


def spread_correlation(azimuth: ArrayLike, spread: float, num_rx_antennas: int) -> Complex:
    """Correlation between antennas of a signal scattered around a direction, (..., rx, rx) with ones on the diagonal.

    Angles of arrival are Gaussian around theta with standard deviation `spread`; to first order in the deviations the
    entry of antennas m and n is `exp(i k (m - n) sin(theta) - (spread k (m - n) cos(theta))^2 / 2)`, k = 2 pi d [3]_.

    Parameters
    ----------
    azimuth : (...) float, rad
    spread : float, rad
        From 0, a single path and a matrix of rank one, to `LARGEST_SPREAD`, 20 degrees.
    num_rx_antennas : int
    """
    a = response(azimuth, num_rx_antennas)
    width = real_number(spread, "spread", minimum=0, maximum=float(LARGEST_SPREAD))
    lag = np.arange(a.shape[-1]) - np.arange(a.shape[-1])[:, None]
    reach = 2 * np.pi * SPACING * lag * np.cos(_within(azimuth))[..., None, None] * width
    return np.asarray(a[..., :, None] * a[..., None, :].conj() * np.exp(-(reach**2) / 2))


def draw_places(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    nearest_m: float = 100.0,
    farthest_m: float = 1000.0,
    widest_deg: float = 60.0,
) -> Real:
    """Draw places before the array, (*shape, 2) in m: uniform distance, as in the paper, and uniform azimuth.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator
    nearest_m, farthest_m : float, m
        0 < nearest_m <= farthest_m.
    widest_deg : float, degrees
        Azimuths are at most this far from broadside, above 0 and below 90; 60 is a sector of a third of the circle.
    """
    widest = np.deg2rad(real_number(widest_deg, "widest_deg", positive=True, maximum=89.9))
    distance = draw_distances(shape, rng, nearest_m=nearest_m, farthest_m=farthest_m)
    azimuth = numpy_generator(rng).uniform(-widest, widest, array_shape(shape))
    return np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth)], axis=-1)


def uplinks_from(
    places: ArrayLike,
    rng: np.random.Generator,
    *,
    spread: float,
    num_rx_antennas: int = 16,
    budget: LinkBudget | None = None,
) -> Uplink:
    """Draw shadowing (where the path loss has it) and fading for users at places before the array.

    Fading is Gaussian with `spread_correlation` around each user's direction.

    Parameters
    ----------
    places : (..., user, 2) float, m
    rng : numpy.random.Generator
    spread : float, rad
        See `spread_correlation`.
    num_rx_antennas : int
    budget : LinkBudget, optional
        `LinkBudget()` by default.

    Returns
    -------
    Uplink with batch shape (...).

    Raises
    ------
    InputError
        for no user, or one that is not before the array.
    """
    azimuth, place = azimuths(places), real_array(places, "places")
    if azimuth.ndim == 0 or azimuth.shape[-1] == 0:
        raise InputError(f"places has shape {place.shape}: expected (..., user, 2) with at least one user")
    budget = LinkBudget() if budget is None else instance_of(budget, LinkBudget, "budget")
    amplitude = 10 ** (-budget.path_loss.draw_db(np.hypot(place[..., 0], place[..., 1]), rng) / 20)
    root = covariance_root(spread_correlation(azimuth, spread, num_rx_antennas))
    fading = (root @ complex_normal((*root.shape[:-1], 1), rng))[..., 0]
    H = np.swapaxes(amplitude[..., None] * fading, -1, -2)
    return Uplink(H, np.full(azimuth.shape[-1:], budget.power_w), np.asarray(budget.noise_floor_w))


def arriving_cov(azimuth: ArrayLike, power: ArrayLike, spread: float, num_rx_antennas: int) -> Complex:
    """Covariance of what jammers in some directions add to the noise, (..., rx, rx) in W, of trace `sum power`.

    Parameters
    ----------
    azimuth : (..., jammer) float, rad
    power : (..., jammer) float, W
        Received from each, summed over the antennas; broadcast.
    spread : float, rad
        Angular spread of each, see `spread_correlation`.
    num_rx_antennas : int
    """
    theta = _sources(azimuth)
    watts = fitted(real_array(power, "power", minimum=0), theta.shape, "power", "(..., jammer)")
    shapes = spread_correlation(theta, spread, num_rx_antennas)
    return np.asarray((watts[..., None, None] * shapes).sum(axis=-3) / shapes.shape[-1])


def surrogate_cov(azimuth: ArrayLike, eta: ArrayLike, noise_floor: ArrayLike, num_rx_antennas: int) -> Complex:
    """The surrogate covariance of [1]_ from sensed directions, `eta A A^H + sigma_0^2 I`: (..., rx, rx) in W.

    The columns of A are the array's responses in the directions sensed. Receivers designed for it have the largest SINR
    if the jammer's noise has this covariance; a linear MMSE filter has that for any. [1]_ writes the total noise power
    over the number of antennas where we have the floor per antenna.

    Parameters
    ----------
    azimuth : (..., jammer) float, rad
        As sensed, right or wrong.
    eta : (...) float, W
        The power assumed for each direction at each antenna.
    noise_floor : (...) float, W
        sigma_0^2.
    num_rx_antennas : int
    """
    theta = _sources(azimuth)
    batch = theta.shape[:-1]
    weight = fitted(real_array(eta, "eta", minimum=0), batch, "eta", "(...)")
    floor = fitted(real_array(noise_floor, "noise_floor", minimum=0), batch, "noise_floor", "(...)")
    A = np.swapaxes(response(theta, num_rx_antennas), -1, -2)
    return np.asarray(weight[..., None, None] * (A @ adjoint(A)) + floor[..., None, None] * np.eye(A.shape[-2]))


def sensed_directions(azimuth: ArrayLike, error: float, rng: np.random.Generator) -> Real:
    """Directions with a Gaussian error of standard deviation `error` in rad, kept within the half-plane: (...) in rad.

    The draw does not depend on `error`: one generator state gives paired directions for several errors.
    """
    theta = _within(azimuth)
    width = real_number(error, "error", minimum=0)
    limit = np.nextafter(np.pi / 2, 0)
    return np.asarray(np.clip(theta + width * numpy_generator(rng).standard_normal(theta.shape), -limit, limit))


def _within(azimuth: ArrayLike) -> Real:
    theta = real_array(azimuth, "azimuth")
    if (outside := np.abs(theta) >= np.pi / 2).any():
        raise InputError(
            f"azimuth has {np.rad2deg(theta[outside][0]):.1f} degrees: expected less than 90 on either side, in the "
            "half-plane before the array"
        )
    return theta


def _sources(azimuth: ArrayLike) -> Real:
    theta = _within(azimuth)
    if theta.ndim == 0:
        raise InputError("azimuth is one number: expected (..., jammer), a direction for each jammer")
    return theta
