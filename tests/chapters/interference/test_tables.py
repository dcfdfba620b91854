"""Interference: the formula for cosines, what it implies, definitions of protected vectors, and the WDE."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.interference.tables import DEFINITIONS, cosine_study, effective_vectors, matrix, wde_under
from rmtllmf_lib.disentanglement.cosines import cosine_bands, needed_noise, noisy_cosines, scenario_cosines
from rmtllmf_lib.disentanglement.wde import images_of, wde
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.fusion import fuse
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.units import NOISE, Bench, Unit, models
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from rmtllmf_lib.transport.surrogate import CORRELATIONS, surrogate
from small import small_backbone, small_head, small_task, small_tau
from vectors import unhurried

HALF = Scenario("half", (0.5, 1.0, 2.0), "task", "half")
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def suite() -> Suite:
    backbone = small_backbone(layers=1)
    tasks = {name: small_task(name, seed) for seed, name in enumerate(NAMES)}
    heads = {name: small_head(seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed + 1, task=name) for seed, name in enumerate(NAMES)}
    return Suite(backbone, tasks, heads, taus)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


# --- cosines ----------------------------------------------------------------------------------------------------------


@unhurried
@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0, 50), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_the_formula_is_that_of_vectors_and_orthogonal_noise(seed: int, k: list[float], r: float) -> None:
    """Vectors in three dimensions and noise in others, with exact powers and correlations."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(3, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = np.eye(3) * np.sqrt(1 - r)
    noise = np.sqrt(np.array(k))[:, None] * np.hstack([own, np.full((3, 1), np.sqrt(r))])
    noisy = np.hstack([vectors, noise])
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    assert_allclose(noisy_cosines(vectors @ vectors.T, k, r), noisy @ noisy.T, atol=1e-12)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("scale", ["task", "weight"])
def test_cosines_of_received_vectors(suite: Suite, scale: str, correlation: str) -> None:
    scenario = Scenario("s", (0.2, 1.0, 3.0), scale, correlation)
    taus, base = list(suite.taus.values()), suite.backbone.weights
    received = surrogate(
        taus, base, scenario.mse, scale=scale, correlation=correlation, generator=torch.Generator().manual_seed(99)
    )  # fmt: skip
    tolerance = 4 / np.sqrt(base.layout.size)
    assert_allclose(scenario_cosines(scenario, taus, base), cosine_matrix(received), atol=tolerance)


def test_without_noise_cosines_stay(suite: Suite) -> None:
    taus = list(suite.taus.values())
    assert_allclose(scenario_cosines(CLEAN, taus, suite.backbone.weights), cosine_matrix(taus), atol=1e-12)


def test_limits_of_strong_noise() -> None:
    rho = np.array([[1, 0.2], [0.2, 1]])
    assert_allclose([noisy_cosines(rho, 1e9, r)[0, 1] for r in (0, 0.5, 1)], [0, 0.5, 1], atol=1e-8)
    many = noisy_cosines(rho, np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 4.0]]), 0.5)
    assert_allclose(many[:, 0, 1], [0.2, (0.2 + 0.5) / 2, (0.2 + 2 * 0.5) / np.sqrt(2 * 5)])


@pytest.mark.parametrize(
    ("cosines", "k", "r", "told"),
    [
        ([1.0, 0.0], 1.0, 0.0, "square matrix"),
        (np.ones((2, 3)), 1.0, 0.0, "square matrix"),
        (np.eye(2) * 2, 1.0, 0.0, "outside"),
        (np.eye(2), 1.0, -1.5, "outside"),
        (np.eye(2), -1.0, 0.0, "noise_to_signal"),
        (np.eye(2), [1.0, 1.0, 1.0], 0.0, r"noise_to_signal has shape \(3,\) for 2 users"),
    ],
)
def test_what_is_no_cosine_or_ratio_is_refused(cosines: object, k: float, r: float, told: str) -> None:
    with pytest.raises(InputError, match=told):
        noisy_cosines(cosines, k, r)  # type: ignore[arg-type]


@unhurried
@given(st.floats(-0.1, 0.2), st.floats(0.05, 0.3), st.floats(0.1, 0.9), st.floats(0.01, 0.04))
def test_needed_noise_just_fills_the_band(low: float, spread: float, middle: float, width: float) -> None:
    cosines = (low, low + spread / 2, low + spread)
    target = (middle - width / 2, middle + width / 2)
    k, r, limit = needed_noise(cosines, target)
    assert limit == pytest.approx(middle)
    assert k > 0
    found = [(rho + k * r) / (1 + k) for rho in cosines]
    assert_allclose(found, [target[0], middle, target[1]], atol=1e-9)


def test_needed_noise_of_the_published_cosines() -> None:
    k, r, limit = needed_noise((0.138, 0.202, 0.265), (0.48, 0.52))
    assert_allclose([k, r, limit], [2.175, 0.637, 0.5], atol=1e-3)
    assert needed_noise((0.5, 0.5, 0.51), (0.48, 0.52)) == (0.0, 0.0, 0.5)
    assert needed_noise((0.1, 0.1, 0.11), (0.48, 0.52))[:2] == (0.0, float("inf"))
    with pytest.raises(InputError, match="lower < upper"):
        needed_noise((0.1, 0.2, 0.3), (0.5, 0.5))


