"""Worst noise under more than a budget: a jammer of given eigenvalues, or of given power at every antenna.

Both minimise the sum rate `log det(I + G^H C^-1 G)`, Eq. (13), over `C = sigma_0^2 I + C_j`, as the attack "sum-rate"
does over all C_j of one budget. A jammer whose eigenvalues are given chooses directions, one with given powers at the
antennas chooses how its noise is correlated between them. At the eigenvalues, or the diagonal, of the best jammer of a
budget, each is that jammer.

References
----------
.. [1] S. N. Diggavi, T. M. Cover, "The worst additive noise under a covariance constraint", IEEE Transactions on
   Information Theory 47 (2001) 3072-3081 (the minimum is over a convex set, on which the rate is convex).
.. [2] M. Fiedler, "Bounds for the determinant of the sum of Hermitian matrices", Proceedings of the American
   Mathematical Society 30 (1971) 27-31.
.. [3] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge University Press, 2004, chapter 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, fitted, real_array, real_number, whole_number
from rmtllmf_lib.wireless.adversary import Attack
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.receiver import sum_rate
from rmtllmf_lib.wireless.square_root import adjoint

_SHARPER = 20.0  # factor of the barrier's weight from one stage to the next
_NEAR, _CENTRED = 1e-2, 1e-10  # Newton decrements, squared and halved: whole steps do from here, and a stage ends


def worst_rotation(uplink: Uplink, eigenvalues: ArrayLike) -> Attack:
    """The worst directions for a jammer whose covariance has given eigenvalues.

    It sends its strongest component along the strongest direction of the signals, and so on: among all unitary U,
    `det(G G^H + U diag(c) U^H)` is smallest where both have the same eigenvectors in the same order [2]_, and
    `det(U diag(c) U^H)` is the same for all.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    eigenvalues : (..., rx) float, W
        Of C_j, at least 0, in any order; one set, or one for each drop.

    Returns
    -------
    Attack
        Optimal, with `lower_bound` equal to the objective. Where fewer eigenvalues are above 0 than the signals have
        directions, and there is no noise floor, the rate of every rotation is infinite.

    Raises
    ------
    InputError
        for negative numbers, NaN, or shapes that do not fit.
    """
    antennas = require_uplink(uplink).num_rx_antennas
    shape = (*uplink.batch_shape, antennas)
    given = fitted(real_array(eigenvalues, "eigenvalues", minimum=0), shape, "eigenvalues", "(..., rx)")
    falling = -np.sort(-given, axis=-1)
    U, root, _ = np.linalg.svd(uplink.G, full_matrices=True)
    jammer = (U * falling[..., None, :]) @ adjoint(U)
    cov = (jammer + adjoint(jammer)) / 2 + uplink.thermal_cov
    level = falling[..., : root.shape[-1]] + uplink.noise_floor[..., None]
    signal = np.where(root > np.finfo(np.float64).eps * antennas * root[..., :1], root, 0) ** 2
    with np.errstate(divide="ignore"):
        ratio = np.divide(signal, level, out=np.zeros_like(signal), where=signal > 0)
    rate = np.asarray(np.log1p(ratio).sum(axis=-1))
    return Attack(cov, rate, rate, 0)


def worst_correlation(uplink: Uplink, diagonal: ArrayLike, *, gap: float = 1e-6, max_iterations: int = 200) -> Attack:
    """The worst correlations for a jammer whose power at each antenna is given.

    The rate is convex in C_j, and the constraints are linear: Newton's method follows the central path of the barrier
    `-log det C_j` [3]_. The tangent at each of its points, minimised over a set that holds all such jammers, is a lower
    bound. A drop with 16 antennas takes about a fifth of a second.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    diagonal : (..., rx) float, W
        Of C_j, at least 0; one set, or one for each drop. An antenna with 0 is spared.
    gap : float
        Relative gap between objective and bound at which it stops.
    max_iterations : int
        Limit of Newton's steps for a drop; the bound holds wherever it stops.

    Returns
    -------
    Attack

    Raises
    ------
    InputError
        for negative numbers, NaN, or shapes that do not fit.
    """
    antennas = require_uplink(uplink).num_rx_antennas
    shape = (*uplink.batch_shape, antennas)
    given = fitted(real_array(diagonal, "diagonal", minimum=0), shape, "diagonal", "(..., rx)")
    real_number(gap, "gap", positive=True)
    whole_number(max_iterations, "max_iterations")
    signals = (uplink.G @ adjoint(uplink.G)).reshape(-1, antennas, antennas)
    floors, powers = uplink.noise_floor.ravel(), given.reshape(-1, antennas)
    jammers, bounds, most = np.empty_like(signals), np.empty(len(floors)), 0
    for drop, (S, floor, d) in enumerate(zip(signals, floors, powers, strict=True)):
        jammers[drop], bounds[drop], steps = _correlated(S, float(floor), d, gap, max_iterations)
        most = max(most, steps)
    cov = jammers.reshape(uplink.thermal_cov.shape) + uplink.thermal_cov
    rate = sum_rate(uplink, cov)
    return Attack(cov, rate, np.minimum(bounds.reshape(uplink.batch_shape), rate), most)


def _correlated(S: Complex, floor: float, d: Real, gap: float, limit: int) -> tuple[Complex, float, int]:
    """C_j of one drop with the signals' covariance S, a lower bound in nats, and the number of steps."""
    jammer = np.diag(d).astype(np.complex128)
    here = np.flatnonzero(d)
    spared_signal = floor == 0 and np.abs(np.delete(S, here, axis=0)).any()
    if not len(here) or spared_signal or not S.any():  # no noise, a rate without bound, or none at all
        return jammer, _rate(S, jammer + floor * np.eye(len(d))), 0
    # in units of the jammer's amplitude at each antenna, C_j has ones on its diagonal, and the rate is the same
    amplitude = np.sqrt(np.where(d > 0, d, 1))
    scaled = S / np.outer(amplitude, amplitude)
    if floor == 0:  # and no signal at the antennas that are spared, whose noise would have no inverse
        scaled, level, places = scaled[np.ix_(here, here)], np.zeros(len(here)), np.arange(len(here))
    else:
        level, places = floor / amplitude**2, here
    problem = _Correlation(scaled, level, places)
    X, weight, lower, steps = np.eye(len(here), dtype=np.complex128), 1.0, -np.inf, 0
    while steps < limit:
        P, Q = problem.inverses(X)
        B = np.asarray(np.linalg.inv(X), dtype=np.complex128)
        step, decrement = problem.newton(P, Q, B, weight)
        if decrement < _CENTRED:
            lower = max(lower, problem.bound(X, P, Q, B, weight))
            wanted = gap * problem.rate(X)
            if problem.rate(X) - lower <= wanted or len(here) / weight < wanted / 100:  # the rest is rounding
                break
            weight *= _SHARPER
            continue
        X = problem.moved(X, step, decrement, weight)
        steps += 1
    jammer[np.ix_(here, here)] = X * np.outer(amplitude[here], amplitude[here])
    return jammer, max(lower, 0.0), steps


