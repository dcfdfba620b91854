"""Receivers of the uplink: MMSE successive interference cancellation (SIC) and joint LMMSE; Eqs. (3), (4), (5), (13).

Rates are in nats per channel use, MSEs are relative to symbols of power 1, and results are in the order of the uplink's
users. `noise_cov` may have its own batch dimensions, which are broadcast against the batch of drops, so that one drop
can be evaluated under many covariances. Results do not change when power and noise are scaled together.

A singular covariance leaves directions without noise. A user with energy there that no interference covers has infinite
rate and MSE 0; where all the energy lies in range(C), results are finite and are evaluated there. Eigenvalues below
1e-13 of the largest count as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, complex_array, fitted, instance_of, one_of, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.square_root import (
    FREE,
    Whitened,
    adjoint,
    factors,
    filters,
    log_gains,
    precision,
    require_semidefinite,
    whiten,
)

Order = Literal["weakest-first", "strongest-first"]
Receiver = Literal["sic", "lmmse"]
ORDERS: tuple[Order, ...] = get_args(Order)

_HERMITIAN = 1e-10  # relative tolerance of the conjugate transpose, in double precision
DROPS_AT_ONCE = 256  # a block of 1 MiB stays in a core's own cache


def require_noise_cov(noise_cov: ArrayLike, uplink: Uplink, name: str = "noise_cov") -> Complex:
    """The noise covariance, made exactly Hermitian; checks that it is valid for these drops.

    Parameters
    ----------
    noise_cov : (..., rx, rx) complex, W
        Hermitian positive semidefinite; may be singular. Leading dimensions broadcast against the batch of drops.
    uplink : Uplink
    name : str
        Its name in error messages.

    Returns
    -------
    (..., rx, rx) complex128, W

    Raises
    ------
    InputError
        for a wrong shape, NaN, infinity, or a matrix that is not Hermitian (to 1e-10 of the largest entry of its
        diagonal) or has a negative eigenvalue (beyond 1e-10 of the largest). For a matrix in single precision the two
        tolerances are 1e-5, and its eigenvalues below 5e-7 of the largest are taken for rounding of 0.
    """
    C = _shaped(noise_cov, uplink, instance_of(name, str, "name"))
    once = _stored_once(C)
    flat = np.array(once, order="C").reshape(-1, *C.shape[-2:])
    for start in range(0, len(flat), DROPS_AT_ONCE):
        block = flat[start : start + DROPS_AT_ONCE]
        _require_hermitian(block, name)
        block += adjoint(block)
        block *= 0.5
        try:
            np.linalg.cholesky(block)
        except np.linalg.LinAlgError:
            require_semidefinite(np.linalg.eigvalsh(block), name)
    hermitian = flat.reshape(once.shape)
    return hermitian if once is C else np.broadcast_to(hermitian, C.shape)


def _shaped(noise_cov: ArrayLike, uplink: Uplink, name: str) -> Complex:
    """The covariance as a complex array; checks that it is finite and fits the drops."""
    C = complex_array(noise_cov, name)
    size = require_uplink(uplink).num_rx_antennas
    try:
        fits = C.shape[-2:] == (size, size) and np.broadcast_shapes(C.shape[:-2], uplink.batch_shape)
    except ValueError:
        fits = False
    if fits is False:
        expected = f"(..., rx, rx) = {(*uplink.batch_shape, size, size)}"
        raise InputError(
            f"{name} has shape {C.shape}: expected {expected} or leading dimensions that broadcast with it"
        )
    tolerance = precision(noise_cov, _HERMITIAN)
    return C if tolerance == _HERMITIAN else _without_rounding(C, name, tolerance)


def _without_rounding(C: Complex, name: str, tolerance: float) -> Complex:
    """Hermitian semidefinite part of a covariance that was stored in less than double precision."""
    _require_hermitian(C, name, tolerance)
    C = (C + adjoint(C)) / 2
    values, vectors = np.linalg.eigh(C)
    require_semidefinite(values, name, tolerance)
    rounding = values < tolerance / 25 * values[..., -1:]
    return C - (vectors * np.where(rounding, values, 0)[..., None, :]) @ adjoint(vectors)


def _stored_once(C: Complex) -> Complex:
    """The matrix (rx, rx) that is broadcast to all drops, or C itself."""
    return C if any(C.strides[:-2]) or C.ndim == 2 or not C.size else C[(0,) * (C.ndim - 2)]


def _require_hermitian(C: Complex, name: str, tolerance: float = _HERMITIAN) -> None:
    skew = np.ascontiguousarray(C - adjoint(C))  # a view of a broadcast array keeps its strides
    skew = skew.reshape(-1, skew.shape[-1] ** 2).view(np.float64)
    off = np.maximum(skew.max(axis=-1), -skew.min(axis=-1))
    largest = np.abs(np.diagonal(C, axis1=-2, axis2=-1).real).max(axis=-1).ravel()  # no entry can be larger
    if (off > tolerance * largest).any():
        worst = (off / np.where(largest > 0, largest, off)).max()
        raise InputError(
            f"{name} is not Hermitian: it differs from its conjugate transpose by {worst:.3g} of the largest entry of "
            "its diagonal; expected a Hermitian matrix"
        )


def sic_order(uplink: Uplink, order: Order = "weakest-first") -> np.ndarray:
    """Users in decoding order, by received power `p_q ||h_q||^2`, below Eq. (3).

    Parameters
    ----------
    order : {"weakest-first", "strongest-first"}
        The paper decodes the weakest user first, against all the others. Strongest first has the lower mean MSE.

    Returns
    -------
    (..., user) int
        Among users of equal power the one with the lower index is decoded first, in both orders.
    """
    one_of(order, Order, "order")
    power = require_uplink(uplink).received_power
    return np.argsort(power if order == "weakest-first" else -power, axis=-1, kind="stable")


def _by_drops(
    uplink: Uplink, covs: dict[str, ArrayLike], order: Order | None, kernel: Callable[..., np.ndarray]
) -> np.ndarray:
    """Apply `kernel(columns, G, *covs)` to blocks of drops; the result has the common batch shape.

    The users (`columns`) are sorted with the last decoded first, so that each user's interference precedes it; they
    stay in the uplink's order where `order` is None.
    """
    valid = [_shaped(cov, uplink, name) for name, cov in covs.items()]
    try:
        batch = np.broadcast_shapes(uplink.batch_shape, *(C.shape[:-2] for C in valid))
    except ValueError:
        shapes = " and ".join(f"{name} {C.shape}" for name, C in zip(covs, valid, strict=True))
        raise InputError(f"{shapes} do not fit: expected leading dimensions that broadcast") from None
    users = np.arange(uplink.num_users)
    columns = np.broadcast_to(users, uplink.power.shape) if order is None else sic_order(uplink, order)[..., ::-1]
    count = int(np.prod(batch))
    parts = []
    for array, core in ((columns, 1), (uplink.G, 2), *((_stored_once(C), 2) for C in valid)):
        shape = array.shape[array.ndim - core :]
        shared = array.size == np.prod(shape)  # one for all drops: factored once per block
        full = array if shared else np.broadcast_to(array, (*batch, *shape))
        parts.append(full.reshape(-1, *shape))
    if not count:
        raise InputError(f"the batch of drops has shape {batch}, which is empty: expected at least one drop")
    results = []
    for start in range(0, count, DROPS_AT_ONCE):
        given = [part if len(part) == 1 else part[start : start + DROPS_AT_ONCE] for part in parts]
        found = kernel(*given)
        rows = min(DROPS_AT_ONCE, count - start)
        results.append(found if len(found) == rows else np.broadcast_to(found, (rows, *found.shape[1:])))
    return np.concatenate(results).reshape((*batch, *results[0].shape[1:]))


def _whitened(
    columns: np.ndarray, G: Complex, C: Complex, name: str = "noise_cov", with_filters: bool = False
) -> Whitened:
    _require_hermitian(C, name)
    return whiten(C, np.take_along_axis(G, columns[:, None, :], axis=-1), filters=with_filters, name=name)


def _own_order(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Rows in the order of the columns, put back in the order of the uplink's users."""
    back = np.argsort(columns, axis=-1)
    back = back.reshape(*back.shape, *(1,) * (values.ndim - back.ndim))
    return np.take_along_axis(values, np.broadcast_to(back, (len(values), *back.shape[1:])), axis=1)


