"""Rate and distortion: the nats that a symbol carries, and the error of a number coded with them, `D(R) = e^(-R)`.

Rates are per complex symbol, that is per two real numbers, in nats. MSEs are those of a linear MMSE receiver, Eq. (5),
whose estimate is a symbol in Gaussian noise at a signal-to-noise ratio of `1 / mse - 1`.

References
----------
.. [1] T. M. Cover, J. A. Thomas, "Elements of Information Theory", 2nd edition, Wiley, 2006, section 10.3.2.
.. [2] H. Gish, J. N. Pierce, "Asymptotically efficient quantizing", IEEE Transactions on Information Theory 14 (1968)
   676-683.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import norm

from rmtllmf_lib.arrays import Real, real_array

PAM8 = np.arange(-7, 8, 2)  # amplitudes of one real dimension of 64-QAM; their mean square is 21
_UNIT_PAM8 = PAM8 / np.sqrt(21)  # of mean square 1
_MSES_AT_ONCE = 1000  # an array of 64 MB


def qam64_information(mse: ArrayLike) -> Real:
    """Nats that a 64-QAM symbol carries where a Gaussian one carries `-log(mse)`, Eqs. (3) and (5).

    Parameters
    ----------
    mse : (...) float
        In (0, 1].

    Returns
    -------
    (...) float, nats
        Mutual information of a uniform 64-QAM symbol and its estimate; at most log 64 = 4.16.
    """
    mu = real_array(mse, "mse", positive=True, maximum=1)
    flat = mu.ravel()
    parts = [_pam8_information(flat[start : start + _MSES_AT_ONCE]) for start in range(0, len(flat), _MSES_AT_ONCE)]
    return 2 * np.concatenate([np.zeros(0), *parts]).reshape(mu.shape)


def _pam8_information(mse: Real) -> Real:
    """Nats of one real dimension, (n,): `log 8 - E log sum_j p(y | x_j) / p(y | x)`, for x < 0 by symmetry."""
    noise, step = np.linspace(-9, 9, 121, retstep=True)  # the trapezoidal rule is exact to 1e-9 here
    apart = (_UNIT_PAM8[:4, None] - _UNIT_PAM8) * np.sqrt(1 / mse - 1)[
        :, None, None
    ]  # (n, x, j), in standard deviations
    shifted = apart[:, :, None, :] + noise[:, None]  # (n, x, noise, j)
    lost = logsumexp((noise[:, None] ** 2 - shifted**2) / 2, axis=-1).mean(axis=1)
    return np.asarray(np.log(8) - lost @ (norm.pdf(noise) * step))


def capacity_bits(mse: ArrayLike, uses: ArrayLike = 1) -> Real:
    """Bits that ideal codes carry in so many channel uses, `-uses log2(mse)`, Eqs. (3) and (5).

    Parameters
    ----------
    mse : (...) float
        Of the LMMSE estimate of a unit-power symbol, in (0, 1].
    uses : (...) float
        Channel uses, at least 0.

    Returns
    -------
    (...) float, bits
    """
    mu = real_array(mse, "mse", positive=True, maximum=1)
    return np.asarray(-real_array(uses, "uses", minimum=0) * np.log2(mu))


def ideal_distortion(mse: ArrayLike, uses: ArrayLike) -> Real:
    """Least mean squared error of Gaussian numbers, two of which are sent in so many channel uses: `D = mse^uses`.

    One use is the analog symbol itself, whose MSE is the bound already; more uses reach it only with a code, since
    repeating the symbol leaves `repeated_mse`.

    Parameters
    ----------
    mse : (...) float
        Of the LMMSE estimate of a unit-power symbol, in (0, 1].
    uses : (...) float
        Channel uses for each pair of real numbers, at least 0; below 1 the numbers are compressed.

    Returns
    -------
    (...) float
        Relative to the variance of the numbers.
    """
    mu = real_array(mse, "mse", positive=True, maximum=1)
    return np.asarray(mu ** real_array(uses, "uses", minimum=0))


def repeated_mse(mse: ArrayLike, uses: ArrayLike) -> Real:
    """MSE of an analog symbol that is sent in so many channel uses, combined linearly: `mu / (n - (n - 1) mu)`.

    The signal-to-noise ratio `1 / mu - 1` of one use is multiplied by n.

    Parameters
    ----------
    mse : (...) float
        Of the LMMSE estimate from one use, in (0, 1].
    uses : (...) float
        Channel uses of each symbol, at least 1.

    Returns
    -------
    (...) float
    """
    mu, n = real_array(mse, "mse", positive=True, maximum=1), real_array(uses, "uses", minimum=1)
    return np.asarray(mu / (n - (n - 1) * mu))


def quantised_gaussian(step: ArrayLike) -> tuple[Real, Real]:
    """Rate and distortion of Gaussian numbers that are rounded to multiples of `step` and compressed losslessly.

    Parameters
    ----------
    step : (...) float
        In standard deviations, at least .001.

    Returns
    -------
    rate : (...) float, nats
        Entropy of two rounded numbers, which an ideal lossless code achieves.
    distortion : (...) float
        Mean squared error of the best reconstruction, relative to the variance. At small steps it exceeds `e^(-rate)`,
        the bound of all schemes, by a factor of pi e / 6, or 1.53 dB [1, 2].
    """
    width = real_array(step, "step", minimum=1e-3)
    pairs = [_rounded(float(each)) for each in width.ravel()]
    rate, distortion = np.array(pairs).reshape(-1, 2).T
    return 2 * rate.reshape(width.shape), distortion.reshape(width.shape)


def _rounded(step: float) -> tuple[float, float]:
    """Entropy of one rounded number in nats, and the distortion."""
    count = int(np.ceil(12 / step))
    edges = (np.arange(-count, count + 2) - 0.5) * step
    probability = np.diff(norm.cdf(edges))
    moment = -np.diff(norm.pdf(edges))  # E(x; x in the interval)
    some = probability > 0
    explained = np.square(moment[some]) / probability[some]
    return float(-(probability[some] * np.log(probability[some])).sum()), float(1 - explained.sum())
