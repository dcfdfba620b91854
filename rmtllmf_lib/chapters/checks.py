"""Checks of a chapter's claims: each prints one line if the claim holds and stops the notebook if it does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def check(claim: str, value: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-6, atol: float = 0.0) -> None:
    """Compare numbers and print the claim with its tolerance.

    Parameters
    ----------
    claim : str
        A sentence; printed after ✓.
    value, expected : array_like
        Real or complex. Broadcast against each other.
    rtol, atol : float
        Passes where |value − expected| ≤ atol + rtol · |expected|.

    Raises
    ------
    AssertionError
        With the claim and the largest difference, if a number is farther off or not finite, or if there are no
        numbers.
    """
    kind = np.complex128 if any(np.iscomplexobj(np.asarray(side)) for side in (value, expected)) else np.float64
    found, wanted = np.broadcast_arrays(np.asarray(value, kind), np.asarray(expected, kind))
    if found.size == 0:
        raise AssertionError(f"✗ {claim}: there is no number to compare")
    finite = np.isfinite(found) & np.isfinite(wanted)
    with np.errstate(invalid="ignore"):  # inf - inf
        excess = np.where(finite, np.abs(found - wanted) - (atol + rtol * np.abs(wanted)), np.inf)
    worst = int(np.argmax(excess))
    if excess.flat[worst] > 0:
        raise AssertionError(f"✗ {claim}: {found.flat[worst]:.6g}, expected {wanted.flat[worst]:.6g} (rtol {rtol:g})")
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
