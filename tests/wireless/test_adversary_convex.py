"""The attacks against a general convex solver."""

import numpy as np
import pytest

from links import link
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import sic_order

cp = pytest.importorskip("cvxpy", reason="the reference is the test extra's convex solver")

# asked for more than it can always give; the comparison decides
pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")

PRECISE = {"solver": "CLARABEL", "tol_gap_abs": 1e-8, "tol_gap_rel": 1e-8, "tol_feas": 1e-8}
BUDGET = 1.5


def embedded(matrix: np.ndarray) -> np.ndarray:
    """The real matrix of the same map: twice every eigenvalue."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def sum_rate_reference(uplink: Uplink) -> float:
    """`min -log det E`; holds for singular covariances too."""
    G, floor = embedded(uplink.G), float(uplink.noise_floor)
    antennas, users = G.shape
    error, jammer = cp.Variable((users, users), symmetric=True), cp.Variable((antennas, antennas), PSD=True)
    noise = jammer + floor * np.eye(antennas)
    block = cp.bmat([[np.eye(users) - error, G.T], [G, noise + G @ G.T]])
    problem = cp.Problem(cp.Minimize(-cp.log_det(error)), [block >> 0, cp.trace(jammer) <= 2 * BUDGET])
    return float(problem.solve(**PRECISE)) / 2


def largest_rate_reference(uplink: Uplink, interference: bool) -> float:
    """`max s` with `C_j + sigma_0^2 I + sum_(later) g g^H >= s g_q g_q^H`."""
    G, floor = uplink.G[:, sic_order(uplink)], float(uplink.noise_floor)
    antennas, users = G.shape
    jammer, scale = cp.Variable((antennas, antennas), hermitian=True), cp.Variable()
    limits = [jammer >> 0, cp.real(cp.trace(jammer)) <= BUDGET]
    for user in range(users):
        g, later = G[:, user], G[:, user + 1 :] * interference
        left = jammer + floor * np.eye(antennas) + later @ later.conj().T - scale * np.outer(g, g.conj())
        limits.append(left >> 0)
    cp.Problem(cp.Maximize(scale), limits).solve(**PRECISE)
    return float(np.log1p(1 / scale.value))


@pytest.mark.parametrize("floor", [0.0, 0.2])
@pytest.mark.parametrize(("antennas", "users"), [(2, 2), (4, 2), (3, 5), (6, 4)])
def test_sum_rate(antennas: int, users: int, floor: float) -> None:
    uplink = link(antennas + users, antennas, users, floor, spread=1)
    found = attack(uplink, BUDGET)
    assert float(found.objective) == pytest.approx(sum_rate_reference(uplink), rel=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["minimax", "minimax-sic"])
@pytest.mark.parametrize(("antennas", "users"), [(2, 2), (4, 2), (3, 5), (5, 4)])
def test_largest_rate(kind: str, antennas: int, users: int, floor: float) -> None:
    uplink = link(antennas + 3 * users, antennas, users, floor, spread=1)
    found = attack(uplink, BUDGET, kind)
    reference = largest_rate_reference(uplink, interference=kind == "minimax-sic")
    assert float(found.objective) == pytest.approx(reference, rel=1e-5)
    assert float(found.lower_bound) <= reference * (1 + 1e-7)
