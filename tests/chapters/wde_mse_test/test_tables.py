"""Flips and WDE of noisy models, predicted and counted; the draws are whole models."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from gaussians import random_model
from rmtllmf_lib.chapters.wde_mse_test.tables import (
    flip_rates,
    flips,
    flips_against_noise,
    noise_levels,
    power_curve,
    received_noise,
    rejections,
    wde_against_noise,
)
from rmtllmf_lib.disentanglement.chi_square_test import power
from rmtllmf_lib.disentanglement.linearise import network
from rmtllmf_lib.disentanglement.noisy_logits import model_draws
from rmtllmf_lib.disentanglement.wde import images_of, noise_std
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.training.evaluate import prepare
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.surrogate import surrogate
from small import generator, small_backbone, small_head, small_networks, small_task, small_tau

N = 12
STDS = np.array([1e-3, 3e-3])


@cache
def drawn(draws: int = 300) -> dict[str, np.ndarray]:
    nets, weights, _ = small_networks(N)
    return model_draws(nets, weights, STDS, draws, generator=generator(), threads=2)


def test_flips_are_predicted() -> None:
    _, _, models = small_networks(N)
    noisy = {name: samples[1] for name, samples in drawn().items()}
    table = flips(models, noisy, STDS[1], rng=np.random.default_rng(0))
    assert (table["lower"] <= table["predicted"]).all() and (table["predicted"] <= table["upper"]).all()
    low, high = stats.binom.interval(0.9999, 300, table["predicted"])
    assert ((low <= 300 * table["counted"]) & (300 * table["counted"] <= high)).all()
    assert 0.02 < table["predicted"].mean() < 0.9
    rates = flip_rates(models, noisy, table).set_index("task")
    assert list(rates.index) == ["a", "b", "all"]
    assert (rates["z"].abs() < 3).all()
    own = (noisy["b"].argmax(-1) != models["b"].predicted).mean(1)
    assert rates.loc["b", "counted"] == pytest.approx(own.mean())
    assert rates.loc["b", "error"] == pytest.approx(own.std(ddof=1) / 300**0.5)
    assert rates.loc["all", "predicted"] == pytest.approx(table["predicted"].mean())
    wrong = flips(models, noisy, 2 * STDS[1], rng=np.random.default_rng(0))
    assert flip_rates(models, noisy, wrong).set_index("task").loc["all", "z"] < -5


def test_flip_rates_without_a_flip_have_no_z() -> None:
    models = {"a": random_model()}
    noisy = {"a": np.broadcast_to(models["a"].logits, (3, 4, 5))}
    table = flips(models, noisy, 1e-9, rng=np.random.default_rng(0))
    assert flip_rates(models, noisy, table)["z"].isna().all()


def test_flips_against_noise() -> None:
    _, _, models = small_networks(N)
    table = flips_against_noise(models, drawn(), STDS, rng=np.random.default_rng(0))
    means = over_seeds(table, ["std", "lower", "predicted", "upper"], "counted")
    assert (abs(means["mean"] - means["predicted"]) < 1.53 * means["half_width"]).all()
    assert (means["lower"] <= means["predicted"]).all() and (means["predicted"] <= means["upper"]).all()
    assert means["predicted"].is_monotonic_increasing
    every = np.concatenate([drawn()[name][0].argmax(-1) != model.predicted for name, model in models.items()], axis=1)
    np.testing.assert_allclose(table[table["std"] == STDS[0]]["counted"], every.mean(1))


def test_rejections_have_size_and_power() -> None:
    _, _, models = small_networks(N)
    table = rejections(models, drawn(), STDS, reference_std=STDS[0], level=0.1)
    means = over_seeds(table, ["task", "classes", "std", "theory"], "rejected").set_index(["task", "std"])
    assert (abs(means["mean"] - means["theory"]) < 1.53 * means["half_width"] + 0.02).all()
    assert means.loc[("a", STDS[0]), "theory"] == pytest.approx(0.1)
    assert means.loc[("b", STDS[1]), "theory"] == pytest.approx(power(2, 0.1, STDS[0], STDS[1]))
    assert means.loc[("a", STDS[0]), "classes"] == 5


def test_wde_is_counted_predicted_and_bounded() -> None:
    _, _, models = small_networks(N)
    own = {name: (model.predicted + (np.arange(N) % 3 == 0)) % model.classes for name, model in models.items()}
    table = wde_against_noise(models, drawn(), STDS, own, rng=np.random.default_rng(0))
    means = over_seeds(table, ["std", "predicted", "bound"], "wde")
    assert (abs(means["mean"] - means["predicted"]) < 1.53 * means["half_width"]).all()
    assert (means["predicted"] <= means["bound"] + 1e-9).all()
    plain = sum((drawn()[name][1, 7].argmax(-1) != own[name]).mean() for name in models)
    assert table[(table["std"] == STDS[1]) & (table["seed"] == 7)]["wde"].item() == pytest.approx(plain)


def test_received_noise_is_what_fusion_sees() -> None:
    base = small_backbone().weights
    taus = [small_tau(base, seed, size) for seed, size in ((0, 0.01), (1, 0.03))]
    table = received_noise(taus, base, 0.4, [0.1, 0.5], seeds=2)
    assert len(table) == 6
    np.testing.assert_allclose(table["measured"], table["predicted"], rtol=4 / (2 * base.layout.size) ** 0.5)
    assert table["difference"].max() < 1e-6
    row = table.iloc[0]
    noisy = surrogate(taus, base, [0.1, 0.5], generator=generator(0))
    change = 0.4 * sum((one - other).values for one, other in zip(noisy, taus, strict=True))
    assert row["measured"] == pytest.approx(float(change.square().mean().sqrt()), rel=1e-4)
    assert set(table["correlation"]) == {"independent", "half", "common"}


def test_noise_levels() -> None:
    base = small_backbone().weights
    taus = [small_tau(base, seed) for seed in (0, 1)]
    table = noise_levels(taus, base, 0.3, [0.1, 0.4])
    assert len(table) == 8
    for row in table.itertuples():
        expected = noise_std(row.mse, taus, base, 0.3, scale=row.scale, correlation=row.correlation)
        assert row.std == pytest.approx(expected)
    doubled = table["std"].to_numpy().reshape(4, 2)
    np.testing.assert_allclose(doubled[:, 1] / doubled[:, 0], 2)


def test_power_curve() -> None:
    _, _, models = small_networks(N)
    table = power_curve(models, [1.0, 2.0], 0.1).set_index(["task", "multiple"])
    assert table.loc[("a", 1.0), "power"] == pytest.approx(0.1)
    assert table.loc[("b", 2.0), "power"] == pytest.approx(stats.chi2.sf(stats.chi2.isf(0.1, 2) / 4, 2))
    assert list(table["classes"]) == [5, 5, 3, 3]


def test_networks_and_own_answers_see_the_same_images() -> None:
    """WDE compares predictions image by image, so both samples of a split must be the same."""
    backbone, task = small_backbone(), small_task()
    suite = Suite(backbone, {"a": task}, {"a": small_head()}, {"a": small_tau(backbone.weights, 0)})
    net = network(backbone, task.test, small_head(), limit=7)
    prepared = images_of(suite, limit=7)["a"]
    assert torch.equal(net.labels, prepared.split.labels)
    assert torch.equal(net.patches, torch.cat([*prepare(backbone, prepared.split).cut()]))


def test_bad_input() -> None:
    _, weights, models = small_networks(N)
    with pytest.raises(InputError, match="reference classes"):
        wde_against_noise(models, drawn(), STDS, {"a": [9] * N, "b": [0] * N}, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="seeds"):
        received_noise([], weights, 0.3, 0.1, seeds=0)
