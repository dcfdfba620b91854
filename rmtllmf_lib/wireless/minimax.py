"""Solvers of the worst case (P2), `min_C max_q R_q`, in its two readings, with certified upper and lower bounds.

Both work in coordinates of range(G), with the jammer's budget scaled to one. This is without loss: jamming power
outside range(G) meets no signal, and compressing a covariance to range(G) raises no rate.

References
----------
.. [1] S. D. Silvey, D. M. Titterington, B. Torsney, "An algorithm for optimal designs on a finite design space",
   Communications in Statistics A 7 (1978) 1379-1389 (the multiplicative update).
.. [2] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge University Press, 2004, chapters 10 and 11.
.. [3] H. F. Walker, P. Ni, "Anderson acceleration for fixed-point iterations", SIAM Journal on Numerical Analysis 49
   (2011) 1715-1735.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from rmtllmf_lib.arrays import Complex, Real, complex_array, fitted, real_array, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.wireless.square_root import Whitened, adjoint, factors

_MULTIPLICATIVE = 4  # updates that bring the first point near the central path
_SHORT = 0.95  # share of the distance to the boundary that a step may take
_MEMORY = 8  # iterations that the acceleration combines
_TINY = 1e-300


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
        Of the slowest drop.
    """

    cov: Complex
    upper: Real
    lower: Real
    iterations: int

    __repr__ = short_repr


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

    __repr__ = short_repr


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
    rises = level[:, :, None] - level[:, None, :]
    differences = filled + np.divide(rises, steps, out=np.zeros_like(rises), where=mixed)
    pairs = point.seen.conj()[:, :, :, None] * point.seen[:, :, None, :]
    flat = pairs.reshape(*pairs.shape[:2], -1)
    bend = ((differences @ flat) * flat.conj()).real.sum(axis=1).reshape(len(root), *pairs.shape[2:])
    # kappa falls as the weights grow
    pull = (inverse[:, None, :] @ (np.square(point.seen.real) + np.square(point.seen.imag)))[:, 0]
    give = 2 * kappa * (root * active).sum(axis=-1, keepdims=True)
    return np.asarray(-bend + pull[:, :, None] * pull[:, None, :] / give[:, None])


