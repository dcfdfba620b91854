"""Worst-case noise, Section II-C: covariances that an adversary with a power budget adds to the thermal noise.

Every attack is `C = sigma_0^2 I + C_j` with `tr C_j <= P_J`; a noise floor of zero gives the set of the paper,
`tr C <= P_N`. Rates are in nats. The users' best response is full transmit power in (P1), and in (P2) if they may also
choose their powers.

References
----------
.. [1] S. N. Diggavi, T. M. Cover, "The worst additive noise under a covariance constraint", IEEE Transactions on
   Information Theory 47 (2001) 3072-3081.
.. [2] M. Fiedler, "Bounds for the determinant of the sum of Hermitian matrices", Proceedings of the American
   Mathematical Society 30 (1971) 27-31 (why the eigenvectors of `H P H^H` are the worst in (P1)).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.arrays import Complex, Real, fitted, one_of, real_array, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.wireless.allocation import allocate_unit_budget, counted_twice
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.minimax import minimax, minimax_sic
from rmtllmf_lib.wireless.receiver import (
    DROPS_AT_ONCE,
    Order,
    interference_free_rates,
    sic_order,
    sic_rates,
    sum_rate,
)
from rmtllmf_lib.wireless.square_root import SINGULAR, adjoint, thin_svd

NEGLIGIBLE = 1e-30  # a budget relative to the noise floor which adds nothing to it in double precision
_LEAST = 1e-140  # smallest budget relative to the received power, so that no square overflows


@dataclass(frozen=True, eq=False)
class Attack:
    """Result of `attack`.

    Attributes
    ----------
    noise_cov : (..., rx, rx) complex, W
        `sigma_0^2 I + C_j`, thermal noise included.
    objective : (...) float, nats
        The rate by which this kind of attack is scored, under `noise_cov`; infinite where a user is free of noise.
    lower_bound : (...) float, nats
        Certified lower bound of the objective over all covariances of this budget, for every kind; the attack is
        optimal for its objective to within the difference.
    iterations : int
        Iterations of the slowest drop; 0 for a closed form without a root to find.
    """

    noise_cov: Complex
    objective: Real
    lower_bound: Real
    iterations: int

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class _Design:
    """Jammers of a flat batch: `shape` (drop, rx, rx) of trace at most 1, rates and bounds in nats."""

    shape: Complex
    lower: Real
    iterations: int = 0
    rate: Real | None = None  # of the optimal kinds: the objective, which rounding of `noise_cov` does not affect

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class _Problem:
    """A flat batch of drops with the singular value decomposition of G = `basis diag(root) right`."""

    uplink: Uplink
    power: Real  # (drop,) W, positive
    order: Order
    gap: float
    limit: int
    basis: Complex  # (drop, rx, r), r = min(rx, user)
    root: Real  # (drop, r), falling; 0 beyond the rank
    right: Complex  # (drop, r, user)

    __repr__ = short_repr

    @property
    def columns(self) -> Complex:
        """G in coordinates of its range, the rows beyond the rank zero."""
        return np.asarray(self.root[..., None] * self.right)

    def in_basis(self, eigenvalues: Real) -> Complex:
        """The matrix (drop, rx, rx) with these eigenvalues (drop, r) along the basis."""
        return (self.basis * eigenvalues[:, None, :]) @ adjoint(self.basis)

    def from_range(self, inner: Complex) -> Complex:
        """A matrix (drop, r, r) in coordinates of range(G), in those of the antennas."""
        return self.basis @ inner @ adjoint(self.basis)


def _rate_of_levels(values: Real, level: Real) -> Real:
    """`sum log(1 + upsilon_i / c_i)` over the directions with signal; infinite where one is free of noise."""
    with np.errstate(divide="ignore"):
        ratio = np.divide(values, level, out=np.zeros_like(values), where=values > 0)
    return np.asarray(np.log1p(ratio).sum(axis=-1))


def _sum_rate_design(problem: _Problem) -> _Design:
    values, floor = problem.root**2, problem.uplink.noise_floor
    extra, _, steps = allocate_unit_budget(values, problem.power, floor)
    # R is convex in C: its tangent at this point, minimised over all jammers of this budget, is a lower bound
    scaled, level = values / problem.power[:, None], (floor / problem.power)[:, None] + extra
    inside = np.where(scaled > 0, level, 1)
    price = scaled / (inside * (inside + scaled))
    rate = _rate_of_levels(scaled, level)
    lower = rate + np.minimum((price * extra).sum(axis=-1) - price.max(axis=-1), 0)
    return _Design(problem.in_basis(extra), np.maximum(lower, 0), steps, rate)


def _published_design(problem: _Problem) -> _Design:
    values = counted_twice(problem.uplink, problem.root**2)
    extra, _, steps = allocate_unit_budget(values, problem.power, problem.uplink.noise_floor)
    return _Design(problem.in_basis(extra), _sum_rate_design(problem).lower, steps)


def _white(drops: int, antennas: int) -> Complex:
    return np.broadcast_to(np.eye(antennas) / antennas, (drops, antennas, antennas)).astype(np.complex128)


def _white_design(problem: _Problem) -> _Design:
    shape = _white(len(problem.power), problem.uplink.num_rx_antennas)
    return _Design(shape, _sum_rate_design(problem).lower)


def _along(vectors: Complex) -> Complex:
    """Projector on each vector (drop, rx); zero for a zero vector."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    unit = vectors / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(unit, axis=-1, keepdims=True)
    unit = unit / np.where(length > 0, length, 1)
    return unit[:, :, None] * unit[:, None, :].conj()