def _rate(S: Complex, C: Complex) -> float:
    """`log det(C + S) - log det C`, infinite for a singular C with signals outside of its range."""
    determinant = np.linalg.slogdet(C)[1]
    return float("inf") if S.any() and np.isneginf(determinant) else float(np.linalg.slogdet(C + S)[1] - determinant)


class _Correlation:
    """One drop: signals S, the noise floor of each antenna, and the places of those with a jammer of power 1."""

    def __init__(self, S: Complex, floor: Real, here: np.ndarray) -> None:
        self.S, self.floor, self.places = S, np.diag(floor), np.ix_(here, here)
        self.off = np.flatnonzero(~np.eye(len(here), dtype=bool).ravel())  # entries that may change

    def cov(self, X: Complex) -> Complex:
        C = self.floor.astype(np.complex128)
        C[self.places] += X
        return C

    def rate(self, X: Complex) -> float:
        return _rate(self.S, self.cov(X))

    def inverses(self, X: Complex) -> tuple[Complex, Complex]:
        """`C^-1` and `(C + S)^-1` at the jammed antennas; the gradient of the rate is their difference."""
        C = self.cov(X)
        return np.linalg.inv(C)[self.places], np.linalg.inv(C + self.S)[self.places]

    def newton(self, P: Complex, Q: Complex, B: Complex, weight: float) -> tuple[Complex, float]:
        """The step that minimises the second-order model of `weight * rate - log det X`, and half its decrement²."""
        gradient = (weight * (Q - P) - B).ravel()[self.off]
        hessian = weight * (np.kron(P, P.T) - np.kron(Q, Q.T)) + np.kron(B, B.T)
        step = np.zeros(P.size, dtype=np.complex128)
        step[self.off] = -np.linalg.solve(hessian[np.ix_(self.off, self.off)], gradient)
        moved = step.reshape(P.shape)
        return (moved + moved.conj().T) / 2, -float(np.vdot(gradient, step[self.off]).real) / 2

    def moved(self, X: Complex, step: Complex, decrement: float, weight: float) -> Complex:
        """The next point: as far along the step as the barrier's value falls by a part of what the model says."""
        if decrement < _NEAR:  # in the cone for sure, and the differences that follow would drown in rounding
            return X + step
        before, size = self._barrier(X, weight), 1.0
        while size > 1e-12:
            there = X + size * step
            if self._barrier(there, weight) <= before - 0.2 * size * decrement:
                return there
            size /= 2
        return X

    def _barrier(self, X: Complex, weight: float) -> float:
        """`weight * rate - log det X`, infinite outside of the cone."""
        values = np.linalg.eigvalsh(X)
        return np.inf if values[0] <= 0 else weight * self.rate(X) - float(np.log(values).sum())

    def bound(self, X: Complex, P: Complex, Q: Complex, B: Complex, weight: float) -> float:
        """A lower bound of the rate over all jammers with ones on the diagonal.

        With the gradient M = Q - P, any real y and the least eigenvalue l of `M - diag(y)`, every such jammer J has
        `<M, J> >= sum y_i + n min(l, 0)`; on the central path `M - diag(y) = B / weight` is positive.
        """
        M = Q - P
        y = np.diag(M - B / weight).real
        least = min(float(np.linalg.eigvalsh(M - np.diag(y))[0]), 0.0)
        return self.rate(X) - float(np.vdot(M, X).real) + float(y.sum()) + least * len(y)
