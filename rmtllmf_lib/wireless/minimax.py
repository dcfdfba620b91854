"""Solvers of the worst case (P2), `min_C max_q R_q`, in its two readings, with certified upper and lower bounds.

Both work in coordinates of range(G), with the jammer's budget scaled to one. This is without loss: jamming power
outside range(G) meets no signal, and compressing a covariance to range(G) raises no rate.

References
----------
.. [1] S. D. Silvey, D. M. Titterington, B. Torsney, "An algorithm for optimal designs on a finite design space",
   Communications in Statistics A 7 (1978) 1379-1389 (the multiplicative update).
.. [2] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge University Press, 2004, chapters 10 and 11.
.. [3] Y. E. Nesterov, M. J. Todd, "Primal-dual interior-point methods for self-scaled cones", SIAM Journal on
   Optimization 8 (1998) 324-364.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from rmtllmf_lib.arrays import Complex, Real
from rmtllmf_lib.wireless.square_root import adjoint

_MULTIPLICATIVE = 4  # updates that bring the first point near the central path
_SHORT = 0.95  # share of the distance to the boundary that a step may take


@dataclass(frozen=True, eq=False)
class Bracket:
    """A jammer and bounds of the optimum, in units of the scaled problem.

    Attributes
    ----------
    cov : (..., r, r) complex
        Covariance of the jammer in range(G), of trace at most 1.
    upper, lower : (...) float
        The largest SINR under `cov`, and a lower bound of it over all covariances of trace 1.
    iterations : int
        Newton steps of the slowest drop.
    """

    cov: Complex
    upper: Real
    lower: Real
    iterations: int


@dataclass(frozen=True, eq=False)
class _Point:
    """The jammer's best response to weights `pi` of the users, and the SINRs under it."""

    basis: Complex  # (batch, r, r) eigenvectors of M(pi)
    root: Real  # (batch, r) square roots of its eigenvalues, descending
    active: NDArray[np.bool_]  # (batch, r) whether the jammer puts power into the direction
    kappa: Real  # (batch,)
    extra: Real  # (batch, r) the jammer's eigenvalues
    level: Real  # (batch, r) floor + extra
    seen: Complex  # (batch, r, user) columns of G in the eigenbasis
    sinr: Real  # (batch, user)


def _best_response(columns: Complex, floor: Real, weights: Real) -> _Point:
    """Minimise `sum pi_q g_q^H C^-1 g_q`: `c_i = max(kappa sqrt(m_i), sigma_0^2)` in the eigenbasis of M(pi)."""
    # singular values of G diag(pi)^(1/2), the roots of M's eigenvalues: small ones are not lost to squaring
    basis, root, _ = np.linalg.svd(columns * np.sqrt(weights)[:, None, :], full_matrices=False)
    total = np.cumsum(root, axis=-1)
    count = np.arange(1, root.shape[-1] + 1)
    # numerators of `kappa a_i - floor` if the i largest are filled; no cancellation under a high floor
    filled = root + floor[:, None] * (count * root - total) > 0
    number = np.maximum(filled.sum(axis=-1), 1)
    total = np.take_along_axis(total, number[:, None] - 1, axis=-1)[:, 0]
    active = count <= number[:, None]
    excess = root + floor[:, None] * (number[:, None] * root - total[:, None])
    extra = np.where(active, np.maximum(excess, 0), 0) / total[:, None]
    extra /= extra.sum(axis=-1, keepdims=True)
    level = floor[:, None] + extra
    seen = adjoint(basis) @ columns
    power = np.square(seen.real) + np.square(seen.imag)
    inverse = np.divide(1, level, out=np.zeros_like(level), where=level > 0)
    sinr = (inverse[:, None, :] @ power)[:, 0]
    kappa = (1 + number * floor) / total
    return _Point(basis, root, active, kappa, extra, level, seen, sinr)


