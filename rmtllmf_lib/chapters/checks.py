"""Checks of a chapter's claims: each prints one line if the claim holds and stops the notebook if it does not.

A strict check of random numbers has a bound from their law, with a false-alarm rate below 1e-5: `share_bound`,
`standard_errors` and `covariance_bound`.

References
----------
.. [1] S. Boucheron, G. Lugosi, P. Massart, "Concentration Inequalities", Oxford University Press, 2013, section 2.8
   (Bernstein's inequality).
.. [2] B. Laurent, P. Massart, "Adaptive estimation of a quadratic functional by model selection", Annals of Statistics
   28 (2000) 1302-1338, lemma 1 (sums of weighted chi-squares).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from rmtllmf_lib.arrays import complex_array, real_number, whole_number

FALSE_ALARM = 1e-6  # of every bound; a tenth of what is promised, since most laws hold for many draws only


def share_bound(p: float, n: int) -> float:
    """How far the share of `n` independent draws in an event of probability `p` may be from `p`.

    Bernstein's inequality [1]_, which holds for any n: `sqrt(2 p (1 - p) x / n) + x / (3 n)`, x = log(2 / alpha).
    """
    p, n, x = real_number(p, "p", minimum=0, maximum=1), whole_number(n, "n"), np.log(2 / FALSE_ALARM)
    return float(np.sqrt(2 * p * (1 - p) * x / n) + x / (3 * n))


def standard_errors(comparisons: int = 1) -> float:
    """How many standard errors the largest of several Gaussian deviations may have (union bound): 4.9 for one."""
    return float(norm.isf(FALSE_ALARM / 2 / whole_number(comparisons, "comparisons")))


def covariance_bound(covariance: ArrayLike, n: int) -> float:
    """How far the sample covariance of `n` complex Gaussian vectors may be from the true one, in the Frobenius norm.

    For many draws, `n ||S - K||^2` is the sum over all i, j of lambda_i lambda_j times a chi-square of one degree of
    freedom, with lambda the eigenvalues of K. The sum is at most `(tr K)^2 + 2 sqrt(x) ||K||^2 + 2 x lambda_1^2` [2]_,
    x = log(1 / alpha); the factor `1 + sqrt(x / n)` covers the deviation of Gamma from Gaussian variables.
    """
    values = np.linalg.eigvalsh(complex_array(covariance, "covariance"))
    n, x = whole_number(n, "n"), np.log(1 / FALSE_ALARM)
    total = values.sum() ** 2 + 2 * np.sqrt(x) * np.square(values).sum() + 2 * x * values[-1] ** 2
    return float(np.sqrt(total / n) * (1 + np.sqrt(x / n)))


def check(
    claim: str, value: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-6, atol: float = 0.0, strict: bool = True
) -> None:
    """Compare numbers and print the claim with its tolerance.

    Parameters
    ----------
    claim : str
        A sentence; printed after ✓.
    value, expected : array_like
        Real or complex. Broadcast against each other.
    rtol, atol : float
        Passes where |value − expected| ≤ atol + rtol · |expected|. Finite, at least 0.
    strict : bool
        As in `check_that`.

    Raises
    ------
    AssertionError
        With the claim and the largest difference, if a number is farther off or not finite, or if there are no
        numbers.
    InputError
        For a tolerance that is negative, NaN or infinite.
    """
    rtol, atol = real_number(rtol, "rtol", minimum=0), real_number(atol, "atol", minimum=0)
    kind = np.complex128 if any(np.iscomplexobj(np.asarray(side)) for side in (value, expected)) else np.float64
    found, wanted = np.broadcast_arrays(np.asarray(value, kind), np.asarray(expected, kind))
    if found.size == 0:
        raise AssertionError(f"✗ {claim}: there is no number to compare")
    finite = np.isfinite(found) & np.isfinite(wanted)
    with np.errstate(invalid="ignore"):  # inf - inf
        excess = np.where(finite, np.abs(found - wanted) - (atol + rtol * np.abs(wanted)), np.inf)
    worst = int(np.argmax(excess))
    if excess.flat[worst] > 0:
        message = f"✗ {claim}: {found.flat[worst]:.6g}, expected {wanted.flat[worst]:.6g} (rtol {rtol:g})"
        if strict:
            raise AssertionError(message)
        print(message)
        return
    parts = [f"{size:g} {kind}" for size, kind in ((rtol, "relative"), (atol, "absolute")) if size]
    print(f"✓ {claim} ({'to ' + ' and '.join(parts) if parts else 'exactly'})")


def check_that(claim: str, holds: bool | np.bool_, evidence: str = "", *, strict: bool = True) -> None:
    """Print a claim with its evidence, after ✓ if it holds and ✗ if not.

    Parameters
    ----------
    strict : bool
        Whether a claim that does not hold stops the notebook. A chapter is strict with the parameters of its text; with
        a reader's own parameters a claim may fail, and is printed as failed.

    Raises
    ------
    AssertionError
        With claim and evidence, if the claim does not hold and the chapter is strict.
    """
    text = f"{claim}: {evidence}" if evidence else claim
    if not holds and strict:
        raise AssertionError(f"✗ {text}")
    print(f"{'✓' if holds else '✗'} {text}")
