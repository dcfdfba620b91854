"""Noisy models against plain loops, first-order predictions against counts, and where the first order ends."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.disentanglement.chi_square_test import critical_value, degrees_of_freedom, power, statistic
from rmtllmf_lib.disentanglement.linearise import along, logits, network
from rmtllmf_lib.disentanglement.margins import flip_probability
from rmtllmf_lib.disentanglement.noisy_logits import linearisation_error, model_draws, noise_draw, perturb, valid_std
from rmtllmf_lib.disentanglement.ratio_test import ratio, relative_std, within_probability
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from small import generator, small_backbone, small_head, small_networks, small_split

STD, N, DRAWS = 3e-3, 12, 200  # in the linear range, and large enough to flip some of the images


@cache
def drawn() -> dict[str, Real]:
    nets, weights, _ = small_networks(N)
    return model_draws(nets, weights, STD, DRAWS, generator=generator(), threads=2)


def test_draws_are_whole_noisy_models() -> None:
    nets, weights, _ = small_networks(N)
    seed = int(torch.randint(2**62, (), generator=generator()))
    found = model_draws(nets, weights, [STD / 3, STD], 3, generator=generator())
    for name, net in nets.items():
        assert found[name].shape == (2, 3, N, net.classes)
        for level, std in enumerate((STD / 3, STD)):
            noise = TaskVector(weights.layout, std * noise_draw(weights.layout.size, seed, 2), weights.origin)
            np.testing.assert_allclose(found[name][level, 2], logits(net, weights + noise), atol=1e-4)


def test_draws_do_not_depend_on_threads() -> None:
    nets, weights, _ = small_networks(N)
    one, two = (model_draws(nets, weights, STD, 4, generator=generator(), threads=k) for k in (1, 2))
    for name in nets:
        np.testing.assert_array_equal(one[name], two[name])
    other = model_draws(nets, weights, STD, 4, generator=generator(1))
    assert not np.array_equal(one["a"], other["a"])


def test_predicted_flips_are_counted() -> None:
    for name, model in small_networks(N)[2].items():
        flipped = drawn()[name][0].argmax(-1) != model.predicted
        predicted = flip_probability(model, STD, rng=np.random.default_rng(0)).probability
        assert 0.02 < predicted.mean() < 0.9
        error = flipped.mean(1).std(ddof=1) / np.sqrt(DRAWS)  # images of one draw are not independent
        assert flipped.mean() == pytest.approx(predicted.mean(), abs=3 * error)
        low, high = stats.binom.interval(0.9999, DRAWS, predicted)
        assert ((low <= flipped.sum(0)) & (flipped.sum(0) <= high)).all()


def test_the_other_statistics_hold_on_a_network() -> None:
    """Size of the chi-square test and of the ratio test, on whole noisy models."""
    for name, model in small_networks(N)[2].items():
        disturbed, dof = drawn()[name][0], degrees_of_freedom(model)
        for level, reference in ((0.1, STD), (0.1, STD / 2)):
            rejected = statistic(model, disturbed - model.logits, reference) > critical_value(dof, level)
            low, high = stats.binom.interval(0.9999, DRAWS, power(dof, level, reference, STD))
            assert ((low <= rejected.sum(0)) & (rejected.sum(0) <= high)).all()
        inside = np.abs(ratio(model.logits, disturbed) - 1) <= 0.02
        low, high = stats.binom.interval(0.99999, DRAWS, within_probability(0.02, relative_std(model, STD)))
        assert ((low <= inside.sum(0)) & (inside.sum(0) <= high)).all()


def test_perturbed_logits() -> None:
    nets, weights, _ = small_networks(N)
    found = perturb(nets, weights, [1e-5, 1e-4], 2, generator=generator())
    noise = noise_draw(weights.layout.size, int(torch.randint(2**62, (), generator=generator())), 1)
    for name, net in nets.items():
        assert found[name].disturbed.shape == (2, 2, N, net.classes)
        np.testing.assert_array_equal(found[name].clean, logits(net, weights))
        np.testing.assert_allclose(found[name].slopes[1], along(net, weights, noise)[1])
        moved = TaskVector(weights.layout, 1e-4 * noise, weights.origin)
        np.testing.assert_allclose(found[name].disturbed[1, 1], logits(net, weights + moved), rtol=0, atol=1e-4)


def test_error_of_the_linearisation_grows_with_the_noise() -> None:
    """As the second-order term over the first: in proportion to the noise."""
    nets, weights, _ = small_networks(N)
    stds = np.array([1e-3, 2e-3, 4e-3])
    table = linearisation_error(perturb(nets, weights, stds, 4, generator=generator()))
    assert table.columns.tolist() == ["task", "std", "seed", "error"] and len(table) == 2 * 3 * 4
    mean = table.groupby("std")["error"].mean()
    np.testing.assert_allclose(mean.loc[4e-3] / mean.loc[2e-3], 2, rtol=0.15)
    limit = float(mean.iloc[1])
    assert 1.5e-3 < valid_std(table, limit) < 2.5e-3


def test_valid_std_interpolates_a_power_law() -> None:
    stds = np.array([1e-4, 1e-3, 1e-2])
    table = pd.DataFrame({"task": "a", "std": stds, "seed": 0, "error": 30 * stds})
    assert valid_std(table) == pytest.approx(0.1 / 30)
    for limit, advice in ((1e-4, "take lower ones"), (1.0, "take higher ones")):
        with pytest.raises(InputError, match=advice):
            valid_std(table, limit)


def test_valid_std_is_the_largest_where_rounding_is_the_error_of_weak_noise() -> None:
    stds = np.array([1e-7, 1e-6, 1e-4, 1e-3, 1e-2])
    table = pd.DataFrame({"task": "a", "std": stds, "seed": 0, "error": 30 * stds + 1e-6 / stds})
    assert 1e-3 < valid_std(table) < 1e-2
    with pytest.raises(InputError, match="take higher ones"):
        valid_std(table[table["std"] < 1e-2])


def test_one_class_does_not_move() -> None:
    backbone = small_backbone(3, layers=1)
    nets = {"one": network(backbone, small_split(1), small_head(classes=("only",)))}
    with pytest.raises(InputError, match="'one'"):
        linearisation_error(perturb(nets, backbone.weights, 1e-4, 1, generator=generator()))


@pytest.mark.parametrize("function", [model_draws, perturb])
def test_bad_input(function: object) -> None:
    nets, weights, _ = small_networks(N)
    other = network(small_backbone(layers=3), small_split(3), small_head())
    for bad, options, message in (
        ({}, (STD, 2), "there is no network"),
        ({**nets, "other": other}, (STD, 2), "layout of the weights"),
        (nets, (STD, 0), "draws is 0"),
        (nets, (STD, 2.5), "draws is 2.5"),
        (nets, (0.0, 2), "noise levels"),
        (nets, ([1e-4, -1e-4], 2), "noise levels"),
        (nets, (np.inf, 2), "noise levels"),
        (nets, (1e37, 1), "NaN or infinite"),
    ):
        with pytest.raises(InputError, match=message):
            function(bad, weights, *options, generator=generator())  # type: ignore[operator]
    with pytest.raises(InputError, match="threads is 0"):
        function(nets, weights, STD, 2, generator=generator(), threads=0)  # type: ignore[operator]
