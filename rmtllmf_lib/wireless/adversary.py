"""Worst-case noise, section II-C: covariances that an adversary with a power budget adds to the thermal noise.

Every attack is `C = sigma_0^2 I + C_j` with `tr C_j <= P_J`; a noise floor of zero gives the set of the paper,
`tr C <= P_N`. Rates are in nats. Full transmit power is the users' best answer in (P1) and in reading (i) of (P2).

References
----------
.. [1] S. N. Diggavi, T. M. Cover, "The worst additive noise under a covariance constraint", IEEE Transactions on
   Information Theory 47 (2001) 3072-3081.
.. [2] M. Fiedler, "Bounds for the determinant of the sum of Hermitian matrices", Proceedings of the American
   Mathematical Society 30 (1971) 27-31 (why the eigenvectors of `H P H^H` are the worst in (P1)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.arrays import Complex, Real, fitted, real_array, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.allocation import allocate, counted_twice, in_units, published_covariance_eigenvalues
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.minimax import minimax, minimax_sic
from rmtllmf_lib.wireless.receiver import Order, require_noise_cov, require_order, sic_order, sic_rates, sum_rate
from rmtllmf_lib.wireless.square_root import adjoint, thin_svd

__all__ = ["KINDS", "Attack", "allocate", "attack", "interference_free_rates", "published_covariance_eigenvalues"]


_BLOCK = 256  # drops; the work on a block of 1 MiB stays in a core's own cache


@dataclass(frozen=True, eq=False)
class Attack:
    """What `attack` found.

    Attributes
    ----------
    noise_cov : (..., rx, rx) complex, W
        `sigma_0^2 I + C_j`, thermal noise included.
    objective : (...) float, nats
        The rate that this kind of attack holds down, under `noise_cov`; infinite where a user is free of noise.
    lower_bound : (...) float, nats
        No covariance of this budget brings the objective below it: certified, whatever the kind. The attack is optimal
        for its objective to within the distance of the two.
    iterations : int
        Steps of the slowest drop; 0 for a closed form without a root to find.
    """

    noise_cov: Complex
    objective: Real
    lower_bound: Real
    iterations: int


@dataclass(frozen=True, eq=False)
class _Design:
    """Jammers of a flat batch: `shape` (drop, rx, rx) of trace at most 1, rates and bounds in nats."""

    shape: Complex
    lower: Real
    iterations: int = 0
    rate: Real | None = None  # the objective, where it comes with the design


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

    @property
    def columns(self) -> Complex:
        """G in coordinates of its range, the rows beyond the rank zero."""
        product: Complex = self.root[..., None] * self.right
        return product

    def in_basis(self, eigenvalues: Real) -> Complex:
        product: Complex = (self.basis * eigenvalues[:, None, :]) @ adjoint(self.basis)
        return product


def _rate_of_levels(values: Real, level: Real) -> Real:
    """`sum log(1 + upsilon_i / c_i)` over the directions with signal; infinite where one is free of noise."""
    with np.errstate(divide="ignore"):
        ratio = np.divide(values, level, out=np.zeros_like(values), where=values > 0)
    total: Real = np.log1p(ratio).sum(axis=-1)
    return total


def _sum_rate_design(problem: _Problem) -> _Design:
    values, floor = problem.root**2, problem.uplink.noise_floor
    extra, _, steps = in_units(values, problem.power, floor)
    # R is convex in C: its tangent at this point, minimised over all jammers of this budget, is a lower bound
    scaled, level = values / problem.power[:, None], (floor / problem.power)[:, None] + extra
    inside = np.where(scaled > 0, level, 1)
    price = scaled / (inside * (inside + scaled))
    rate = _rate_of_levels(scaled, level)
    lower = rate + np.minimum((price * extra).sum(axis=-1) - price.max(axis=-1), 0)
    return _Design(problem.in_basis(extra), np.maximum(lower, 0), steps, rate)


def _published_design(problem: _Problem) -> _Design:
    values = counted_twice(problem.uplink, problem.root**2)
    extra, _, steps = in_units(values, problem.power, problem.uplink.noise_floor)
    return _Design(problem.in_basis(extra), _sum_rate_design(problem).lower, steps)


def _white_design(problem: _Problem) -> _Design:
    antennas = problem.uplink.num_rx_antennas
    shape = np.broadcast_to(np.eye(antennas) / antennas, (len(problem.power), antennas, antennas))
    return _Design(shape.astype(np.complex128), _sum_rate_design(problem).lower)


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
    columns, largest = _unit_columns(problem)
    found = minimax(columns, problem.uplink.noise_floor / problem.power, problem.gap, problem.limit)
    return _Design(_back(problem, found.cov), np.log1p(found.lower * largest / problem.power), found.iterations)


def _minimax_sic_design(problem: _Problem) -> _Design:
    # interference does not scale with the jammer: the budget alone is divided out
    columns = problem.columns / np.sqrt(problem.power)[:, None, None]
    orders = sic_order(problem.uplink, problem.order)
    floor = problem.uplink.noise_floor / problem.power
    inner = np.zeros((len(floor), columns.shape[1], columns.shape[1]), dtype=np.complex128)
    lower, iterations = np.zeros_like(floor), 0
    for drop, order in enumerate(orders):
        rank = np.count_nonzero(problem.root[drop])
        ordered = columns[drop, :rank, order].T  # (rank, user)
        heard = ordered[:, np.abs(ordered).max(axis=0) > 0]
        found = minimax_sic(heard, float(floor[drop]), problem.gap, problem.limit)
        inner[drop, :rank, :rank], lower[drop] = found.cov, found.lower
        iterations = max(iterations, found.iterations)
    return _Design(_back(problem, inner), np.log1p(lower), iterations)


def _unit_columns(problem: _Problem) -> tuple[Complex, Real]:
    """G in its range with the strongest column of norm one, and the received power that was divided out."""
    # exponents first: squares of very small amplitudes must not vanish
    columns = problem.columns / problem.root[:, :1, None]
    largest = np.square(np.abs(columns)).sum(axis=1).max(axis=-1)
    return columns / np.sqrt(largest)[:, None, None], largest * problem.root[:, 0] ** 2


def _back(problem: _Problem, inner: Complex) -> Complex:
    outer: Complex = problem.basis @ inner @ adjoint(problem.basis)
    return outer


def interference_free_rates(uplink: Uplink, noise_cov: ArrayLike) -> Real:
    """`log(1 + g_q^H C^-1 g_q)`: what each user gets when all others are silent or already cancelled.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    noise_cov : (..., rx, rx) complex, W

    Returns
    -------
    (..., user) float, nats
    """
    H = np.moveaxis(uplink.H, -1, -2)[..., None]
    alone = Uplink(H, uplink.power[..., None], np.broadcast_to(uplink.noise_floor[..., None], H.shape[:-2]))
    cov = require_noise_cov(np.ascontiguousarray(noise_cov), uplink)
    return sum_rate(alone, cov[..., None, :, :])


def _strongest_rate(uplink: Uplink, noise_cov: Complex, _: Order) -> Real:
    rates = interference_free_rates(uplink, noise_cov)
    return np.take_along_axis(rates, _strongest(uplink), axis=-1)[..., 0]


def _total(uplink: Uplink, noise_cov: Complex, _: Order) -> Real:
    return sum_rate(uplink, noise_cov)


_KINDS: dict[str, tuple[Callable[[_Problem], _Design], Callable[[Uplink, Complex, Order], Real]]] = {
    "sum-rate": (_sum_rate_design, _total),
    "white": (_white_design, _total),
    "strongest-user": (_strongest_user_design, _strongest_rate),
    "minimax": (_minimax_design, lambda uplink, cov, _: interference_free_rates(uplink, cov).max(axis=-1)),
    "minimax-sic": (_minimax_sic_design, lambda uplink, cov, order: sic_rates(uplink, cov, order).max(axis=-1)),
    "rank-one": (_rank_one_design, _total),
    "sum-aligned": (_sum_aligned_design, _total),
    "sum-rate-published": (_published_design, _total),
}

KINDS = tuple(_KINDS)


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

    Each kind is named with its jammer C_j and its objective, a rate in nats that the adversary wants small:

    - "sum-rate": (P1), the minimum of the sum rate `log det(I + G^H C^-1 G)`, Eq. (13); Eq. (14) with the power counted
      once, see `allocate`.
    - "white": `C_j = (P_J / N_R) I`; the sum rate.
    - "strongest-user": Eq. (15), `P_J h_Q h_Q^H / ||h_Q||^2` along the strongest user Q (of equals, the one with the
      higher index); that user's rate free of interference, for which it is optimal. It does not solve (P2).
    - "minimax": (P2) where the users also choose their powers; the largest `log(1 + P_q h_q^H C^-1 h_q)`.
    - "minimax-sic": (P2) at full power; the largest rate of successive interference cancellation, Eq. (3), in `order`.
    - "rank-one": all power along the dominant eigenvector of `G G^H`; the sum rate. No rank-one jammer is worse for it
      above a noise floor.
    - "sum-aligned": all power along `g_1 + ... + g_Q`, as if every user's symbol had the same error: the jammer whose
      effect does not average out when the users' task vectors are added. The sum rate.
    - "sum-rate-published": Eq. (14) as printed, see `published_covariance_eigenvalues`; the sum rate.

    Without a noise floor a jammer that leaves out a direction of the signals leaves it free of noise: objectives are
    then infinite, and bounds are not. Signals weaker than rounding (singular values of G below
    `max(rx, user)` float64 epsilons of the largest) count as absent. A drop without any signal gets the white jammer.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    power : (...) float, W
        Budget P_J >= 0; one number, or one for each drop. With 0, the covariance is that of the thermal noise.
    kind : str
        One of `KINDS`.
    csi : Uplink, optional
        What the adversary believes, see `csi.imperfect_csi`: C_j is designed on it. It may have other users. The noise
        floor in `noise_cov`, the objective and the bound are those of `uplink`, so that `objective - lower_bound` shows
        what imperfect knowledge costs the adversary.
    order : {"weakest-first", "strongest-first"}
        Order of decoding, for "minimax-sic".
    gap : float
        Relative distance of objective and bound at which the two minimax kinds stop.
    max_iterations : int
        Their Newton steps at most; the bounds hold wherever they stop.

    Returns
    -------
    Attack
        "minimax-sic" goes drop by drop, everything else is batched.

    Raises
    ------
    InputError
        for an unknown kind, a negative budget, NaN, or shapes that do not fit.
    """
    if kind not in _KINDS:
        raise InputError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
    budget = fitted(real_array(power, "power", minimum=0), uplink.batch_shape, "power", "(...)").ravel()
    known = uplink if csi is None else csi
    if (known.batch_shape, known.num_rx_antennas) != (uplink.batch_shape, uplink.num_rx_antennas):
        raise InputError(f"csi has H of shape {known.H.shape}: expected (..., rx) as in the uplink's {uplink.H.shape}")
    options = (order, real_number(gap, "gap", positive=True), whole_number(max_iterations, "max_iterations"))
    require_order(order)
    flat, believed = _flat(uplink), None if csi is None else _flat(csi)
    antennas = np.arange(uplink.num_rx_antennas)
    cov = np.empty((len(budget), antennas.size, antennas.size), dtype=np.complex128)
    objective, lower, iterations = np.empty_like(budget), np.empty_like(budget), 0
    for start in range(0, len(budget), _BLOCK):
        part = slice(start, start + _BLOCK)
        drops = flat if len(budget) <= _BLOCK else flat[part]  # the whole holds its G already
        design = _designed(drops, budget[part], kind, *options)
        used = design if believed is None else _designed(believed[part], budget[part], kind, *options)
        np.add(used.shape, adjoint(used.shape), out=cov[part])  # Hermitian to the last bit
        cov[part] *= budget[part, None, None] / 2
        cov[part, antennas, antennas] += drops.noise_floor[:, None]
        rate = design.rate if believed is None else None
        objective[part] = _KINDS[kind][1](drops, cov[part], order) if rate is None else rate
        lower[part] = np.where(budget[part] > 0, np.minimum(design.lower, objective[part]), objective[part])
        iterations = max(iterations, used.iterations)
    batch = uplink.batch_shape
    return Attack(cov.reshape(*batch, *cov.shape[1:]), objective.reshape(batch), lower.reshape(batch), iterations)