def _rank_one_design(problem: _Problem) -> _Design:
    return _Design(_along(problem.basis[:, :, 0]), _sum_rate_design(problem).lower)


def _sum_aligned_design(problem: _Problem) -> _Design:
    return _Design(_along(problem.uplink.G.sum(axis=-1)), _sum_rate_design(problem).lower)


def _strongest(uplink: Uplink) -> NDArray[np.intp]:
    """Index of the strongest user, (..., 1): the last to be decoded, so the higher index of equal ones."""
    return sic_order(uplink)[..., -1:]


def _strongest_user_design(problem: _Problem) -> _Design:
    uplink = problem.uplink
    user = _strongest(uplink)
    vectors = np.take_along_axis(uplink.H, user[:, None, :], axis=-1)[..., 0]
    received = np.take_along_axis(uplink.received_power, user, axis=-1)[..., 0]
    # the largest eigenvalue of a noise covariance is at most sigma_0^2 + P_J
    return _Design(_along(vectors), np.log1p(received / (uplink.noise_floor + problem.power)))


def _minimax_design(problem: _Problem) -> _Design:
    # the strongest column gets norm one; the largest singular value goes first, so that no square underflows
    columns = problem.columns / problem.root[:, :1, None]
    largest = np.square(np.abs(columns)).sum(axis=1).max(axis=-1)
    columns /= np.sqrt(largest)[:, None, None]
    found = minimax(columns, problem.uplink.noise_floor / problem.power, problem.gap, problem.limit)
    largest = largest * problem.root[:, 0] ** 2
    lower, rate = (np.log1p(bound * largest / problem.power) for bound in (found.lower, found.upper))
    return _Design(problem.from_range(found.cov), lower, found.iterations, rate)


def _minimax_sic_design(problem: _Problem) -> _Design:
    # interference does not scale with the jammer: only the budget is divided out
    columns = problem.columns / np.sqrt(problem.power)[:, None, None]
    order = sic_order(problem.uplink, problem.order)
    ordered = np.take_along_axis(columns, order[:, None, :], axis=-1)
    found = minimax_sic(ordered, problem.uplink.noise_floor / problem.power, problem.gap, problem.limit)
    return _Design(problem.from_range(found.cov), np.log1p(found.lower), found.iterations, np.log1p(found.upper))


