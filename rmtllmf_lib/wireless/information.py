"""How many nats a symbol carries, and how well they describe a number: the two sides of `D(R) = e^(-R)`.

Everything is per complex symbol, that is for two real numbers, in nats. MSEs are those of a linear MMSE receiver, Eq.
(5), whose estimate is a symbol in Gaussian noise at a signal-to-noise ratio of `1 / mse - 1`.

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
from rmtllmf_lib.errors import InputError

_PAM8 = np.arange(-7, 8, 2) / np.sqrt(21)  # one real dimension of 64-QAM, of power 1
_BLOCK = 1000  # MSEs at once: an array of 64 MB


def qam64_information(mse: ArrayLike) -> Real:
    """Nats that a symbol of 64-QAM carries where a Gaussian one carries `-log(mse)`, Eqs. (3) and (5).

    Parameters
    ----------
    mse : (...) float
        In (0, 1].

    Returns
    -------
    (...) float, nats
        Mutual information of uniform 64-QAM and its estimate; at most log 64 = 4.16, whatever the MSE.
    """
    mu = real_array(mse, "mse", positive=True)
    if (mu > 1).any():
        raise InputError(f"mse is {mu.max():g} at its largest: expected MSEs of at most 1")
    flat = mu.ravel()
    parts = [_pam8_information(flat[start : start + _BLOCK]) for start in range(0, len(flat), _BLOCK)]
    return 2 * np.concatenate([np.zeros(0), *parts]).reshape(mu.shape)


def _pam8_information(mse: Real) -> Real:
    """Nats of one real dimension, (n,): `log 8 - E log sum_j p(y | x_j) / p(y | x)`; x and -x tell the same."""
    noise, step = np.linspace(-9, 9, 121, retstep=True)  # the trapezoidal rule is exact here to 1e-9
    gaps = (_PAM8[:4, None] - _PAM8) * np.sqrt(1 / mse - 1)[:, None, None]  # (n, x, j), in standard deviations
    shifted = gaps[:, :, None, :] + noise[:, None]  # (n, x, noise, j)
    lost = logsumexp((noise[:, None] ** 2 - shifted**2) / 2, axis=-1).mean(axis=1)
    information: Real = np.log(8) - lost @ (norm.pdf(noise) * step)
    return information


def quantised_gaussian(step: ArrayLike) -> tuple[Real, Real]:
    """Rate and distortion of a Gaussian number that is rounded to multiples of `step` and then compressed.

    Parameters
    ----------
    step : (...) float
        In standard deviations; above zero.

    Returns
    -------
    rate : (...) float, nats
        Entropy of two rounded numbers, which an ideal lossless code reaches.
    distortion : (...) float
        Mean squared error of the best reconstruction, relative to the variance. At small steps it is pi e / 6, or 1.53
        dB, above `e^(-rate)`, which no scheme can beat [1, 2].
    """
    width = real_array(step, "step", positive=True)
    if (width < 1e-3).any():
        raise InputError(f"step is {width.min():g} at its smallest: expected at least .001 standard deviations")
    pairs = [_rounded(float(each)) for each in width.ravel()]
    rate, distortion = np.array(pairs).reshape(-1, 2).T
    return 2 * rate.reshape(width.shape), distortion.reshape(width.shape)


def _rounded(step: float) -> tuple[float, float]:
    """Entropy of one rounded number, and the distortion."""
    count = int(np.ceil(12 / step))
    edges = (np.arange(-count, count + 2) - 0.5) * step
    probability = np.diff(norm.cdf(edges))
    moment = -np.diff(norm.pdf(edges))  # of the numbers that fall into each cell
    some = probability > 0
    explained = np.square(moment[some]) / probability[some]
    return float(-(probability[some] * np.log(probability[some])).sum()), float(1 - explained.sum())
