"""The worst cases of section II-C as one hands them to a general convex solver: slow, and independent of the attacks.

Needs cvxpy, which comes with the test extra.

References
----------
.. [1] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge University Press, 2004, section A.5.5 (Schur
   complements, which turn both problems into semidefinite programs).
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np

from rmtllmf_lib.arrays import Complex, real_number
from rmtllmf_lib.channel import Uplink
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.receiver import Order, sic_order

KINDS = ("sum-rate", "minimax", "minimax-sic")

_SOLVER = {"solver": "CLARABEL", "tol_gap_abs": 1e-8, "tol_gap_rel": 1e-8, "tol_feas": 1e-8}


def available() -> bool:
    """Whether cvxpy is installed."""
    return find_spec("cvxpy") is not None


def convex_optimum(uplink: Uplink, power: float, kind: str, order: Order = "weakest-first") -> float:
    """The least value of an attack's objective, for one drop, in nats.

    Parameters
    ----------
    uplink : Uplink
        One drop. Time grows steeply: seconds at 16 antennas and 8 users.
    power : float, W
        The jammer's budget, above 0.
    kind : {"sum-rate", "minimax", "minimax-sic"}
        See `adversary.attack`.
    order : {"weakest-first", "strongest-first"}
        Of "minimax-sic".

    Returns
    -------
    float, nats
        The solver is asked for 1e-8, and says nothing where it stops a little short of that: trust five digits.

    Raises
    ------
    InputError
        for a batch of drops, another kind, or a budget of 0.
    ImportError
        without cvxpy.
    """
    if uplink.batch_shape:
        raise InputError(f"the uplink has batch shape {uplink.batch_shape}: expected one drop, such as uplink[0]")
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
    budget = real_number(power, "power", positive=True)
    G, floor = uplink.G / np.sqrt(budget), float(uplink.noise_floor) / budget
    if not available():
        raise ImportError("the convex solver is not installed: expected cvxpy; pip install 'rmtllmf[test]'")
    import cvxpy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        if kind == "sum-rate":
            return _sum_rate(cvxpy, G, floor)
        return _largest_rate(cvxpy, G[:, sic_order(uplink, order)], floor, interference=kind == "minimax-sic")


def _sum_rate(cp: Any, G: Complex, floor: float) -> float:
    """`min -log det E` subject to `[[I - E, G^H], [G, C + G G^H]] >= 0`: E is at most `(I + G^H C^-1 G)^-1` [1]_.

    In real numbers: every Hermitian matrix as a symmetric one of twice the size, which has each eigenvalue twice.
    """
    real = np.block([[G.real, -G.imag], [G.imag, G.real]])
    antennas, users = real.shape
    error, jammer = cp.Variable((users, users), symmetric=True), cp.Variable((antennas, antennas), PSD=True)
    received = jammer + floor * np.eye(antennas) + real @ real.T
    block = cp.bmat([[np.eye(users) - error, real.T], [real, received]])
    problem = cp.Problem(cp.Minimize(-cp.log_det(error)), [block >> 0, cp.trace(jammer) <= 2])
    return float(problem.solve(**_SOLVER)) / 2


def _largest_rate(cp: Any, G: Complex, floor: float, interference: bool) -> float:
    """`max s` subject to `X_q >= s g_q g_q^H` for every user, that is `g_q^H X_q^-1 g_q <= 1/s` [1]_."""
    antennas, users = G.shape
    jammer, scale = cp.Variable((antennas, antennas), hermitian=True), cp.Variable()
    limits = [jammer >> 0, cp.real(cp.trace(jammer)) <= 1]
    for user in range(users):
        g, later = G[:, user], G[:, user + 1 :] * interference
        seen = jammer + floor * np.eye(antennas) + later @ later.conj().T
        limits.append(seen - scale * np.outer(g, g.conj()) >> 0)
    cp.Problem(cp.Maximize(scale), limits).solve(**_SOLVER)
    return float(np.log1p(1 / scale.value))
