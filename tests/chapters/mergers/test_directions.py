"""What noise leaves of singular directions, and of merged vectors."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.mergers.directions import alignment, kept, survival
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.mergers import merge
from rmtllmf_lib.model.task_vector import TaskVector
from small import small_backbone, small_tau

BASE = small_backbone(layers=2).weights
TAUS = [small_tau(BASE, seed) for seed in (1, 2, 3)]


def noisy(taus: list[TaskVector], std: float, seed: int = 0) -> list[TaskVector]:
    g = torch.Generator().manual_seed(seed)
    return [
        tau + TaskVector(tau.layout, std * torch.randn(tau.layout.size, generator=g), tau.base_hash) for tau in taus
    ]


@pytest.mark.parametrize("shape, strength", [((400, 400), 1.5), ((200, 600), 1.3), ((150, 600), 2.5)])
def test_survival_is_that_of_a_simulation(shape: tuple[int, int], strength: float) -> None:
    """One direction in a large random matrix, drawn and decomposed."""
    rng, (m, n), found = np.random.default_rng(7), shape, []
    for _ in range(6):
        u, v = (each / np.linalg.norm(each) for each in (rng.normal(size=m), rng.normal(size=n)))
        U, _, Vh = np.linalg.svd(
            strength * (m * n) ** 0.25 * np.outer(u, v) + rng.normal(size=shape), full_matrices=False
        )
        found.append((U[:, 0] @ u) ** 2 * (Vh[0] @ v) ** 2)
    assert np.mean(found) == pytest.approx(float(survival(strength, m / n)), abs=0.04)


def test_survival_has_a_threshold_and_rises_to_one() -> None:
    x = np.array([0.0, 0.5, 1.0, 1.01, 2.0, 100.0])
    for shape in (1.0, 0.25):
        left = survival(x, shape)
        assert_allclose(left[:3], 0)
        assert (np.diff(left[2:]) > 0).all() and 0.999 < left[-1] < 1
    with pytest.raises(InputError, match="strength"):
        survival(-1.0)
    with pytest.raises(InputError, match="shape"):
        survival(2.0, 1.5)


def test_directions_stay_under_little_noise_and_are_lost_under_much() -> None:
    little = alignment(TAUS, noisy(TAUS, 1e-6))
    assert (little.loc[little["strength"] > 30, "overlap"] > 0.99).all()
    much = alignment(TAUS, noisy(TAUS, 10.0))
    assert much["strength"].max() < 0.1 and much["overlap"].median() < 0.3
    assert len(little) == len(much)
    matrices = {name for name, each in TAUS[0].state_dict().items() if each.ndim == 2 and ".resblocks." in name}
    assert set(little["tensor"]) == matrices and set(little["user"]) == {0, 1, 2}


def test_strength_is_in_units_of_the_noise() -> None:
    name, std = "visual.transformer.resblocks.0.mlp.c_fc.weight", 0.02
    rows = alignment(TAUS, noisy(TAUS, std))
    first = rows[(rows["user"] == 1) & (rows["tensor"] == name) & (rows["direction"] == 0)].iloc[0]
    matrix = TAUS[1].state_dict()[name]
    expected = float(torch.linalg.matrix_norm(matrix, 2)) / (std * matrix.numel() ** 0.25)
    assert first["strength"] == pytest.approx(expected, rel=0.15)  # of the errors' own standard deviation
    assert first["shape"] == min(matrix.shape) / max(matrix.shape)


def test_what_is_not_a_noisy_link_is_refused() -> None:
    with pytest.raises(InputError, match="2 sent and 3 received"):
        alignment(TAUS[:2], TAUS)
    with pytest.raises(InputError, match="user 0 has no error"):
        alignment(TAUS, TAUS)


def test_kept_is_the_squared_cosine_of_results() -> None:
    names, arrived = ["arithmetic", "tsv"], noisy(TAUS, 0.02)
    found = kept(TAUS, {0.0: TAUS, 1.0: arrived}, names).set_index(["ratio", "merger"])["kept"]
    assert len(found) == 4
    assert_allclose(found[0.0], 1)
    for name in names:
        one, other = (merge(name, taus).without("embeddings") for taus in (TAUS, arrived))
        cosine = float(one.values.double() @ other.values.double()) / (one.norm * other.norm)
        assert found[1.0, name] == pytest.approx(cosine**2, rel=1e-4)
    assert kept([0.0 * tau for tau in TAUS], {1.0: arrived}, names[:1])["kept"].tolist() == [0.0]