def largest_rate(uplink: Uplink, noise_cov: ArrayLike, order: Order | None = None) -> Real:
    """Largest rate among the users, the objective of (P2): (...) in nats.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    noise_cov : (..., rx, rx) complex, W
        Hermitian positive semidefinite; may be singular. Leading dimensions broadcast against the batch of drops.
    order : {"weakest-first", "strongest-first"}, optional
        Order of successive cancellation at full power, Eq. (3). None: the users choose their powers, and the best case
        for one user is that all others are silent.

    Returns
    -------
    (...) float, nats
        Infinite where a user has signal energy in the null space of C.

    Raises
    ------
    InputError
        for a covariance that is invalid or does not fit the drops, or an unknown order.
    """
    rates = interference_free_rates(uplink, noise_cov) if order is None else sic_rates(uplink, noise_cov, order)
    return np.asarray(rates.max(axis=-1))


_DESIGNS: dict[str, Callable[[_Problem], _Design]] = {
    "sum-rate": _sum_rate_design,
    "white": _white_design,
    "strongest-user": _strongest_user_design,
    "minimax": _minimax_design,
    "minimax-sic": _minimax_sic_design,
    "rank-one": _rank_one_design,
    "sum-aligned": _sum_aligned_design,
    "sum-rate-published": _published_design,
}

KINDS = tuple(_DESIGNS)


def _objective(uplink: Uplink, cov: Complex, kind: str, order: Order, rate: Real | None) -> Real:
    """The rate (drop,) that this kind of attack minimises; `rate` is what the solver found, if it is optimal."""
    if rate is not None:
        measured = rate if kind == "sum-rate" else _objective(uplink, cov, kind, order, None)
        return np.where(np.isinf(measured), rate, measured)
    if kind == "strongest-user":
        return np.take_along_axis(interference_free_rates(uplink, cov), _strongest(uplink), axis=-1)[..., 0]
    if kind.startswith("minimax"):
        return largest_rate(uplink, cov, order if kind == "minimax-sic" else None)
    return sum_rate(uplink, cov)


