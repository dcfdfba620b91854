"""The WDE by hand, its map, the noise level against the surrogate's, and predicted increments against counted ones."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.linearise import first_order, network
from rmtllmf_lib.disentanglement.noisy_logits import model_draws
from rmtllmf_lib.disentanglement.wde import images_of, noise_std, own_classes, predict_wde_increment, wde, wde_grid
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.training.evaluate import predictions
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, surrogate
from small import small_backbone, small_head, small_task, small_tau
from vectors import BASE, unhurried, vector

NAMES = ("one", "two", "three")


@cache
def suite() -> Suite:
    backbone = small_backbone(3, layers=2)
    tasks = {name: small_task(name, seed, 25) for seed, name in enumerate(NAMES)}
    heads = {name: small_head(seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed + 5, 0.01 * (seed + 1), name) for seed, name in enumerate(NAMES)}
    return Suite(backbone, tasks, heads, taus)


def by_hand(names: tuple[str, ...], lams: list[float], own: list[float]) -> list[float]:
    """Eq. (8) with new weights and new passes for everything."""
    base, found = suite().backbone.weights, []
    fused = base
    for name, lam in zip(names, lams, strict=True):
        fused = fused + lam * suite().taus[name]
    for name, lam in zip(names, own, strict=True):
        alone = base + lam * suite().taus[name]
        one, all_ = (
            predictions(suite().backbone, point, suite().tasks[name].test, suite().heads[name])
            for point in (alone, fused)
        )
        found.append(float((one != all_).float().mean()))
    return found


@pytest.mark.parametrize("names", [NAMES, ("three", "one"), ("two",)])
def test_wde_is_the_share_of_changed_answers(names: tuple[str, ...]) -> None:
    images = images_of(suite(), names)
    lams = [0.5, 1.5, 1.0][: len(names)]
    found = wde(suite(), images, lams)
    assert found["task"].tolist() == list(names) and found["images"].tolist() == [25] * len(names)
    assert found["wde"].tolist() == pytest.approx(by_hand(names, lams, lams))
    assert found["wde"].sum() > 0 or len(names) == 1
    same = wde(suite(), images, 0.5, 1.0)
    assert same["wde"].tolist() == pytest.approx(by_hand(names, [0.5] * len(names), [1.0] * len(names)))
    assert same["own_lam"].tolist() == [1.0] * len(names)


def test_one_task_is_disentangled() -> None:
    assert wde(suite(), images_of(suite(), ["two"]), 0.7)["wde"].tolist() == [0]


def test_wde_of_a_given_model() -> None:
    images, base = images_of(suite()), suite().backbone.weights
    exact = suite().fuse(lam=0.3)
    assert wde(suite(), images, 0.3, fused=exact).equals(wde(suite(), images, 0.3))
    own = own_classes(suite(), images, 0.3)
    found = wde(suite(), images, 0.3, fused=base)["wde"]
    zero_shot = [predictions(suite().backbone, base, images[name], suite().heads[name]) for name in NAMES]
    expected = [float((own[name] != classes).float().mean()) for name, classes in zip(NAMES, zero_shot, strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_grid_holds_the_wde_of_every_point() -> None:
    images = images_of(suite(), ["three", "one"], limit=20)
    first, second = [-1.0, 0.0, 0.5], [0.0, 2.0]
    table = wde_grid(suite(), images, first, second)
    assert [tuple(row) for row in table[["lam_1", "lam_2"]].to_numpy()] == [(a, b) for a in first for b in second]
    for _, row in table.iterrows():
        expected = wde(suite(), images, [row["lam_1"], row["lam_2"]])["wde"].sum()
        assert row["wde"] == pytest.approx(expected)
    assert table[(table["lam_1"] == 0) & (table["lam_2"] == 0)]["wde"].item() == 0
    assert table["wde"].max() > 0
    assert wde_grid(suite(), images, first, second, threads=2).equals(table)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_noise_std_is_the_surrogates(scale: str, correlation: str) -> None:
    """Users of different MSE and lambda; the spread of the fused error over all parameters, to five standard errors."""
    base, taus = suite().backbone.weights, list(suite().taus.values())
    mse, lams = [0.02, 0.2, 0.5], [0.3, 0.5, 0.2]
    received = surrogate(
        taus, base, mse, scale=scale, correlation=correlation, generator=torch.Generator().manual_seed(0)
    )
    error = sum(
        lam * (after.values.double() - tau.values) for lam, tau, after in zip(lams, taus, received, strict=True)
    )
    predicted = noise_std(mse, taus, base, lams, scale=scale, correlation=correlation)
    assert isinstance(error, torch.Tensor)
    spread = 5 * (2 / len(error)) ** 0.5
    assert float(error.square().mean()) == pytest.approx(predicted**2, rel=spread + 1e-4)


# Zero, or a number whose square does not underflow.
some_number = st.just(0.0) | st.floats(1e-30, 1)


@unhurried
@given(st.lists(some_number, min_size=3, max_size=3), some_number, st.sampled_from(SCALES))
def test_common_noise_is_the_stronger(mse: list[float], lam: float, scale: str) -> None:
    taus = [vector(seed) for seed in (1, 2, 3)]
    independent, half, common = (
        noise_std(mse, taus, BASE, lam, scale=scale, correlation=kind) for kind in ("independent", "half", "common")
    )
    assert independent <= half * (1 + 1e-12) and half <= common * (1 + 1e-12)
    assert common <= 3**0.5 * independent * (1 + 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert noise_std(4 * np.array(mse), taus, BASE, lam, scale=scale) == pytest.approx(2 * independent)


def test_predicted_increments_are_counted() -> None:
    """Noise restores some of the predictions that fusion changed: the increment is less than the flips."""
    names, base = NAMES, suite().backbone.weights
    mse, lam, draws = [0.05, 0.1, 0.2], 1.0, 200
    taus = [suite().taus[name] for name in names]
    fused = suite().fuse(lam=lam)
    nets = {name: network(suite().backbone, suite().tasks[name].test, suite().heads[name]) for name in names}
    models = {name: first_order(net, fused) for name, net in nets.items()}
    own = own_classes(suite(), images_of(suite()), lam)
    table = predict_wde_increment(
        mse, taus, base, lam, models, own, scale="task", rng=np.random.default_rng(0)
    ).set_index("task")  # fmt: skip
    std = noise_std(mse, taus, base, lam)
    assert table["std"].tolist() == [std] * 3
    noisy = model_draws(nets, fused, std, draws, generator=torch.Generator().manual_seed(0), threads=2)
    clean = wde(suite(), images_of(suite()), lam).set_index("task")["wde"]
    for name in names:
        assert table.loc[name, "wde_clean"] == pytest.approx(clean[name])
        changed = (noisy[name][0].argmax(-1) != own[name].numpy()).mean(1)
        error = changed.std(ddof=1) / draws**0.5
        assert changed.mean() == pytest.approx(table.loc[name, "wde_noisy"], abs=3.5 * error)
    assert (table["increment"] <= table["flip_probability"] + 4 * table["error"]).all()
    assert (table["increment"] < table["flip_probability"] - 0.01).any()
    np.testing.assert_allclose(table["increment"], table["wde_noisy"] - table["wde_clean"])


def test_without_noise_nothing_is_added() -> None:
    models = {"a": FirstOrder([[1.0, 0.0], [0.0, 1.0]], np.stack([np.eye(2)] * 2))}
    table = predict_wde_increment(0.0, [vector(1)], BASE, 0.3, models, {"a": [0, 0]}, rng=np.random.default_rng(0))
    assert table.iloc[0].tolist() == ["a", 0.0, 0.5, 0.5, 0.0, 0.0, 0.0]


def test_one_class_and_one_image() -> None:
    models = {"a": FirstOrder([2.0], [[4.0]])}
    table = predict_wde_increment(0.5, [vector(1)], BASE, 0.3, models, {"a": [0]}, rng=np.random.default_rng(0))
    assert table["increment"].tolist() == [0]


def test_an_mse_above_one_warns() -> None:
    with pytest.warns(UserWarning, match="mse is 1.7"):
        found = noise_std([0.1, 1.7], [vector(1), vector(2)], BASE, 0.3)
    assert found > 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0.1], 0.3), {}, r"mse .*\(1,\)"),
        (([0.1] * 3, 0.3), {}, r"mse .*\(3,\)"),
        ((-0.1, 0.3), {}, "mse is -0.1 at its smallest"),
        ((np.nan, 0.3), {}, "mse holds NaN or infinity"),
        ((0.1, [0.3] * 3), {}, "3 coefficients for 2"),
        ((0.1, np.inf), {}, "lam is .*inf"),
        ((0.1, 0.3), {"scale": "size"}, "noise scale is 'size'"),
        ((0.1, 0.3), {"correlation": "some"}, "noise correlation is 'some'"),
    ],
)
def test_bad_noise(arguments: tuple, options: dict, message: str) -> None:
    mse, lam = arguments
    with pytest.raises(InputError, match=message):
        noise_std(mse, [vector(1), vector(2)], BASE, lam, **options)


def test_bad_input() -> None:
    images = images_of(suite(), ["one", "two"], limit=5)
    with pytest.raises(InputError, match="unknown task 'four': expected some of one, two, three"):
        images_of(suite(), ["four"])
    with pytest.raises(InputError, match="there is no task"):
        wde(suite(), {})
    with pytest.raises(InputError, match="got 3 coefficients for 2 task vectors"):
        wde(suite(), images, [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="got the images of 3 tasks: expected two"):
        wde_grid(suite(), images_of(suite(), limit=5))
    with pytest.raises(InputError, match="threads is 0"):
        wde_grid(suite(), images, threads=0)
    with pytest.raises(InputError, match="the grid has 0 × 17 points"):
        wde_grid(suite(), images, [])
    with pytest.raises(InputError, match="no own classes for a"):
        predict_wde_increment(
            0.1, [vector(1)], BASE, 0.3, {"a": FirstOrder([1.0], [[1.0]])}, {}, rng=np.random.default_rng(0)
        )
    with pytest.raises(InputError, match="belongs to another base"):
        noise_std(0.1, [TaskVector(BASE.layout, BASE.values, "elsewhere")], BASE, 0.3)
    with pytest.raises(InputError, match="got no task vector"):
        noise_std(0.1, [], BASE, 0.3)
