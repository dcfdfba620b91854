"""Definitions of protected task vectors, and the stored tables of their cosines and WDE."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from rmtllmf_lib.disentanglement.wde import images_of, wde
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.interference import DEFINITIONS, cosine_study, effective_vectors, wde_under
from rmtllmf_lib.study.units import NOISE, Bench, Unit, models
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from small import small_backbone, small_head, small_task, small_tau

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


def unit(name: str, names: tuple[str, ...] = NAMES, lam: float = 0.4) -> Unit:
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


def test_a_realignment_of_ones_own(suite: Suite, store: Store) -> None:
    once = replace(REALIGNMENT, steps=1)
    vectors = effective_vectors(suite, HALF, "own", seed=1, per_class=2, realignment=once)
    expected = model(suite, replace(unit("rmtllmf", ("two",), 1.0), recipe=once))
    torch.testing.assert_close(suite.backbone.weights.values + vectors["two"].values, expected, atol=1e-6, rtol=0)
    given = {"seeds": 2, "per_class": 2, "realignment": once, "store": store}
    table = cosine_study(suite, [HALF], ["own"], **given)
    pairs = np.triu_indices(3, 1)
    assert_allclose(table.loc[table["seed"] == 1, "cosine"], cosine_matrix([*vectors.values()])[pairs], atol=1e-12)
    errors = wde_under(suite, [HALF], ["rmtllmf"], lam=0.4, **given)
    fused = replace(suite.backbone.weights, values=model(suite, replace(unit("rmtllmf"), recipe=once)))
    wanted = wde(suite, images_of(suite), own_lam=1.0, fused=fused)
    assert_allclose(errors.loc[errors["seed"] == 1, "wde"], wanted["wde"], atol=1e-12)


def test_an_unknown_definition_is_refused(suite: Suite) -> None:
    with pytest.raises(InputError, match="mine"):
        effective_vectors(suite, HALF, "mine")
    assert len({meaning for meaning, _ in DEFINITIONS.values()}) == len(DEFINITIONS)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_table_of_cosines(suite: Suite, store: Store) -> None:
    table = cosine_study(suite, [CLEAN, HALF], ["received", "reloaded"], seeds=2, store=store)
    assert list(table) == ["scenario", "definition", "seed", "first", "second", "cosine"]
    assert len(table) == 2 * 2 * 2 * 3
    clean = table[(table["scenario"] == "clean") & (table["definition"] == "received") & (table["seed"] == 0)]
    pairs = np.triu_indices(3, 1)
    assert_allclose(clean["cosine"], cosine_matrix(list(suite.taus.values()))[pairs], atol=1e-12)
    half = table[(table["scenario"] == "half") & (table["definition"] == "reloaded") & (table["seed"] == 1)]
    vectors = effective_vectors(suite, HALF, "reloaded", seed=1)
    assert_allclose(half["cosine"], cosine_matrix(list(vectors.values()))[pairs], atol=1e-12)
    parts = len([*(store.root / "cosines-part").iterdir()])
    renamed = cosine_study(suite, [replace(HALF, name="other")], ["received"], seeds=2, store=store)
    before = table[(table["scenario"] == "half") & (table["definition"] == "received")]
    assert_allclose(renamed["cosine"], before["cosine"], rtol=0, atol=0)
    assert len([*(store.root / "cosines-part").iterdir()]) == parts  # the name is not part of the key


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