def attack(
    uplink: Uplink,
    power: ArrayLike,
    kind: str = "sum-rate",
    *,
    csi: Uplink | None = None,
    order: Order = "weakest-first",
    gap: float = 1e-6,
    max_iterations: int = 200,
) -> Attack:
    """Noise covariance of an adversary with budget `power` on top of the thermal noise.

    Each kind has a jammer C_j and an objective, a rate in nats that the adversary minimises:

    - "sum-rate": (P1), the minimum of the sum rate `log det(I + G^H C^-1 G)`, Eq. (13); Eq. (14) with the power counted
      once, see `allocate`.
    - "white": `C_j = (P_J / N_R) I`; the sum rate.
    - "strongest-user": Eq. (15), `P_J h_Q h_Q^H / ||h_Q||^2` along the strongest user Q (of equals, the one with the
      higher index); that user's rate free of interference, for which it is optimal. It does not solve (P2).
    - "minimax": (P2) where the users also choose their powers; the largest `log(1 + P_q h_q^H C^-1 h_q)`.
    - "minimax-sic": (P2) at full power; the largest rate of successive interference cancellation, Eq. (3), in `order`.
    - "rank-one": all power along the dominant eigenvector of `G G^H`; the sum rate. Above a noise floor, no
      rank-one jammer lowers it further.
    - "sum-aligned": all power along `g_1 + ... + g_Q`, which gives every user's symbol the same error, so that errors
      do not average out when the users' task vectors are added; the sum rate.
    - "sum-rate-published": Eq. (14) as printed, see `published_covariance_eigenvalues`; the sum rate.

    Without a noise floor, a direction of the signals that the jammer does not cover is free of noise: objectives are
    then infinite, bounds are not. Signals below rounding (singular values of G below `max(rx, user)` float64 epsilons
    of the largest) count as absent. A drop without any signal gets the white jammer, and so does one whose budget is
    below 1e-30 of its noise floor.

    A covariance in double precision has a range: the receiver counts its eigenvalues below 1e-13 of the largest as
    zero. Where the optimum needs more (users' powers very far apart, or a floor far below the jammer), a warning says
    so; the objective of "sum-rate", "minimax" and "minimax-sic" and all bounds are right even then.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    power : (...) float, W
        Budget P_J >= 0, one number or one per drop; 0 gives the covariance of the thermal noise.
    kind : str
        One of `KINDS`.
    csi : Uplink, optional
        The adversary's channel knowledge, for which C_j is designed, see `csi.imperfect_csi`; it may have other users.
        The noise floor in `noise_cov`, the objective and the bound are those of `uplink`, so that
        `objective - lower_bound` is the cost of imperfect knowledge to the adversary.
    order : {"weakest-first", "strongest-first"}
        Decoding order, for "minimax-sic".
    gap : float
        Relative gap between objective and bound at which the two minimax kinds stop.
    max_iterations : int
        Limit of their iterations; the bounds hold wherever they stop.

    Returns
    -------
    Attack

    Raises
    ------
    InputError
        for an unknown kind, a negative budget or one below 1e-140 of the received power, NaN, or shapes that do not
        fit.
    """
    one_of(kind, KINDS, "kind")
    one_of(order, Order, "order")
    require_uplink(uplink)
    budget = fitted(real_array(power, "power", minimum=0), uplink.batch_shape, "power", "(...)").ravel()
    known = uplink if csi is None else require_uplink(csi, "csi")
    if (known.batch_shape, known.num_rx_antennas) != (uplink.batch_shape, uplink.num_rx_antennas):
        raise InputError(f"csi has H of shape {known.H.shape}: expected (..., rx) as in the uplink's {uplink.H.shape}")
    options = (order, real_number(gap, "gap", positive=True), whole_number(max_iterations, "max_iterations"))
    flat, flat_csi = _flat(uplink), None if csi is None else _flat(csi)
    antennas = np.arange(uplink.num_rx_antennas)
    cov = np.empty((len(budget), antennas.size, antennas.size), dtype=np.complex128)
    objective, lower, iterations = np.empty_like(budget), np.empty_like(budget), 0
    for start in range(0, len(budget), DROPS_AT_ONCE):
        part = slice(start, start + DROPS_AT_ONCE)
        drops = flat if len(budget) <= DROPS_AT_ONCE else flat[part]  # the whole batch has G cached
        design = _designed(drops, budget[part], kind, *options)
        used = design if flat_csi is None else _designed(flat_csi[part], budget[part], kind, *options)
        np.add(used.shape, adjoint(used.shape), out=cov[part])  # Hermitian to the last bit
        cov[part] *= budget[part, None, None] / 2
        cov[part, antennas, antennas] += drops.noise_floor[:, None]
        rate = design.rate if flat_csi is None else None
        objective[part] = _objective(drops, cov[part], kind, order, rate)
        _warn_of_lost_noise(drops, budget[part], cov[part], design if rate is not None else None)
        lower[part] = np.where(
            budget[part] > NEGLIGIBLE * drops.noise_floor, np.minimum(design.lower, objective[part]), objective[part]
        )
        iterations = max(iterations, used.iterations)
    batch = uplink.batch_shape
    return Attack(cov.reshape(*batch, *cov.shape[1:]), objective.reshape(batch), lower.reshape(batch), iterations)