def test_bands_are_the_formula_for_equal_users() -> None:
    found = cosine_bands((0.1, 0.2, 0.3), [1.0, 4.0], {"mine": 0.25})
    assert list(found["correlation"]) == ["mine", "mine"]
    assert_allclose(found["low"], [(0.1 + 0.25) / 2, (0.1 + 1) / 5])
    assert_allclose(found["mean"], [(0.2 + 0.25) / 2, (0.2 + 1) / 5])
    assert_allclose(found["high"], [(0.3 + 0.25) / 2, (0.3 + 1) / 5])
    assert set(cosine_bands((0.1, 0.2, 0.3))["correlation"]) == set(CORRELATIONS)


# --- definitions ------------------------------------------------------------------------------------------------------


def unit(name: str, names: tuple[str, ...] = NAMES, lam: float = 0.4) -> Unit:
    from rmtllmf_lib.protection.realign import REALIGNMENT

    trains = name == "rmtllmf"
    return Unit(
        HALF, name, 1, 2 if trains else 0, (names,), (lam,), REALIGNMENT if trains else None, None, "test", None
    )


def model(suite: Suite, one: Unit) -> torch.Tensor:
    ((_, found),) = models(Bench(suite), one)
    return found.weights.values


def test_vectors_as_received_are_those_of_a_study(suite: Suite) -> None:
    vectors = effective_vectors(suite, HALF, "received", seed=1)
    expected = HALF.receive(
        list(suite.taus.values()), suite.backbone.weights, generator=unit("unprotected").generator(NOISE)
    )
    for tau, wanted in zip(vectors.values(), expected, strict=True):
        assert torch.equal(tau.values, wanted.values)


def test_reloaded_vectors_add_up_to_the_reloaded_model(suite: Suite) -> None:
    vectors = effective_vectors(suite, HALF, "reloaded", seed=1)
    assert all(tau.only("embeddings").norm == 0 for tau in vectors.values())
    whole = fuse(suite.backbone.weights, list(vectors.values()), 0.4).values
    torch.testing.assert_close(whole, model(suite, unit("freeze")), atol=1e-6, rtol=0)


def test_shares_add_up_to_the_protected_model(suite: Suite) -> None:
    vectors = effective_vectors(suite, HALF, "share", seed=1, per_class=2, lam=0.4)
    whole = fuse(suite.backbone.weights, list(vectors.values()), 0.4).values
    protected, reloaded = model(suite, unit("rmtllmf")), model(suite, unit("freeze"))
    torch.testing.assert_close(whole, protected, atol=1e-6, rtol=0)
    assert (protected - reloaded).abs().max() > 1e-4


def test_own_vectors_are_the_users_protected_models(suite: Suite) -> None:
    vectors = effective_vectors(suite, HALF, "own", seed=1, per_class=2)
    expected = model(suite, unit("rmtllmf", ("two",), 1.0))
    torch.testing.assert_close(suite.backbone.weights.values + vectors["two"].values, expected, atol=1e-6, rtol=0)


def test_left_out_vectors_are_what_a_user_adds(suite: Suite) -> None:
    vectors = effective_vectors(suite, HALF, "left out", seed=1, per_class=2, lam=0.4)
    difference = model(suite, unit("rmtllmf")) - model(suite, unit("rmtllmf", ("one", "three")))
    torch.testing.assert_close(0.4 * vectors["two"].values, difference, atol=1e-6, rtol=0)


def test_an_unknown_definition_is_refused(suite: Suite) -> None:
    with pytest.raises(InputError, match="definition is "):
        effective_vectors(suite, HALF, "mine")
    assert len({meaning for meaning, _ in DEFINITIONS.values()}) == len(DEFINITIONS)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_table_of_cosines(suite: Suite, store: Store) -> None:
    table = cosine_study(suite, [CLEAN, HALF], ["received", "reloaded"], seeds=2, store=store)
    assert list(table) == ["scenario", "definition", "seed", "first", "second", "cosine"]
    assert len(table) == 2 * 2 * 2 * 3
    clean = table[(table["scenario"] == "clean") & (table["definition"] == "received") & (table["seed"] == 0)]
    assert_allclose(matrix(clean, NAMES), cosine_matrix(list(suite.taus.values())), atol=1e-12)
    half = table[(table["scenario"] == "half") & (table["definition"] == "reloaded") & (table["seed"] == 1)]
    vectors = effective_vectors(suite, HALF, "reloaded", seed=1)
    assert_allclose(matrix(half, NAMES), cosine_matrix(list(vectors.values())), atol=1e-12)
    parts = len([*(store.root / "cosines-part").iterdir()])
    renamed = cosine_study(suite, [replace(HALF, name="other")], ["received"], seeds=2, store=store)
    before = table[(table["scenario"] == "half") & (table["definition"] == "received")]
    assert_allclose(renamed["cosine"], before["cosine"], rtol=0, atol=0)
    assert len([*(store.root / "cosines-part").iterdir()]) == parts  # the name decides nothing


def test_table_of_errors(suite: Suite, store: Store) -> None:
    table = wde_under(suite, [CLEAN, HALF], ["unprotected", "base"], seeds=2, images=30, lam=0.4, store=store)
    assert set(table["images"]) == {30}
    assert len(table) == (2 + 1) * 2 * 3
    assert set(table.loc[table["protection"] == "base", "scenario"]) == {"no link"}
    images = images_of(suite, limit=30)
    clean = table[(table["scenario"] == "clean") & (table["seed"] == 0)]
    assert_allclose(clean["wde"], wde(suite, images, 0.4, own_lam=1.0)["wde"])
    received = list(effective_vectors(suite, HALF, "received", seed=1).values())
    noisy = wde(suite, images, own_lam=1.0, fused=fuse(suite.backbone.weights, received, 0.4))
    half = table[(table["scenario"] == "half") & (table["seed"] == 1)]
    assert_allclose(half["wde"], noisy["wde"])
    assert half["wde"].max() > 0
