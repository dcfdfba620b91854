"""Chi-square test for the purpose of the paper's ratio: do logits change more than noise of variance s₀² explains?

Adding a constant to all logits changes no prediction, so they are centred: Bᵀ z with an orthonormal basis B
(C × (C − 1)) of the complement of the ones. Under noise of variance s₀² the statistic
T² = Δzᵀ B (s₀² Bᵀ J Jᵀ B)⁺ Bᵀ Δz is chi-square distributed. Its degrees of freedom are the rank of that matrix, usually
C − 1. Under variance s² it is larger by the factor s²/s₀².
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from scipy.special import chdtrc, chdtri

from rmtllmf_lib.arrays import Real, real_array, real_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder, noise_level
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated_call

RANK_TOLERANCE = 1e-6  # of the largest eigenvalue: J Jᵀ comes from float32 products


def _whitening(model: FirstOrder) -> tuple[Real, NDArray[np.int64]]:
    """Matrices (n, r, C) that whiten Δz / s₀ to r standard normal numbers, padded with zeros, and the ranks (n,)."""
    if model.classes == 1:
        raise InputError("one class: centred logits are all zero; expected two classes or more for a chi-square test")
    basis = linalg.helmert(model.classes)  # (C − 1, C), orthonormal, orthogonal to the ones
    values, vectors = np.linalg.eigh(basis @ model.gram @ basis.T)
    used = values > RANK_TOLERANCE * values[:, -1:]
    rank = used.sum(1)
    if not rank.all():
        raise InputError(
            f"J Jᵀ of image {int(np.argmin(rank))} is zero: expected logits that depend on the weights; remove it"
        )
    scale = np.where(used, 1 / np.sqrt(np.where(used, values, 1.0)), 0.0)
    return scale[:, :, None] * (vectors.swapaxes(1, 2) @ basis), rank


@validated_call
def degrees_of_freedom(model: FirstOrder) -> NDArray[np.int64]:
    """Rank (n,) of the centred J Jᵀ of each image: C − 1, unless some combination of logits is constant."""
    return _whitening(model)[1]


@validated_call
def statistic(model: FirstOrder, change: ArrayLike, reference_std: float) -> Real:
    """T² (…, n) of a change of the logits.

    Parameters
    ----------
    change : (…, n, C)
        Δz = z_d − z_u.
    reference_std : float > 0
        s₀, standard deviation of the noise of each parameter under the null hypothesis.

    Raises
    ------
    InputError
        for one class, a noise level that is not positive, a change that is not finite or has another shape, or an
        image whose logits do not depend on the parameters.
    """
    moved = real_array(change, "the change of the logits")
    if moved.shape[-2:] != model.logits.shape:
        raise InputError(f"the change has shape {moved.shape}: expected (…, {len(model)}, {model.classes})")
    scale = real_number(reference_std, "the reference standard deviation", positive=True)
    white = np.einsum("nrc,...nc->...nr", _whitening(model)[0], moved / scale)
    return (white**2).sum(-1)


@validated_call
def critical_value(dof: ArrayLike, level: float) -> Real:
    """Threshold that T² exceeds with probability `level` under H0, elementwise in the degrees of freedom."""
    if not 0 < real_number(level, "level") < 1:
        raise InputError(f"level is {level!r}: expected a probability between 0 and 1, such as .05")
    return chdtri(real_array(dof, "the degrees of freedom", minimum=1), level)


@validated_call
def power(dof: ArrayLike, level: float, reference_std: float, std: float) -> Real:
    """Probability that H0 is rejected under noise of standard deviation s, exact to first order; the level at s = s₀.

    1 − F((s₀² / s²) χ²_{r, 1−level}), with F the distribution function of chi-square with r degrees of freedom.

    Parameters
    ----------
    dof : (…) ≥ 1
        r, see `degrees_of_freedom`.
    level : float in (0, 1)
        Probability of rejecting H0 at s = s₀.
    reference_std, std : float
        s₀ > 0 and s ≥ 0, standard deviations of the noise of each parameter.

    Returns
    -------
    (…) float, in [0, 1], of the shape of `dof`

    Raises
    ------
    InputError
        for a number outside of these ranges.
    """
    scale = real_number(reference_std, "the reference standard deviation", positive=True)
    ratio = noise_level(std) / scale
    critical = critical_value(dof, level)
    return chdtrc(real_array(dof, "the degrees of freedom", minimum=1), critical / ratio**2) if ratio else 0 * critical