def _warn_of_lost_noise(uplink: Uplink, power: Real, cov: Complex, optimal: _Design | None) -> None:
    """Warn where the receiver takes an eigenvalue of the covariance for zero that is not."""
    low = (power > 0) & (uplink.noise_floor <= SINGULAR * power)
    if not low.any():
        return
    values = np.linalg.eigvalsh(cov[low])
    lost = (values[:, 0] <= SINGULAR * values[:, -1]) & (uplink.noise_floor[low] > 0)
    if optimal is not None:
        covered = np.isinf(sum_rate(uplink[low], cov[low]))
        lost |= covered & (uplink.received_power[low] > 0).any(axis=-1)
    if lost.any():
        warnings.warn(
            f"noise_cov of {lost.sum()} drops has eigenvalues below {SINGULAR:g} of the largest, which the receiver "
            "counts as free of noise: their rates under it come out too high or infinite; expected a noise floor above "
            f"{SINGULAR:g} of the jammer's power, or users whose powers are less far apart",
            stacklevel=3,
        )


def _flat(uplink: Uplink) -> Uplink:
    size = uplink.noise_floor.size
    if uplink.batch_shape == (size,):
        return uplink
    return Uplink(
        uplink.H.reshape(size, *uplink.H.shape[-2:]), uplink.power.reshape(size, -1), uplink.noise_floor.reshape(size)
    )


def _designed(uplink: Uplink, power: Real, kind: str, order: Order, gap: float, limit: int) -> _Design:
    """The jammers of all drops; those without signal or budget are white and do not reach the solvers."""
    basis, root, right = thin_svd(uplink.G)
    some = (power > NEGLIGIBLE * uplink.noise_floor) & (root[:, 0] > 0)
    least = _LEAST * root[:, 0] ** 2
    if (low := some & (power < least)).any():
        raise InputError(f"power is {power[low][0]:g} W: expected 0, or at least {least[low][0]:g} W in this drop")
    root = np.where(root > np.finfo(np.float64).eps * max(uplink.H.shape[-2:]) * root[:, :1], root, 0)
    if some.all():
        return _DESIGNS[kind](_Problem(uplink, power, order, gap, limit, basis, root, right))
    shape, lower, iterations = _white(len(power), uplink.num_rx_antennas), np.zeros(len(power)), 0
    if some.any():
        found = basis[some], root[some], right[some]
        design = _DESIGNS[kind](_Problem(uplink[some], power[some], order, gap, limit, *found))
        shape[some], lower[some], iterations = design.shape, design.lower, design.iterations
    return _Design(shape, lower, iterations)


def jammer_power(uplink: Uplink, jnr_db: float) -> Real:
    """Budget of a jammer whose power per antenna, when spread evenly, is `jnr_db` above the noise floor.

    Returns
    -------
    (...) float, W
        `P_J = N_R sigma_0^2 10^(jnr_db / 10)`.

    Raises
    ------
    InputError
        if a drop has no noise floor, or the ratio is not a finite number.
    """
    ratio = 10 ** (real_number(jnr_db, "jnr_db") / 10)
    if not (require_uplink(uplink).noise_floor > 0).all():
        raise InputError("noise_floor is 0 in some drop: expected one above 0 W; without one, give the power itself")
    return np.asarray(uplink.num_rx_antennas * ratio * uplink.noise_floor)


def attacked_cov(uplink: Uplink, power: ArrayLike, kind: str, order: Order = "weakest-first") -> Complex:
    """Noise covariance under an attack, or without one: (..., rx, rx) in W.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    power : (...) float, W
        The jammer's budget P_J, one number or one per drop; ignored for "none".
    kind : str
        One of `KINDS`, or "none" for the thermal noise alone.
    order : {"weakest-first", "strongest-first"}
        Decoding order, for "minimax-sic"; ignored for "none".

    Raises
    ------
    InputError
        for an unknown kind, and as `attack` does.
    """
    one_of(kind, ("none", *KINDS), "kind")
    return require_uplink(uplink).thermal_cov if kind == "none" else attack(uplink, power, kind, order=order).noise_cov