def _require_problem(columns: Complex, floor: Real, gap: float, limit: int) -> None:
    """`InputError` unless these are arguments of a solver."""
    shape = complex_array(columns, "columns").shape
    if len(shape) != 3 or 0 in shape or not np.any(columns, axis=(1, 2)).all():
        raise InputError(f"columns has shape {shape}: expected (batch, r, user) with a signal in every drop")
    fitted(real_array(floor, "floor", minimum=0), shape[:1], "floor", "(batch,)")
    real_number(gap, "gap", positive=True)
    whole_number(limit, "limit", minimum=0)


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
        Noise floor over the jammer's budget, at least 0.
    gap : float
        Relative gap of the bounds, above 0, at which a drop is done.
    limit : int
        Limit of Newton steps, at least 0.

    Returns
    -------
    Bracket
        Its bounds hold even where the limit stops the iterations before the gap is reached.

    Raises
    ------
    InputError
        for a wrong shape, a drop without signal, NaN, or a number out of its range.
    """
    _require_problem(columns, floor, gap, limit)
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


def minimax_sic(columns: Complex, floor: Real, gap: float, limit: int) -> Bracket:
    """Reading (ii): `min_C max_q f_q`, `f_q = g_q^H X_q^-1 g_q`, the largest SINR of SIC at full power, batched.

    With w_q = X_q^-1 g_q and the interference K_q of the users still to be decoded, `X_q = C + K_q`, another C' has

        f_q(C') <= v_q^H C'^-1 v_q + w_q^H K_q w_q,  v_q = C w_q,

    since (a, A) -> a^H A^-1 a is convex; at C'= C the two are equal. So the best response of reading (i) to the columns
    v_q lowers `sum pi_q f_q`. An iteration is this response and the update `pi_q <- pi_q f_q^2 / sum pi f^2` [1]_, and
    the iterations are accelerated [3]_. The filters w_q give a point of the dual of the linear semidefinite program
    `max s` subject to `X_q >= s g_q g_q^H` for every user, and with it the lower bound.

    Parameters
    ----------
    columns : (batch, r, user) complex
        G in coordinates of its range, in the order of decoding; the columns of silent users are zero.
    floor : (batch,) float
        Noise floor over the jammer's budget, at least 0.
    gap : float
        Relative gap of the bounds, above 0, at which a drop is done.
    limit : int
        Limit of iterations, at least 0.

    Returns, errors: as `minimax`.
    """
    _require_problem(columns, floor, gap, limit)
    batch, size, users = columns.shape
    upper, lower = np.full(batch, np.inf), np.zeros(batch)
    cov = np.zeros((batch, size, size), dtype=np.complex128)
    norms = np.linalg.norm(columns, axis=1, keepdims=True)
    heard = norms > 0
    norms = np.where(heard, norms, 1)
    state = _packed(_normalised(np.where(heard[:, 0], 0, -np.inf)), columns / norms)
    history = _History(batch, state[0].size)
    todo = np.arange(batch)
    iterations = 0
    while True:
        weights = np.exp(state[:, 0])
        parts = (state[:, 1 : size + 1] + 1j * state[:, size + 1 :]) * norms[todo]
        point = _best_response(parts, floor[todo], weights)
        sinr, parts, bound = _decoded(columns[todo], point, weights)
        largest = sinr.max(axis=-1)
        better = largest < upper[todo]
        where = todo[better]
        upper[where] = largest[better]
        cov[where] = (point.basis[better] * point.extra[better, None, :]) @ adjoint(point.basis[better])
        lower[todo] = np.maximum(lower[todo], np.minimum(bound, upper[todo]))
        open_ = upper[todo] - lower[todo] > gap * upper[todo]
        if not open_.any() or iterations == limit:
            return Bracket(cov, upper, lower, iterations)
        logs = _normalised(state[:, 0] + 2 * np.log(np.maximum(sinr, _TINY)))
        image = _packed(logs, parts / norms[todo])
        state = history.next(state, image, np.sqrt(weights))  # a user without weight does not matter
        state[:, 0] = _normalised(state[:, 0].clip(logs - 3, logs + 3))
        state, todo = state[open_], todo[open_]
        history.keep(open_)
        iterations += 1


def _normalised(logs: Real) -> Real:
    """Logarithms (..., user) of weights with the sum 1, none of which vanishes."""
    return np.maximum(log_softmax(logs, axis=-1), np.log(_TINY))


def _packed(logs: Real, parts: Complex) -> Real:
    """Logarithms of weights (batch, user) and complex columns (batch, r, user) as one array (batch, 2 r + 1, user)."""
    return np.concatenate([logs[:, None, :], parts.real, parts.imag], axis=1)


def _decoded(columns: Complex, point: _Point, weights: Real) -> tuple[Real, Complex, Real]:
    """SINRs f_q under the jammer of `point`, the parts v_q of the columns, and the lower bound of the optimum.

    With Y_q = pi_q w_q w_q^H the bound is `sum g_q^H Y_q g_q` over `sum tr Y_q (K_q + floor I)` plus the largest
    eigenvalue of `sum Y_q`, the most that a budget of one adds.
    """
    root = np.sqrt(point.level)[..., None]
    seen = adjoint(point.basis) @ columns
    white = np.divide(seen, root, out=np.zeros_like(seen), where=root > 0)
    _, directions, pivots = factors(Whitened(white[..., ::-1], None))  # the last user to be decoded comes first
    noise = (directions * pivots[:, None, :])[..., ::-1]  # C^(1/2) w_q
    sinr = (white.conj() * noise).sum(axis=1).real
    filters = np.divide(noise, root, out=np.zeros_like(noise), where=root > 0)
    jammed = np.linalg.norm(filters * np.sqrt(weights)[:, None, :], 2, axis=(-2, -1)) ** 2
    spent = (point.extra[:, None, :] @ np.square(np.abs(filters)))[:, 0]  # w_q^H C_j w_q
    rest = np.maximum((weights * (sinr - spent)).sum(axis=-1), 0)
    bound = (weights * sinr * (sinr / (rest + jammed)[:, None])).sum(axis=-1)
    return sinr, point.basis @ (root * noise), bound


class _History:
    """Anderson acceleration [3]_ of fixed-point iterations `x <- F(x)`, for a batch of them.

    The next x is that combination of the last images F(x) for which the residuals F(x) - x, combined alike, are least.
    A residual that has grown to twice the least so far clears the history, which makes the next step a plain one.
    """

    def __init__(self, batch: int, size: int) -> None:
        self._images, self._residuals = np.zeros((2, batch, size, _MEMORY))  # differences of successive ones
        self._last: tuple[Real, Real] | None = None
        self._least = np.full(batch, np.inf)
        self._slot = 0

    def next(self, x: Real, image: Real, weights: Real) -> Real:
        """The next x, of the shape (batch, row, column) of `x` and `image`, for weights (batch, column)."""
        flat = image.reshape(len(x), -1)
        residual = ((image - x) * weights[:, None, :]).reshape(len(x), -1)
        if self._last is not None:
            self._images[..., self._slot] = flat - self._last[0]
            self._residuals[..., self._slot] = residual - self._last[1]
            self._slot = (self._slot + 1) % _MEMORY
        self._last = flat, residual
        length = np.linalg.norm(residual, axis=-1)
        worse = length > 2 * self._least
        self._images[worse], self._residuals[worse] = 0, 0
        self._least = np.where(worse, length, np.minimum(length, self._least))
        transposed = self._residuals.swapaxes(-1, -2)
        normal = transposed @ self._residuals
        normal[:, range(_MEMORY), range(_MEMORY)] += 1e-10 * np.trace(normal, axis1=-2, axis2=-1)[:, None] + _TINY
        shares = np.linalg.solve(normal, transposed @ residual[..., None])
        return np.asarray(image - (self._images @ shares).reshape(image.shape))

    def keep(self, drops: NDArray[np.bool_]) -> None:
        """Forget all other drops."""
        assert self._last is not None
        self._images, self._residuals, self._least = self._images[drops], self._residuals[drops], self._least[drops]
        self._last = self._last[0][drops], self._last[1][drops]