def sic_rates(uplink: Uplink, noise_cov: ArrayLike, order: Order = "weakest-first") -> Real:
    """Rate of each user under successive cancellation, Eq. (3): `R_q = log(1 + p_q h_q^H X_q^(-1) h_q)`.

    X_q is the covariance of the noise plus all users decoded after q. The rates sum to `sum_rate` in either order.

    Parameters
    ----------
    uplink : Uplink
    noise_cov : (..., rx, rx) complex, W
        Hermitian positive semidefinite; may be singular.
    order : {"weakest-first", "strongest-first"}
        See `sic_order`; the default is the paper's.

    Returns
    -------
    (..., user) float, nats, in the order of `uplink`'s users
        Infinite for a user with signal energy in the null space of C.

    Raises
    ------
    InputError
        if `noise_cov` is not Hermitian, not positive semidefinite or of the wrong shape.
    """

    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Real:
        return _own_order(log_gains(_whitened(columns, G, C)), columns)

    one_of(order, Order, "order")
    return _by_drops(uplink, {"noise_cov": noise_cov}, order, kernel)


def sic_mse(uplink: Uplink, noise_cov: ArrayLike, order: Order = "weakest-first") -> Real:
    """MSE per user after MMSE successive interference cancellation, Eq. (5): `mu_q = e^(-R_q)`.

    Cancellation is assumed perfect. A receiver that subtracts its own linear estimates is the joint LMMSE receiver,
    whose MSE is `lmmse_mse`.

    Parameters, errors: see `sic_rates`.

    Returns
    -------
    (..., user) float, in [0, 1], in the order of `uplink`'s users.
    """
    return np.exp(-sic_rates(uplink, noise_cov, order))