def _curvature(point: _Point) -> Real:
    """Derivatives of the SINRs with respect to the weights, (batch, user, user), symmetric negative semidefinite."""
    root, level, active, kappa = point.root, point.level, point.active, point.kappa[:, None]
    inverse = np.divide(1, root, out=np.zeros_like(root), where=active & (root > 0))
    # divided differences of m -> 1/c(m) at fixed kappa, in closed form where both directions are filled
    both = inverse[:, :, None] * inverse[:, None, :]
    spread = root[:, :, None] + root[:, None, :]
    filled = np.divide(both, kappa[:, None] * spread, out=np.zeros_like(both), where=spread > 0)
    steps = root[:, :, None] ** 2 - root[:, None, :] ** 2
    steps *= level[:, :, None] * level[:, None, :]
    mixed = (active[:, :, None] != active[:, None, :]) & (steps != 0)  # a level of 0 is beyond the rank
    gaps = level[:, :, None] - level[:, None, :]
    differences = filled + np.divide(gaps, steps, out=np.zeros_like(gaps), where=mixed)
    pairs = point.seen.conj()[:, :, :, None] * point.seen[:, :, None, :]
    flat = pairs.reshape(*pairs.shape[:2], -1)
    bend = ((differences @ flat) * flat.conj()).real.sum(axis=1).reshape(len(root), *pairs.shape[2:])
    # kappa falls as the weights grow
    pull = (inverse[:, None, :] @ (np.square(point.seen.real) + np.square(point.seen.imag)))[:, 0]
    give = 2 * kappa * (root * active).sum(axis=-1, keepdims=True)
    return np.asarray(-bend + pull[:, :, None] * pull[:, None, :] / give[:, None])


def minimax(columns: Complex, floor: Real, gap: float, limit: int) -> Bracket:
    """Reading (i): `min_C max_q g_q^H C^-1 g_q`, `C = floor I + C_j`, `tr C_j <= 1`, batched.

    The dual `max_pi min_C sum_q pi_q g_q^H C^-1 g_q` over the simplex is solved: a few multiplicative updates
    `pi_q <- pi_q f_q / sum pi f` [1]_, then a primal-dual interior-point method, which stays fast where the update is
    slow (users whose weight vanishes). Every iterate brackets the optimum: `sum pi_q f_q <= v* <= max_q f_q`.

    Parameters
    ----------
    columns : (batch, r, user) complex
        G in coordinates of its range; no drop may be zero.
    floor : (batch,) float
    gap : float
        Relative gap of the bounds at which a drop is done.
    limit : int
        Limit of Newton steps.
    """
    batch, size, users = columns.shape
    weights = np.square(np.abs(columns)).sum(axis=1)
    weights /= weights.sum(axis=-1, keepdims=True)
    point = _best_response(columns, floor, weights)
    for _ in range(_MULTIPLICATIVE):
        weights = weights * point.sinr
        weights /= weights.sum(axis=-1, keepdims=True)
        point = _best_response(columns, floor, weights)
    upper, lower = np.full(batch, np.inf), np.zeros(batch)
    cov = np.zeros((batch, size, size), dtype=np.complex128)
    weights = np.maximum(weights, 1e-6 / users)
    weights /= weights.sum(axis=-1, keepdims=True)
    slack = np.zeros_like(weights)
    todo = np.arange(batch)
    iterations = 0
    while True:
        point = _best_response(columns[todo], floor[todo], weights)
        largest, average = point.sinr.max(axis=-1), (weights * point.sinr).sum(axis=-1)
        better = largest < upper[todo]
        where = todo[better]
        upper[where] = largest[better]
        cov[where] = (point.basis[better] * point.extra[better, None, :]) @ adjoint(point.basis[better])
        lower[todo] = np.maximum(lower[todo], np.minimum(average, upper[todo]))
        if not iterations:
            slack = np.maximum(1.01 * largest[:, None] - point.sinr, 1e-3 * largest[:, None])
        open_ = upper[todo] - lower[todo] > gap * upper[todo]
        if not open_.any() or iterations == limit:
            break
        todo, weights, slack = todo[open_], weights[open_], slack[open_]
        point = _Point(**{name: value[open_] for name, value in vars(point).items()})
        weights, slack = _newton_step(point, weights, slack)
        iterations += 1
    return Bracket(cov, upper, lower, iterations)


def _newton_step(point: _Point, weights: Real, slack: Real) -> tuple[Real, Real]:
    """One primal-dual step towards `f + z = v`, `pi z = mu`, `sum pi = 1`, kept inside `pi > 0`, `z > 0`."""
    users = weights.shape[-1]
    centre = 0.1 * (weights * slack).mean(axis=-1, keepdims=True)
    root = np.sqrt(weights)
    system = np.zeros((len(weights), users + 1, users + 1))
    system[:, :users, :users] = -root[:, :, None] * _curvature(point) * root[:, None, :]
    system[:, range(users), range(users)] += slack
    system[:, :users, users] = system[:, users, :users] = root
    right = np.zeros((len(weights), users + 1))
    right[:, :users] = root * point.sinr + centre / root
    move = np.linalg.solve(system, right[..., None])[..., :users, 0] * root
    change = (centre - weights * slack - slack * move) / weights

    def longest(values: Real, steps: Real) -> Real:
        falling = np.max(-steps / values, axis=-1, keepdims=True)
        return np.minimum(1, _SHORT / np.maximum(falling, 1e-300))

    weights = weights + longest(weights, move) * move
    return weights / weights.sum(axis=-1, keepdims=True), slack + longest(slack, change) * change