def _flat(uplink: Uplink) -> Uplink:
    size = uplink.noise_floor.size
    if uplink.batch_shape == (size,):
        return uplink
    return Uplink(
        uplink.H.reshape(size, *uplink.H.shape[-2:]), uplink.power.reshape(size, -1), uplink.noise_floor.reshape(size)
    )


def _designed(uplink: Uplink, power: Real, kind: str, order: Order, gap: float, limit: int) -> _Design:
    """The jammers of all drops; those without signal or budget do not reach the solvers."""
    basis, root, right = thin_svd(uplink.G)
    some = (power > 0) & (root[:, 0] > 0)
    root = np.where(root > np.finfo(np.float64).eps * max(uplink.H.shape[-2:]) * root[:, :1], root, 0)
    if some.all():
        return _KINDS[kind][0](_Problem(uplink, power, order, gap, limit, basis, root, right))
    antennas = uplink.num_rx_antennas
    shape = np.broadcast_to(np.eye(antennas) / antennas, (len(power), antennas, antennas)).astype(np.complex128)
    lower, iterations = np.zeros(len(power)), 0
    if some.any():
        found = basis[some], root[some], right[some]
        design = _KINDS[kind][0](_Problem(uplink[some], power[some], order, gap, limit, *found))
        shape[some], lower[some], iterations = design.shape, design.lower, design.iterations
    return _Design(shape, lower, iterations)


