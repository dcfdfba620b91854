"""Receivers that know the channels from pilots: symbols known to both ends, sent before the data.

Each user sends its own one of Q orthogonal sequences of L symbols at its power p_q. Correlated with it, what is
received is `h_q + n / sqrt(L p_q)`, with n the noise of one antenna vector. The MMSE estimate for Rayleigh fading of
mean power b_q in white noise shrinks that by `rho_q = L p_q b_q / (L p_q b_q + sigma^2)`, the quality [1]_; it leaves
an error of variance `(1 - rho_q) b_q` per antenna, uncorrelated with the estimate.

References
----------
.. [1] B. Hassibi, B. M. Hochwald, "How much training is needed in multiple-antenna wireless links?", IEEE Transactions
   on Information Theory 49 (2003) 951-963.
.. [2] M. Medard, "The effect upon channel capacity in wireless communications of perfect and imperfect knowledge of the
   channel", IEEE Transactions on Information Theory 46 (2000) 933-946 (the error of the estimate as noise).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, fitted, real_array, whole_number
from rmtllmf_lib.wireless.channel import Uplink, complex_normal, require_uplink
from rmtllmf_lib.wireless.receiver import require_noise_cov
from rmtllmf_lib.wireless.simulate import covariance_root


def fading_power(uplink: Uplink, gain: ArrayLike | None = None) -> Real:
    """Mean power b_q of the fading per antenna, path gain included: (..., user), dimensionless.

    Parameters
    ----------
    uplink : Uplink
    gain : (..., user) float, optional
        b_q where it is known; without, that of the channel that was drawn, `||h_q||^2 / N_R`.
    """
    require_uplink(uplink)
    if gain is not None:
        return fitted(real_array(gain, "gain", minimum=0), uplink.power.shape, "gain", "(..., user)")
    return np.asarray(np.square(np.abs(uplink.H)).mean(axis=-2))


def pilot_quality(
    uplink: Uplink, length: int, *, noise: ArrayLike | None = None, gain: ArrayLike | None = None
) -> Real:
    """Quality of MMSE estimates from pilots: `rho_q = L p_q b_q / (L p_q b_q + sigma^2)`, (..., user) in [0, 1].

    Parameters
    ----------
    uplink : Uplink
    length : int
        L, symbols of each pilot sequence; at least the number of users, or the sequences cannot be orthogonal.
    noise : (...) float, W, optional
        sigma^2, noise at each antenna while the pilots are sent; default the thermal floor.
    gain : (..., user) float, optional
        See `fading_power`.

    Raises
    ------
    InputError
        for pilots shorter than the number of users, negative noise, or shapes that do not fit.
    """
    symbols = whole_number(length, "length", minimum=require_uplink(uplink).num_users)
    given = uplink.noise_floor if noise is None else real_array(noise, "noise", minimum=0)
    sigma2 = fitted(given, uplink.batch_shape, "noise", "(...)")[..., None]
    heard = symbols * uplink.power * fading_power(uplink, gain)
    total = heard + sigma2
    return np.divide(heard, total, out=np.zeros_like(heard), where=total > 0)


def channel_from_pilots(
    uplink: Uplink, noise_cov: ArrayLike, length: int, rng: np.random.Generator, *, gain: ArrayLike | None = None
) -> Uplink:
    """What the base station knows of the channels after pilots in this noise, a jammer's included.

    The estimate is the MMSE one for white noise of the same power at each antenna; in white noise its law is that of
    `imperfect_csi(uplink, pilot_quality(...), rng, estimate="mmse")`.

    Parameters
    ----------
    uplink : Uplink
        The true channels, a batch of drops.
    noise_cov : (..., rx, rx) complex, W
        Of the noise while the pilots are sent.
    length : int
        L, see `pilot_quality`.
    rng : numpy.random.Generator
        The draw does not depend on `length`: one generator state gives paired estimates for several lengths.
    gain : (..., user) float, optional
        See `fading_power`.

    Returns
    -------
    Uplink
        With the true powers and noise floor; a silent user's channel is estimated as 0.

    Raises
    ------
    InputError
        for pilots shorter than the number of users, or an invalid covariance.
    """
    C = require_noise_cov(noise_cov, uplink)
    noise = np.broadcast_to(np.einsum("...ii->...", C).real / C.shape[-1], uplink.batch_shape)
    rho = pilot_quality(uplink, length, noise=noise, gain=gain)[..., None, :]
    received = covariance_root(C) @ complex_normal(uplink.H.shape, rng)
    amplitude = np.sqrt(length * uplink.power)[..., None, :]
    error = np.divide(received, amplitude, out=np.zeros_like(received), where=amplitude > 0)
    return Uplink(rho * (uplink.H + error), uplink.power, uplink.noise_floor)


def with_estimation_error(
    design_cov: ArrayLike, uplink: Uplink, quality: ArrayLike, *, gain: ArrayLike | None = None
) -> Complex:
    """The noise covariance plus that of the signals through the channels' errors, `sum_q p_q (1 - rho_q) b_q I`: W.

    Filters designed for it are the linear MMSE filters given the estimates [2]_, before anything is cancelled.

    Parameters
    ----------
    design_cov : (..., rx, rx) complex, W
        The noise covariance that the receiver assumes.
    uplink : Uplink
        For the powers and, without `gain`, b_q.
    quality : float or (..., user) float
        rho_q in [0, 1].
    gain : (..., user) float, optional
        See `fading_power`.
    """
    C = require_noise_cov(design_cov, uplink, "design_cov")
    rho = fitted(real_array(quality, "quality", minimum=0, maximum=1), uplink.power.shape, "quality", "(..., user)")
    unknown = (uplink.power * (1 - rho) * fading_power(uplink, gain)).sum(axis=-1)
    return C + unknown[..., None, None] * np.eye(C.shape[-1])