@dataclass(frozen=True, eq=False)
class _Scaled:
    """The SIC problem in Nesterov-Todd coordinates, where the jammer and its dual are the same diagonal matrix."""

    scaling: Complex  # R, with C_j = R diag(values) R^H and Z = R^-H diag(values) R^-1
    values: Real  # (r,)
    filters: Complex  # (user, r) w_q = X_q^-1 g_q
    inverses: Complex  # (user, r, r) X_q^-1
    sinr: Real  # (user,)


def _scale(columns: Complex, floor: float, cov: Complex, dual: Complex) -> _Scaled:
    lower, other = np.linalg.cholesky(cov), np.linalg.cholesky(dual)
    left, values, right = np.linalg.svd(other.conj().T @ lower)
    scaling = lower @ (right.conj().T / np.sqrt(values))
    back = (left / np.sqrt(values)).conj().T @ other.conj().T  # R^-1
    seen = (back @ columns).T
    outer = seen[:, :, None] * seen[:, None, :].conj()
    later = np.cumsum(outer[::-1], axis=0)[::-1] - outer  # users still to be decoded
    later[-1] = 0
    later += np.diag(values) + floor * (back @ back.conj().T)
    inverses = np.linalg.inv(later)
    filters = (inverses @ seen[:, :, None])[..., 0]
    return _Scaled(scaling, values, filters, inverses, (seen.conj() * filters).sum(axis=1).real)


def _sic_bound(scaled: _Scaled, weights: Real) -> float:
    """Lower bound of the optimum from the dual semidefinite program, at `Y_q = pi_q w_q w_q^H`."""
    turned = np.linalg.solve(scaled.scaling.conj().T, (scaled.filters * np.sqrt(weights)[:, None]).T)
    jammed = float(np.linalg.norm(turned, 2)) ** 2  # largest eigenvalue of sum Y_q, the most that a unit budget reaches
    rest = float(weights @ (scaled.sinr - np.square(np.abs(scaled.filters)) @ scaled.values))
    return float(weights @ scaled.sinr**2) / (max(rest, 0.0) + jammed)


def _real_hessian(form: Complex, size: int) -> Real:
    """Quadratic form of vec(D), `form[(j, i), (k, l)]`, in real coordinates of Hermitian D: diagonal, then pairs."""
    i, j = np.triu_indices(size, 1)
    diagonal, above, below = np.arange(size) * (size + 1), i * size + j, j * size + i
    half = np.sqrt(0.5)
    right = np.concatenate(
        [form[:, diagonal], half * (form[:, above] + form[:, below]), 1j * half * (form[:, above] - form[:, below])], 1
    )
    rows = [right[diagonal], half * (right[above] + right[below]), -1j * half * (right[above] - right[below])]
    return np.concatenate(rows, 0).real


def _coordinates(matrices: Complex) -> Real:
    """Hermitian matrices (..., r, r) in the orthonormal real coordinates of `_real_hessian`: (..., r^2)."""
    i, j = np.triu_indices(matrices.shape[-1], 1)
    upper = np.sqrt(2) * matrices[..., i, j]
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1).real
    return np.concatenate([diagonal, upper.real, upper.imag], axis=-1)


def _matrix(coordinates: Real, size: int) -> Complex:
    i, j = np.triu_indices(size, 1)
    pairs = len(i)
    matrix = np.zeros((size, size), dtype=np.complex128)
    matrix[i, j] = (coordinates[size : size + pairs] + 1j * coordinates[size + pairs :]) * np.sqrt(0.5)
    matrix += matrix.conj().T
    matrix[range(size), range(size)] = coordinates[:size]
    return matrix


