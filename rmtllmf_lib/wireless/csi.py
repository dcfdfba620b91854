"""Imperfect channel state information of an adversary: estimates of a given quality, down to statistics alone.

References
----------
.. [1] B. Hassibi, B. M. Hochwald, "How much training is needed in multiple-antenna wireless links?", IEEE Transactions
   on Information Theory 49 (2003) 951-963 (MMSE estimates of Rayleigh fading, and errors uncorrelated with them).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import fitted, one_of, real_array
from rmtllmf_lib.wireless.channel import Uplink, complex_normal, require_uplink

Estimate = Literal["noisy", "mmse", "posterior"]


def imperfect_csi(
    uplink: Uplink,
    quality: ArrayLike,
    rng: np.random.Generator,
    *,
    estimate: Estimate = "noisy",
    gain: ArrayLike | None = None,
) -> Uplink:
    """The adversary's estimate of an uplink, for `attack(uplink, power, kind, csi=...)`.

    The adversary observes `H^ = sqrt(rho) H + sqrt(1 - rho) E`, where column q of E is circular-symmetric Gaussian,
    independent of H, with power `b_q` per antenna. So rho is the share of the estimate's power that comes from the
    channel, and the powers are always known. For Rayleigh fading of mean power b_q, `E[H | H^] = sqrt(rho) H^`, with an
    uncorrelated error of variance `(1 - rho) b_q` [1]_. An uplink does not hold the mean power of its fading: without
    `gain`, b_q is the power of the channel that was drawn, `||h_q||^2 / N_R`, which scatters around the mean with a
    relative standard deviation of `N_R^(-1/2)`. The posterior is then an approximation: close for sixteen antennas, but
    not for one, where H^ tells less of a weak channel than of a strong one. The estimate is one of

    - "noisy": `H^` itself, which is as strong as the true channel. With rho = 0 it is the channel of another drop, and
      a jammer aligned with it can do less harm than a white one.
    - "mmse": `sqrt(rho) H^`, which weakens as rho falls. With rho = 0 nothing is left, and `attack` is white
      noise.
    - "posterior": the expected covariance of the received signal,
      `E[G G^H | H^] = rho H^ P H^^H + sum_q p_q (1 - rho_q) b_q I`. The second term is represented by `N_R` more users,
      one for each antenna. The sum rate is concave in `G G^H`, so an attack designed on this mean minimises an upper
      bound of the expected sum rate. The limit, rho = 0, is knowledge of the statistics alone: white jamming, unless
      the attack depends on single users. Meant for kinds that depend on `G G^H` only: "sum-rate", "rank-one".

    Parameters
    ----------
    uplink : Uplink
        The true uplink, a batch of drops.
    quality : float or (..., user) float
        rho in [0, 1]; 1 is perfect knowledge.
    rng : numpy.random.Generator
        The draw of E does not depend on `quality`: one generator state gives paired estimates of several qualities.
    estimate : {"noisy", "mmse", "posterior"}
    gain : (..., user) float, optional
        b_q, the mean power of the fading, path gain included: the posterior is then exact for Rayleigh fading.

    Returns
    -------
    Uplink
        With the true powers and noise floor, the same batch, and users as above.

    Raises
    ------
    InputError
        for a quality outside [0, 1], a shape that does not fit, or an unknown estimate.
    """
    one_of(estimate, Estimate, "estimate")
    require_uplink(uplink)
    given = real_array(quality, "quality", minimum=0, maximum=1)
    rho = fitted(given, uplink.power.shape, "quality", "(..., user)")
    if gain is None:
        amplitude = np.linalg.norm(uplink.H, axis=-2) / np.sqrt(uplink.num_rx_antennas)
    else:
        amplitude = np.sqrt(fitted(real_array(gain, "gain", minimum=0), rho.shape, "gain", "(..., user)"))
    error = amplitude[..., None, :] * complex_normal(uplink.H.shape, rng)
    H = np.sqrt(rho)[..., None, :] * uplink.H + np.sqrt(1 - rho)[..., None, :] * error
    if estimate != "noisy":
        H = np.sqrt(rho)[..., None, :] * H
    if estimate != "posterior":
        return Uplink(H, uplink.power, uplink.noise_floor)
    antennas = np.broadcast_to(np.eye(uplink.num_rx_antennas), (*uplink.batch_shape, *(uplink.num_rx_antennas,) * 2))
    unknown = (uplink.power * (1 - rho) * amplitude**2).sum(axis=-1, keepdims=True)
    power = np.concatenate([uplink.power, np.broadcast_to(unknown, antennas.shape[:-1])], axis=-1)
    return Uplink(np.concatenate([H, antennas], axis=-1), power, uplink.noise_floor)