def interference_free_rates(uplink: Uplink, noise_cov: ArrayLike) -> Real:
    """Rate of each user when all others are silent or already cancelled, `log(1 + g_q^H C^(-1) g_q)`.

    Parameters, errors: as `sic_rates`.

    Returns
    -------
    (..., user) float, nats; infinite for a user with signal energy in the null space of C.
    """

    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Real:
        white = _whitened(columns, G, C)
        rates = np.log1p((np.square(white.W.real) + np.square(white.W.imag)).sum(axis=-2))
        if white.N is None:
            return np.asarray(rates)
        free = np.linalg.norm(white.N @ G, axis=-2) > FREE * np.linalg.norm(G, axis=-2)
        return np.where(free, np.inf, rates)

    return _by_drops(uplink, {"noise_cov": noise_cov}, None, kernel)


def sum_rate(uplink: Uplink, noise_cov: ArrayLike) -> Real:
    """Sum rate, Eq. (13): `log det(I + G^H C^(-1) G)`, (...) in nats; infinite for signals outside range(C)."""

    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Real:
        return np.asarray(log_gains(_whitened(columns, G, C)).sum(axis=-1))

    return _by_drops(uplink, {"noise_cov": noise_cov}, None, kernel)


def sum_rate_published(uplink: Uplink, noise_cov: ArrayLike) -> Real:
    """The sum rate as printed in Eq. (4): `log(1 + sum_q p_q h_q^H C^(-1) h_q)`, (...) in nats.

    This is `log(1 + tr A)`, at most `sum_rate` = `log det(I + A)`; they agree only for A of rank one.
    """

    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Real:
        white = _whitened(columns, G, C)
        energy = np.square(white.W.real).sum(axis=(-1, -2)) + np.square(white.W.imag).sum(axis=(-1, -2))
        return np.where(np.any(white.free, axis=-1), np.inf, np.log1p(energy))

    return _by_drops(uplink, {"noise_cov": noise_cov}, None, kernel)


def lmmse_error_cov(uplink: Uplink, noise_cov: ArrayLike) -> Complex:
    """Error covariance across users of the joint LMMSE receiver, `(I + G^H C^(-1) G)^(-1)`: (..., user, user)."""

    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Complex:
        Q1, _, _ = factors(_whitened(columns, G, C))
        return Q1 @ adjoint(Q1)

    return _by_drops(uplink, {"noise_cov": noise_cov}, None, kernel)


def lmmse_mse(uplink: Uplink, noise_cov: ArrayLike) -> Real:
    """MSE per user of the joint LMMSE receiver, `[(I + G^H C^(-1) G)^(-1)]_qq`: (..., user) in [0, 1]."""
    return np.einsum("...ii->...i", lmmse_error_cov(uplink, noise_cov)).real.copy()


def lmmse_filter(uplink: Uplink, design_cov: ArrayLike) -> Complex:
    """Joint LMMSE filter, `G^H (G G^H + C)^(-1)`: (..., user, rx) in W^(-1/2), for estimates `filter @ y`.

    Parameters
    ----------
    uplink : Uplink
    design_cov : (..., rx, rx) complex, W
        The noise covariance that the receiver assumes.
    """
    return _filters(uplink, design_cov, None)


def sic_filters(uplink: Uplink, design_cov: ArrayLike, order: Order = "weakest-first") -> Complex:
    """MMSE filters of successive cancellation, `g_q^H (X_q + g_q g_q^H)^(-1)`: (..., user, rx) in W^(-1/2).

    Row q applies to y with the users decoded before q removed; rows are in the order of `uplink`'s users.

    Parameters
    ----------
    uplink : Uplink
    design_cov : (..., rx, rx) complex, W
        The noise covariance that the receiver assumes.
    order : {"weakest-first", "strongest-first"}
    """
    one_of(order, Order, "order")
    return _filters(uplink, design_cov, order)