def minimax_sic(columns: Complex, floor: float, gap: float, limit: int) -> Bracket:
    """Reading (ii): the largest SINR of SIC at full power, `min max_q g_q^H X_q^-1 g_q`, of one drop.

    It is a linear semidefinite program, `max s` subject to `C_j + floor I + sum_(later) g g^H >= s g_q g_q^H` for every
    user, solved here as `min t`, `f_q(C_j) <= t = 1/s`: r^2 real unknowns and one scalar inequality per user.
    Primal-dual interior-point steps with Nesterov-Todd scaling [3]_ keep the linear systems well conditioned when the
    users' powers are far apart. The users' multipliers give a dual point, and with it the lower bound.

    Parameters
    ----------
    columns : (r, user) complex
        G in coordinates of its range (of full row rank), in the order of decoding, without silent users.
    floor : float
    gap : float
        Relative gap of the bounds at which the solver stops.
    limit : int
        Limit of Newton steps.
    """
    size, users = columns.shape
    spread = np.sqrt(np.square(np.abs(columns)).sum(axis=1))
    cov = np.diag(spread / spread.sum()).astype(np.complex128)
    scaled = _scale(columns, floor, cov, np.eye(size, dtype=np.complex128))
    weights = np.full(users, 1 / users)
    slack = 1.2 * scaled.sinr.max() - scaled.sinr
    dual = np.linalg.inv(cov) * (weights @ slack / users)
    upper, lower, best = scaled.sinr.max(), 0.0, cov
    iterations = 0
    while True:
        try:
            scaled = _scale(columns, floor, cov, dual)
        except np.linalg.LinAlgError:
            break  # lost positive definiteness to rounding; the bounds so far hold
        if scaled.sinr.max() < upper:
            upper, best = scaled.sinr.max(), cov
        lower = max(lower, min(_sic_bound(scaled, weights), upper))
        if upper - lower <= gap * upper or iterations == limit:
            break
        try:
            cov, dual, weights, slack = _sic_step(scaled, weights, slack)
        except np.linalg.LinAlgError:
            break
        iterations += 1
    return Bracket(best, np.asarray(upper), np.asarray(lower), iterations)


def _sic_step(scaled: _Scaled, weights: Real, slack: Real) -> tuple[Complex, Complex, Real, Real]:
    """One primal-dual step towards `y s = mu`, `C_j Z = mu I`, `sum y = 1`, `f + s = t`, `tr C_j = 1`."""
    values, size, users = scaled.values, len(scaled.values), len(weights)
    outer = scaled.filters[:, :, None] * scaled.filters[:, None, :].conj()
    # w^H D X^-1 D w = sum conj(D_ji) [conj(w_i) X^-1_jk w_l] D_kl
    form = (scaled.inverses.reshape(users, -1) * (2 * weights)[:, None]).T @ outer.conj().reshape(users, -1)
    form = form.reshape(size, size, size, size).transpose(0, 2, 1, 3).reshape(size**2, size**2)
    hessian = _real_hessian(form, size)
    hessian[range(size**2), range(size**2)] += 1
    unit = _coordinates(np.diag(1 / values).astype(np.complex128))
    traced = -_coordinates(scaled.scaling.conj().T @ scaled.scaling)
    rows = np.concatenate([_coordinates(outer), traced[None], unit[None]])
    factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
    solved = cho_solve(factor, rows.T, check_finite=False)
    product = rows @ solved
    system = np.zeros((users + 2, users + 2))
    system[:-1, :-1] = product[:-1, :-1]
    system[range(users), range(users)] += slack / weights
    system[:users, -1] = system[-1, :users] = 1
    trace = np.square(np.abs(scaled.scaling)).sum(axis=0) @ values

    def step(centre: float) -> tuple[Complex, Complex, Real, Real, float, float]:
        right = np.concatenate([scaled.sinr + slack + centre / weights, [trace - 1, 1]])
        right[:-1] -= centre * product[:-1, -1]
        multipliers = np.linalg.solve(system, right)
        move = _matrix(solved[:, :-1] @ multipliers[:-1] + centre * solved[:, -1], size)
        turn = np.diag(centre / values - values) - move
        change, give = multipliers[:users] - weights, (centre - slack * multipliers[:users]) / weights
        root = np.sqrt(values)

        def longest(matrix: Complex, scalars: Real) -> float:
            falling = max(-np.linalg.eigvalsh(matrix / (root[:, None] * root))[0], (-scalars).max(), 1e-300)
            return min(1.0, _SHORT / falling)

        return move, turn, change, give, longest(move, give / slack), longest(turn, change / weights)

    mean = float(weights @ slack + values @ values) / (users + size)
    *_, primal, reverse = step(0.0)
    move, turn, change, give, primal, reverse = step(mean * max((1 - min(primal, reverse)) ** 3, 1e-4))
    cov: Complex = scaled.scaling @ (np.diag(values) + primal * move) @ scaled.scaling.conj().T
    back = np.linalg.inv(scaled.scaling)
    dual: Complex = back.conj().T @ (np.diag(values) + reverse * turn) @ back
    cov = (cov + cov.conj().T) / (2 * np.trace(cov).real)
    weights = weights + reverse * change
    return cov, (dual + dual.conj().T) / 2, weights / weights.sum(), slack + primal * give
