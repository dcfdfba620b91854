"""Isotropic merging and calibration against transcriptions of their papers with full SVDs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mergers import LAYOUT, vector, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.entries import arithmetic, average
from rmtllmf_lib.fusion.spectra import iso_c, iso_cts, svc
from rmtllmf_lib.fusion.tensors import nearest_orthonormal, singular_triplets, symmetric_power
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.task_vector import TaskVector

Array = NDArray[np.float64]
ATOL = 1e-5


def compare(found: TaskVector, taus: list[TaskVector], rule: Callable[[Array], Array]) -> None:
    """Matrices by the rule, given the users' (N, m, n), and the mean of everything else."""
    for name, tensor in found.state_dict().items():
        users = np.array([tau.state_dict()[name].double().numpy() for tau in taus])
        wanted = rule(users) if users.ndim == 3 else users.mean(0)
        np.testing.assert_allclose(tensor.numpy(), wanted, atol=ATOL, err_msg=name)


def orthogonal(M: Array) -> Array:
    P, _, Qt = np.linalg.svd(M, full_matrices=False)
    return P @ Qt


@pytest.mark.parametrize("count", [1, 2, 5])
def test_iso_c_flattens_the_spectrum_of_the_sum(count: int) -> None:
    def rule(users: Array) -> Array:
        return np.linalg.svd(users.sum(0), compute_uv=False).mean() * orthogonal(users.sum(0))

    taus = vectors(count, seed=count)
    compare(iso_c(taus), taus, rule)


@pytest.mark.parametrize(("count", "common"), [(1, 0.8), (2, 0.8), (3, 0.5), (2, 0.0), (4, 1.0), (9, 0.8)])
def test_iso_cts_replaces_the_weakest_directions(count: int, common: float) -> None:
    def rule(users: Array) -> Array:
        r, T = min(users.shape[1:]), len(users)
        own = min(round((r - common * r) / T), r // T)
        k = r - own * T
        U, s, Vt = np.linalg.svd(users.sum(0), full_matrices=False)
        us, ss, vs = [U[:, :k]], [s[:k]], [Vt[:k].T]
        for matrix in users:
            u, sigma, vt = np.linalg.svd(matrix - us[0] @ us[0].T @ matrix, full_matrices=False)
            us.append(u[:, :own])
            ss.append(sigma[:own])
            vs.append(vt[:own].T)
        return np.concatenate(ss).mean() * orthogonal(np.hstack(us)) @ orthogonal(np.hstack(vs)).T

    taus = vectors(count, seed=count)
    compare(iso_cts(taus, common=common), taus, rule)


@pytest.mark.parametrize("floor", [None, 1.0, 0.2])
def test_svc_counts_shared_directions_once(floor: float | None) -> None:
    taus = vectors(3)
    merged = arithmetic(taus)
    least = 1 / 3 if floor is None else floor
    for name, tensor in svc(taus, merged, floor=floor).state_dict().items():
        M = merged.state_dict()[name].double().numpy()
        if M.ndim == 2:
            U, s, Vt = np.linalg.svd(M, full_matrices=False)
            scaled = []
            for u, value in zip(U.T, s, strict=True):
                coefficients = []
                for tau in taus:
                    answer = u @ tau.state_dict()[name].double().numpy()
                    coefficients.append(max(least, (u @ M) @ answer / (answer @ answer)))
                scaled.append(value * 3 / sum(coefficients))
            M = U @ np.diag(scaled) @ Vt
        np.testing.assert_allclose(tensor.numpy(), M, atol=ATOL, err_msg=name)


def test_svc_takes_the_sum_of_equal_vectors_back_to_one() -> None:
    (tau,) = vectors(1)
    calibrated = svc([tau] * 4, arithmetic([tau] * 4)).state_dict()
    for name, tensor in tau.state_dict().items():
        wanted = tensor if tensor.ndim == 2 else 4 * tensor
        torch.testing.assert_close(calibrated[name], wanted, atol=ATOL, rtol=0)
    torch.testing.assert_close(svc([tau], tau).values, tau.values, atol=ATOL, rtol=0)


def test_svc_is_about_the_result_and_not_about_the_order() -> None:
    taus = vectors(3)
    merged = tsv_merge(taus)
    torch.testing.assert_close(svc(taus, merged).values, svc(taus[::-1], merged).values, atol=ATOL, rtol=0)


def test_singular_matrices() -> None:
    """A matrix of rank one beside zeros: no direction out of nothing, and no division by nothing."""
    values = torch.zeros(LAYOUT.size)
    LAYOUT.views(values)["visual.proj"].copy_(torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 7)))
    tau = vector(values)
    for merged in (iso_c([tau]), iso_cts([tau, tau]), svc([tau, tau], tau + tau), tsv_merge([tau])):
        others = [tensor for name, tensor in merged.state_dict().items() if name != "visual.proj"]
        assert all(not tensor.any() for tensor in others)
        assert np.linalg.matrix_rank(merged.state_dict()["visual.proj"].numpy(), tol=1e-4) == 1
    size = float(LAYOUT.views(values)["visual.proj"].norm())
    assert float(iso_c([tau]).norm) == pytest.approx(size / 6, rel=1e-5)
    nothing = vector(torch.zeros(LAYOUT.size))
    for merged in (iso_c([nothing]), iso_cts([nothing] * 2), svc([nothing], nothing)):
        assert not merged.values.any()


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
def test_factors(shape: tuple[int, int]) -> None:
    A = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, vt = np.linalg.svd(A.double().numpy(), full_matrices=False)
    U, values, V = singular_triplets(A, 3)
    np.testing.assert_allclose(values, s[:3], rtol=1e-12)
    np.testing.assert_allclose((U * values) @ V.T, (u[:, :3] * s[:3]) @ vt[:3], atol=1e-12)
    np.testing.assert_allclose(nearest_orthonormal(A.double()), u @ vt, atol=1e-12)
    G = A.double().T @ A.double()
    np.testing.assert_allclose(symmetric_power(G, -1), np.linalg.pinv(G.numpy(), rcond=1e-6), atol=1e-3)


def test_refused() -> None:
    taus = vectors(2)
    with pytest.raises(InputError, match="common is 1.2"):
        iso_cts(taus, common=1.2)
    with pytest.raises(InputError, match="floor is 0"):
        svc(taus, average(taus), floor=0.0)
    with pytest.raises(InputError, match="another base"):
        svc(taus, TaskVector(LAYOUT, taus[0].values, "0" * 64))
    with pytest.raises(InputError, match="got no task vector"):
        iso_c([])
