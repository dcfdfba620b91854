"""Robust means against their definitions on whole vectors, and against a user who lies."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from mergers import stacked, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.entries import average
from rmtllmf_lib.fusion.robust import centred_clipping, coordinate_median, geometric_median, multi_krum, trimmed_mean
from vectors import unhurried


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_medians_and_trimmed_means(count: int) -> None:
    taus = vectors(count)
    users = stacked(taus)
    np.testing.assert_allclose(coordinate_median(taus).values, np.median(users, axis=0), atol=1e-7)
    cut = int(0.25 * count)
    wanted = np.sort(users, axis=0)[cut : count - cut].mean(0)
    np.testing.assert_allclose(trimmed_mean(taus).values, wanted, atol=1e-6)
    torch.testing.assert_close(trimmed_mean(taus, trim=0.0).values, average(taus).values)


@pytest.mark.parametrize("count", [3, 6])
def test_geometric_median_has_the_smallest_sum_of_distances(count: int) -> None:
    taus = vectors(count)
    users = stacked(taus)
    found = geometric_median(taus).values.double().numpy()

    def total(x: np.ndarray) -> float:
        return float(np.linalg.norm(users - x, axis=1).sum())

    best = minimize(total, users.mean(0), method="L-BFGS-B", options={"maxfun": 10**6})
    assert total(found) <= best.fun + 1e-5
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_geometric_median_at_a_vector() -> None:
    """Two vectors of three agree: the median is theirs, where the iteration divides by a distance of 0."""
    one, other = vectors(2)
    torch.testing.assert_close(geometric_median([one, one, other]).values, one.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "faulty"), [(3, 0), (5, 1), (8, 2)])
def test_multi_krum_averages_the_close_ones(count: int, faulty: int) -> None:
    taus = vectors(count)
    users = stacked(taus)
    scores = [
        sum(sorted(((user - other) ** 2).sum() for j, other in enumerate(users) if j != i)[: count - faulty - 2])
        for i, user in enumerate(users)
    ]
    wanted = users[np.argsort(scores)[: count - faulty]].mean(0)
    np.testing.assert_allclose(multi_krum(taus, faulty=faulty).values, wanted, atol=1e-6)


@pytest.mark.parametrize("radius", [None, 3.0])
def test_centred_clipping_moves_by_clipped_differences(radius: float | None) -> None:
    taus = [(1 + k) * tau for k, tau in enumerate(vectors(4))]
    users = stacked(taus)
    centre = np.zeros(users.shape[1])
    for _ in range(5):
        lengths = np.linalg.norm(users - centre, axis=1)
        limit = np.median(lengths) if radius is None else radius
        centre = centre + np.mean(
            [(u - centre) * min(1, limit / n) for u, n in zip(users, lengths, strict=True)], axis=0
        )
    np.testing.assert_allclose(centred_clipping(taus, radius=radius).values, centre, atol=1e-5)


@unhurried
@given(st.integers(0, 99), st.floats(1e2, 1e5))
def test_a_liar_moves_them_little(seed: int, size: float) -> None:
    honest, (lie,) = vectors(7, seed), vectors(1, seed + 100)
    spread = max(float((tau - average(honest)).norm) for tau in honest)
    for rule in (coordinate_median, trimmed_mean, geometric_median, multi_krum, centred_clipping):
        assert (rule([*honest, size * lie]) - average(honest)).norm <= 2 * spread, rule.__name__
    assert (average([*honest, size * lie]) - average(honest)).norm > 4 * spread


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda taus: trimmed_mean(taus, trim=0.5), "trim is 0.5"),
        (lambda taus: trimmed_mean(taus, trim=-0.1), "trim is -0.1"),
        (lambda taus: geometric_median(taus, rounds=0), "rounds is 0"),
        (lambda taus: multi_krum(taus, faulty=2), "faulty is 2"),
        (lambda taus: centred_clipping(taus, radius=0.0), "radius is 0"),
        (lambda taus: centred_clipping([]), "got no task vector"),
    ],
)
def test_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(vectors(5))  # type: ignore[operator]
