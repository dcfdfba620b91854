"""Monte Carlo MSEs of the uplink: symbols sent through Eq. (2) antenna by antenna, then filtered and cancelled.

An independent check of Eqs. (3) to (5), whose results it does not use. `transport.link` sends whole task vectors and
computes the same estimates without the antennas. Powers are in W; symbols have mean power 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, complex_array, fitted, numpy_generator, one_of, real_array, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.wireless.channel import Uplink, array_shape, complex_normal, require_uplink
from rmtllmf_lib.wireless.information import PAM8
from rmtllmf_lib.wireless.receiver import (
    Order,
    Receiver,
    lmmse_filter,
    lmmse_mse,
    require_noise_cov,
    sic_filters,
    sic_mse,
    sic_order,
)
from rmtllmf_lib.wireless.square_root import adjoint

Symbols = Literal["gaussian", "qam64"]
Cancellation = Literal["genie", "hard", "soft"]

_HALF_PAM8 = PAM8 / np.sqrt(42)  # of mean square 1/2, so that a 64-QAM symbol has power 1
_SYMBOLS_AT_ONCE = 2**17  # over all users and drops


@dataclass(frozen=True, eq=False)
class MeasuredMse:
    """Measured MSEs per user with their standard errors.

    Attributes
    ----------
    mse : (..., user) float
        Mean of `|s - s^|^2`, where s^ is the filter's output before any decision.
    standard_error : (..., user) float
        Standard error of that mean.
    error_cov : (..., user, user) complex
        Mean of `e e^H`, with `e = s - s^`.
    symbol_errors : (..., user) float
        Symbol error rate; NaN for Gaussian symbols, which have no decisions.
    n : int
        Number of symbols per user and drop.
    """

    mse: Real
    standard_error: Real
    error_cov: Complex
    symbol_errors: Real
    n: int

    __repr__ = short_repr


def measure_mse(
    uplink: Uplink,
    noise_cov: ArrayLike,
    *,
    n: int,
    rng: np.random.Generator,
    symbols: Symbols = "gaussian",
    order: Order = "weakest-first",
    receiver: Receiver = "sic",
    cancellation: Cancellation = "genie",
    design_cov: ArrayLike | None = None,
    csi: Uplink | None = None,
) -> MeasuredMse:
    """Send `n` symbols of every user through `y = H P^(1/2) s + z`, z ~ CN(0, C), and measure the errors.

    Parameters
    ----------
    uplink : Uplink
        One drop, or a batch of drops; each drop has its own symbols and noise.
    noise_cov : (..., rx, rx) complex, W
        The true noise covariance C; may be singular or zero. Broadcast over the batch.
    n : int
        Number of symbols per user and drop, at least 2.
    rng : numpy.random.Generator
    symbols : {"gaussian", "qam64"}
        Circular Gaussian, or uniform on 64-QAM; of power 1.
    order, receiver, cancellation
        See `receive`.
    design_cov : (..., rx, rx) complex, W, optional
        The covariance that the receiver assumes; None is the matched receiver.
    csi : Uplink, optional
        The channels that the receiver assumes, for its filters, its order and what it subtracts, see `pilots`; None is
        the true ones.

    Raises
    ------
    InputError
        for an invalid covariance, an unknown choice, or hard decisions on Gaussian symbols.
    """
    n = whole_number(n, "n", minimum=2)
    numpy_generator(rng)
    one_of(symbols, Symbols, "symbols")
    C = require_noise_cov(noise_cov, uplink)
    shape = (*uplink.batch_shape, *C.shape[-2:])
    root = covariance_root(fitted(C, shape, "noise_cov", "the uplink's batch and (rx, rx)"))
    design = C if design_cov is None else require_noise_cov(design_cov, uplink, "design_cov")
    shape, known = uplink.power.shape, uplink if csi is None else require_uplink(csi, "csi")
    if known.H.shape != uplink.H.shape:
        raise InputError(f"csi has H of shape {known.H.shape}: expected that of the uplink, {uplink.H.shape}")
    sums: dict[str, Any] = dict.fromkeys(("power", "square", "outer", "wrong"), 0.0)
    block = max(1, _SYMBOLS_AT_ONCE // uplink.power.size)
    for start in range(0, n, block):
        count = min(block, n - start)
        s = draw_symbols((*shape, count), rng, symbols)
        y = uplink.G @ s + root @ draw_symbols((*root.shape[:-1], count), rng)
        estimates, decisions = receive(
            y, known, design, order=order, receiver=receiver, cancellation=cancellation, symbols=symbols, sent=s
        )
        errors = s - estimates
        power = np.square(errors.real) + np.square(errors.imag)
        sums["power"] += power.sum(axis=-1)
        sums["square"] += np.square(power).sum(axis=-1)
        sums["outer"] += errors @ adjoint(errors)
        if decisions is not None:
            sums["wrong"] += (np.abs(decisions - s) > 1e-9).sum(axis=-1)
    mse = sums["power"] / n
    standard_error = np.sqrt(np.maximum(sums["square"] / n - mse**2, 0) / (n - 1))
    wrong = sums["wrong"] / n if symbols == "qam64" else np.full(shape, np.nan)
    return MeasuredMse(mse, standard_error, sums["outer"] / n, wrong, n)


def receive(
    y: Complex,
    uplink: Uplink,
    design_cov: ArrayLike,
    *,
    order: Order = "weakest-first",
    receiver: Receiver = "sic",
    cancellation: Cancellation = "genie",
    symbols: Symbols = "gaussian",
    sent: Complex | None = None,
) -> tuple[Complex, Complex | None]:
    """Estimate the symbols from the received signal.

    Parameters
    ----------
    y : (..., rx, n) complex, W^(1/2)
    uplink : Uplink
    design_cov : (..., rx, rx) complex, W
        The covariance that the receiver assumes.
    order : {"weakest-first", "strongest-first"}
        Decoding order of "sic", see `receiver.sic_order`.
    receiver : {"sic", "lmmse"}
        "sic": each user is estimated from y, then subtracted; "lmmse": one filter for all, without cancellation.
    cancellation : {"genie", "hard", "soft"}
        What "sic" subtracts: the symbols that were sent; the nearest points of 64-QAM; or the posterior means of the
        symbols, which for Gaussian symbols are the estimates themselves. The filters are those of perfect cancellation
        in each case.
    symbols : {"gaussian", "qam64"}
    sent : (..., user, n) complex, optional
        The symbols that were sent, for "genie".

    Returns
    -------
    estimates : (..., user, n) complex
        Filter outputs, which are MMSE estimates: their mean given s is (1 - mse) s.
    decisions : (..., user, n) complex, or None for Gaussian symbols
    """
    one_of(receiver, Receiver, "receiver")
    one_of(cancellation, Cancellation, "cancellation")
    one_of(symbols, Symbols, "symbols")
    y = _with_matrices(y, "y")
    sent = (
        None
        if sent is None
        else fitted(
            complex_array(sent, "sent"), (*require_uplink(uplink).power.shape, y.shape[-1]), "sent", "(..., user, n)"
        )
    )
    sic = receiver == "sic"
    if sic and cancellation == "hard" and symbols == "gaussian":
        raise InputError("cancellation is 'hard' with Gaussian symbols, which have no decisions: expected 'soft'")
    if sic and cancellation == "genie" and sent is None:
        raise InputError("cancellation is 'genie' and sent is None: expected the symbols that were sent")
    if not sic:
        estimates = lmmse_filter(uplink, design_cov) @ y
        return estimates, decide(estimates, lmmse_mse(uplink, design_cov)) if symbols == "qam64" else None
    mse, filters, G = sic_mse(uplink, design_cov, order), sic_filters(uplink, design_cov, order), uplink.G
    rest = y.copy()
    estimates = np.empty((*uplink.power.shape, y.shape[-1]), dtype=np.complex128)
    for users in np.moveaxis(sic_order(uplink, order), -1, 0):
        row, column = users[..., None, None], users[..., None]
        estimate = np.take_along_axis(filters, row, axis=-2) @ rest
        np.put_along_axis(estimates, row, estimate, axis=-2)
        own_mse = np.take_along_axis(mse, column, axis=-1)
        if cancellation == "genie":
            assert sent is not None
            taken = np.take_along_axis(sent, row, axis=-2)
        elif cancellation == "hard":
            taken = decide(estimate, own_mse)
        else:
            taken = posterior_mean(estimate, own_mse) if symbols == "qam64" else estimate
        rest -= np.take_along_axis(G, row, axis=-1) @ taken
    return estimates, decide(estimates, mse) if symbols == "qam64" else None


def decide(estimates: Complex, mse: Real) -> Complex:
    """Nearest 64-QAM points to MMSE estimates (..., user, n) of mean (1 - mse) s, with mse (..., user)."""
    estimates = complex_array(estimates, "estimates")
    gain = (1 - real_array(mse, "mse", minimum=0))[..., None]
    unbiased = np.divide(estimates, gain, out=np.zeros_like(estimates), where=gain > 0)

    def nearest(x: Real) -> Real:
        return _HALF_PAM8[np.clip(np.rint(x * np.sqrt(42) / 2 + 3.5), 0, 7).astype(int)]

    return nearest(unbiased.real) + 1j * nearest(unbiased.imag)


def posterior_mean(estimates: Complex, mse: Real) -> Complex:
    """E[s | s^] of 64-QAM symbols given MMSE estimates (..., user, n), `s^ = (1 - mse) s + CN(0, mse (1 - mse))`."""
    estimates = complex_array(estimates, "estimates")
    own = np.maximum(real_array(mse, "mse", minimum=0), 1e-30)[
        ..., None, None
    ]  # at 1e-30 as at 0, the mean is the nearest point

    def mean(x: Real) -> Real:
        exponent = (2 * x[..., None] * _HALF_PAM8 - (1 - own) * _HALF_PAM8**2) / own
        weight = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
        return weight @ _HALF_PAM8 / weight.sum(axis=-1)

    return mean(estimates.real) + 1j * mean(estimates.imag)


def draw_symbols(shape: tuple[int, ...], rng: np.random.Generator, symbols: Symbols = "gaussian") -> Complex:
    """Draw independent symbols of mean power 1: circular Gaussian, or uniform on 64-QAM."""
    if one_of(symbols, Symbols, "symbols") == "qam64":
        sizes, choice = array_shape(shape), numpy_generator(rng).choice
        return np.asarray(choice(_HALF_PAM8, sizes) + 1j * choice(_HALF_PAM8, sizes))
    return complex_normal(shape, rng)


def covariance_root(C: Complex) -> Complex:
    """The Hermitian L with `L L^H = C`, for (..., n, n) Hermitian positive semidefinite, singular or zero.

    Unlike the eigenvectors, whose phases and order are the processor's choice, it is unique: what is drawn with it is
    the same everywhere, up to rounding.
    """
    values, vectors = np.linalg.eigh(_with_matrices(C, "C"))
    return (vectors * np.sqrt(values.clip(0))[..., None, :]) @ adjoint(vectors)


def sample_cov(signals: Complex) -> Complex:
    """Sample covariance of zero-mean signals (..., n, samples), the mean of `x x^H`: (..., n, n)."""
    signals = _with_matrices(signals, "signals")
    return signals @ adjoint(signals) / signals.shape[-1]


def _with_matrices(value: ArrayLike, name: str) -> Complex:
    array = complex_array(value, name)
    if array.ndim < 2:
        raise InputError(f"{name} has shape {array.shape}: expected at least two dimensions")
    return array