def _filters(uplink: Uplink, design_cov: ArrayLike, order: Order | None) -> Complex:
    def kernel(columns: np.ndarray, G: Complex, C: Complex) -> Complex:
        white = _whitened(columns, G, C, "design_cov", with_filters=True)
        return _own_order(filters(white, joint=order is None), columns)

    return _by_drops(uplink, {"design_cov": design_cov}, order, kernel)


def error_cov(
    uplink: Uplink,
    noise_cov: ArrayLike,
    design_cov: ArrayLike | None = None,
    order: Order = "weakest-first",
    *,
    receiver: Receiver = "sic",
) -> Complex:
    """Error covariance across users, `E[e e^H]` with `e = s - s^`: (..., user, user).

    With a filter F designed for `design_cov` it is `B B^H + F C F^H`, with `B = I - (F G) * mask`; the mask removes the
    users that were cancelled before.

    Parameters
    ----------
    uplink : Uplink
    noise_cov : (..., rx, rx) complex, W
        The true noise covariance.
    design_cov : (..., rx, rx) complex, W, optional
        The covariance that the receiver assumes, such as `uplink.thermal_cov` for a receiver unaware of the jammer;
        None is the matched receiver.
    order : {"weakest-first", "strongest-first"}
        For "sic" only.
    receiver : {"sic", "lmmse"}
        Successive cancellation without errors, or joint LMMSE.

    Returns
    -------
    (..., user, user) complex
        Diagonal with `sic_mse` for the matched "sic", `lmmse_error_cov` for the matched "lmmse". MSEs of a mismatched
        receiver can exceed 1.
    """
    one_of(receiver, Receiver, "receiver")
    one_of(order, Order, "order")
    if design_cov is None:
        if receiver == "lmmse":
            return lmmse_error_cov(uplink, noise_cov)
        return (sic_mse(uplink, noise_cov, order)[..., None] * np.eye(uplink.num_users)).astype(np.complex128)
    require_noise_cov(noise_cov, uplink)
    joint = receiver == "lmmse"

    def kernel(columns: np.ndarray, G: Complex, C: Complex, design: Complex) -> Complex:
        white = _whitened(columns, G, design, "design_cov", with_filters=True)
        F = _own_order(filters(white, joint=joint), columns)
        position = np.argsort(columns, axis=-1)
        heard = joint | (position[:, None, :] <= position[:, :, None])
        B = np.eye(G.shape[-1]) - (F @ G) * heard
        return B @ adjoint(B) + F @ C @ adjoint(F)

    covs = {"noise_cov": noise_cov, "design_cov": design_cov}
    return _by_drops(uplink, covs, None if joint else order, kernel)


def _square(error_cov: ArrayLike) -> Complex:
    E = complex_array(error_cov, "error_cov")
    if E.ndim < 2 or E.shape[-1] != E.shape[-2]:
        raise InputError(f"error_cov has shape {E.shape}: expected (..., user, user)")
    return E


def common_error(error_cov: ArrayLike) -> Real:
    """Power of the sum of the users' errors relative to the sum of their powers, `1^T E 1 / tr E`.

    1 for uncorrelated errors, the number of users for one error common to all, 0 for errors that cancel.

    Parameters
    ----------
    error_cov : (..., user, user) complex
        E, from `error_cov`, of trace above 0.

    Returns
    -------
    (...) float, from 0 to the number of users.

    Raises
    ------
    InputError
        for a matrix that is not square, NaN, or a trace of 0, of users without errors.
    """
    E = _square(error_cov)
    total = np.einsum("...ii->...", E).real
    if not (total > 0).all():
        raise InputError(f"error_cov has the trace {total.min():g}: expected one above 0")
    return np.asarray(E.real.sum(axis=(-2, -1)) / total)


def error_correlations(error_cov: ArrayLike) -> Real:
    """Absolute correlation of each pair of users' errors, `|E_qr| / sqrt(E_qq E_rr)`: (..., user, user).

    Parameters
    ----------
    error_cov : (..., user, user) complex
        From `error_cov`; the result is NaN for a user without errors.
    """
    E = _square(error_cov)
    power = np.einsum("...ii->...i", E).real
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(E) / np.sqrt(power[..., :, None] * power[..., None, :]))


def by_rank(values: ArrayLike, uplink: Uplink) -> Real:
    """Values (..., user) sorted by the users' received power, weakest first."""
    numbers = fitted(real_array(values, "values"), require_uplink(uplink).power.shape, "values", "(..., user)")
    return np.take_along_axis(numbers, sic_order(uplink), axis=-1)
