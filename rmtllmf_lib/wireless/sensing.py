"""What a base station learns of the noise by listening while all users are silent, and receivers built on it.

K silent snapshots hold the noise alone, the jammer's included. Their sample covariance is unbiased, but for few
snapshots its small eigenvalues are far too small, and a receiver that whitens by it amplifies the noise that it takes
for absent. The receiver knows its own thermal noise, below which no direction can be: eigenvalues are raised to it,
which is the maximum likelihood estimate under that constraint [1]_.

References
----------
.. [1] M. Steiner, K. Gerlach, "Fast converging adaptive processor for a structured covariance matrix", IEEE
   Transactions on Aerospace and Electronic Systems 36 (2000) 1115-1126 (the maximum likelihood estimate of a covariance
   with a known floor).
.. [2] I. S. Reed, J. D. Mallett, L. E. Brennan, "Rapid convergence rate in adaptive arrays", IEEE Transactions on
   Aerospace and Electronic Systems 10 (1974) 853-863 (without a floor, twice as many snapshots as antennas cost 3 dB).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, complex_array, fitted, real_array, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, complex_normal
from rmtllmf_lib.wireless.receiver import require_noise_cov
from rmtllmf_lib.wireless.simulate import covariance_root, sample_cov
from rmtllmf_lib.wireless.square_root import adjoint

NULLED = 1e8  # noise of a nulled direction, relative to the largest in the covariance


def draw_snapshots(uplink: Uplink, noise_cov: ArrayLike, count: int, rng: np.random.Generator) -> Complex:
    """Draw what the antennas receive while all users are silent: (..., rx, count) in W^(1/2), columns z ~ CN(0, C).

    Parameters
    ----------
    uplink : Uplink
        The drops, whose users are silent.
    noise_cov : (..., rx, rx) complex, W
        C, thermal noise and jammer; leading dimensions broadcast against the batch of drops.
    count : int
        K, at least 1.
    rng : numpy.random.Generator

    Raises
    ------
    InputError
        for no snapshots, or a covariance that is invalid or does not fit the drops.
    """
    snapshots = whole_number(count, "count")
    C = require_noise_cov(noise_cov, uplink)
    batch = np.broadcast_shapes(C.shape[:-2], uplink.batch_shape)
    root = covariance_root(C)
    return root @ complex_normal((*batch, C.shape[-1], snapshots), rng)


def sensed_cov(snapshots: ArrayLike, noise_floor: ArrayLike) -> Complex:
    """Noise covariance from silent snapshots: the sample covariance with its eigenvalues raised to the thermal floor.

    Parameters
    ----------
    snapshots : (..., rx, K) complex, W^(1/2)
        K snapshots of zero mean, such as of `draw_snapshots`.
    noise_floor : (...) float, W
        sigma_0^2, one number or one per drop.

    Returns
    -------
    (..., rx, rx) complex, W
        Hermitian, no eigenvalue below the floor. For K to infinity the true covariance, if that has this floor.

    Raises
    ------
    InputError
        for no snapshots, a negative floor, or a floor of 0 with fewer snapshots than antennas: the estimate is then
        singular, and a receiver believes that there is no noise in directions that it has not seen.
    """
    signals = complex_array(snapshots, "snapshots")
    if signals.ndim < 2 or signals.shape[-1] == 0 or signals.shape[-2] == 0:
        raise InputError(f"snapshots has shape {signals.shape}: expected (..., rx, K) with at least one snapshot")
    rx, count = signals.shape[-2:]
    given = real_array(noise_floor, "noise_floor", minimum=0)
    floor = fitted(given, signals.shape[:-2], "noise_floor", "(...)")
    if count < rx and not (floor > 0).all():
        raise InputError(
            f"there are {count} snapshots of {rx} antennas and noise_floor is 0: expected at least {rx} snapshots, "
            "or a floor above 0 W"
        )
    values, vectors = np.linalg.eigh(sample_cov(signals))
    raised = np.maximum(values, floor[..., None])
    found = (vectors * raised[..., None, :]) @ adjoint(vectors)
    return np.asarray((found + adjoint(found)) / 2)


def nulling_cov(noise_cov: ArrayLike, directions: int) -> Complex:
    """A covariance for which receivers null the strongest directions of the noise instead of whitening it.

    The largest eigenvalues are replaced by `NULLED` times the largest: filters then take nothing from these directions.

    Parameters
    ----------
    noise_cov : (..., rx, rx) complex, W
        Hermitian; true or sensed.
    directions : int
        How many to null, from 0 to rx - 1.

    Raises
    ------
    InputError
        for what is not a square matrix, or if no direction would be left.
    """
    C = complex_array(noise_cov, "noise_cov")
    if C.ndim < 2 or C.shape[-1] != C.shape[-2] or C.shape[-1] == 0:
        raise InputError(f"noise_cov has shape {C.shape}: expected (..., rx, rx)")
    count = whole_number(directions, "directions", 0, C.shape[-1] - 1)
    values, vectors = np.linalg.eigh(C)
    nulled = np.arange(C.shape[-1]) >= C.shape[-1] - count
    replaced = np.where(nulled, NULLED * values[..., -1:], values)
    found = (vectors * replaced[..., None, :]) @ adjoint(vectors)
    return np.asarray((found + adjoint(found)) / 2)
