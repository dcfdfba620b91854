"""Successive receivers that take the channels or the noise for others than they are.

Filters F for the channels and the covariance that the receiver assumes make of the symbols s and the noise z the
estimates `T s + F z`: `T = F G` for the users that are still heard, `T = F D` for those decoded before, with D what
subtracting them left. Everything below follows from T and `F C F^H`; `simulate.measure_mse` sends symbols instead.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.receiver import Order, require_noise_cov, sic_filters, sic_order
from rmtllmf_lib.wireless.square_root import adjoint

Cancelled = Literal["estimated", "exact"]


def mismatched_error_cov(
    uplink: Uplink,
    noise_cov: ArrayLike,
    design_cov: ArrayLike | None = None,
    order: Order = "weakest-first",
    *,
    csi: Uplink | None = None,
    cancelled: Cancelled = "estimated",
) -> Complex:
    """Error covariance across users, `(I - T)(I - T)^H + F C F^H`: (..., user, user).

    Parameters
    ----------
    uplink : Uplink
        The true channels.
    noise_cov : (..., rx, rx) complex, W
        The true noise covariance C.
    design_cov : (..., rx, rx) complex, W, optional
        The one that the receiver assumes; None is the true one.
    order : {"weakest-first", "strongest-first"}
        By the received powers of the channels that the receiver assumes.
    csi : Uplink, optional
        These channels, as from `channel_from_pilots` or `imperfect_csi`, with the same users; None is the true ones.
    cancelled : {"estimated", "exact"}
        What is subtracted of a decoded user: its symbols through the estimated channel, or through the true one, as if
        the decoded symbols had served as long pilots.

    Returns
    -------
    (..., user, user) complex
        Its diagonal has the MSEs, which can exceed 1.

    Raises
    ------
    InputError
        for an estimate of other users or antennas, an invalid covariance, or an unknown choice.
    """
    T, noise = _behind(require_uplink(uplink), noise_cov, design_cov, order, csi, cancelled)
    B = np.eye(T.shape[-1]) - T
    return np.asarray(B @ adjoint(B) + noise)


def scaled_mse(
    uplink: Uplink,
    noise_cov: ArrayLike,
    design_cov: ArrayLike | None = None,
    order: Order = "weakest-first",
    *,
    csi: Uplink | None = None,
    cancelled: Cancelled = "estimated",
) -> Real:
    """MSE of each user after its estimate is scaled by the best factor, `1 / (1 + SINR)`: (..., user) in [0, 1].

    A receiver whose filters are designed for the wrong noise delivers estimates of the wrong size. One number a user
    mends that: the gain of its estimates, which known symbols among the data tell. The SINR is that behind the filter,
    `|T_qq|^2` over the power of everything else; it is what a decoder sees that measures its own noise.

    Parameters, errors: as `mismatched_error_cov`.
    """
    T, noise = _behind(require_uplink(uplink), noise_cov, design_cov, order, csi, cancelled)
    wanted = np.square(np.abs(np.einsum("...ii->...i", T)))
    total = np.square(np.abs(T)).sum(axis=-1) + np.einsum("...ii->...i", noise).real
    return np.asarray(1 - np.divide(wanted, total, out=np.zeros_like(total), where=total > 0))


def _behind(
    uplink: Uplink,
    noise_cov: ArrayLike,
    design_cov: ArrayLike | None,
    order: Order,
    csi: Uplink | None,
    cancelled: Cancelled,
) -> tuple[Complex, Complex]:
    """T and `F C F^H`, both (..., user, user)."""
    one_of(order, Order, "order")
    one_of(cancelled, Cancelled, "cancelled")
    known = uplink if csi is None else require_uplink(csi, "csi")
    if known.H.shape != uplink.H.shape:
        raise InputError(f"csi has H of shape {known.H.shape}: expected that of the uplink, {uplink.H.shape}")
    C = require_noise_cov(noise_cov, uplink)
    F = sic_filters(known, C if design_cov is None else design_cov, order)
    position = np.argsort(sic_order(known, order), axis=-1)
    heard = position[..., None, :] >= position[..., :, None]
    left = uplink.G - known.G if cancelled == "estimated" else np.zeros_like(uplink.G)
    return np.where(heard, F @ uplink.G, F @ left), F @ C @ adjoint(F)