def jammer_power(uplink: Uplink, jnr_db: float) -> Real:
    """Budget of a jammer whose power per antenna, spread evenly, is `jnr_db` above the noise floor.

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
    if not (uplink.noise_floor > 0).all():
        raise InputError("noise_floor is 0 in some drop: expected one above 0 W; without it give the power itself")
    return np.asarray(uplink.num_rx_antennas * ratio * uplink.noise_floor)


def attacked_cov(uplink: Uplink, power: ArrayLike, kind: str, order: Order = "weakest-first") -> Complex:
    """Noise covariance under an attack, or without one: (..., rx, rx) in W.

    Parameters
    ----------
    power : (...) float, W
        The jammer's; of no meaning for "none".
    kind : str
        As in `adversary.KINDS`; "none" is the thermal noise alone.
    order : {"weakest-first", "strongest-first"}
        See `adversary.attack`.
    """
    return uplink.thermal_cov if kind == "none" else attack(uplink, power, kind, order=order).noise_cov


def largest_rate(uplink: Uplink, noise_cov: ArrayLike, order: Order | None = None) -> Real:
    """The largest rate among the users, the objective of (P2), (...) in nats.

    Parameters
    ----------
    order : {"weakest-first", "strongest-first"}, optional
        Order of successive cancellation at full power, Eq. (3). None: the users choose their powers, and the best one
        has all the others fall silent.
    """
    rates = interference_free_rates(uplink, noise_cov) if order is None else sic_rates(uplink, noise_cov, order)
    return np.asarray(rates.max(axis=-1))
