"""Counts against predictions where the first order holds, and where it ends."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from rmtllmf_lib.disentanglement.chi_square_test import critical_value, degrees_of_freedom, power, statistic
from rmtllmf_lib.disentanglement.linearise import along, logits, network
from rmtllmf_lib.disentanglement.margins import flip_probability
from rmtllmf_lib.disentanglement.noisy_logits import (
    FlipCount,
    count_flips,
    linearisation_error,
    noise_draw,
    perturb,
    valid_std,
)
from rmtllmf_lib.disentanglement.ratio_test import ratio, relative_std, within_probability
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from small import generator, small_backbone, small_head, small_networks, small_split

STD, N = 3e-3, 12  # in the linear range, and large enough to flip some of the images


def test_counts_are_those_of_a_plain_loop() -> None:
    nets, weights, models = small_networks(N)
    found = count_flips(nets, weights, STD, 5, generator=generator())
    seed = int(torch.randint(2**62, (), generator=generator()))
    for name, net in nets.items():
        for draw in range(5):
            noise = TaskVector(weights.layout, STD * noise_draw(weights.layout.size, seed, draw), weights.origin)
            expected = logits(net, weights + noise).argmax(1) != models[name].predicted
            np.testing.assert_array_equal(found[name].flipped[draw], expected)


def test_counts_do_not_depend_on_workers() -> None:
    nets, weights, _ = small_networks(N)
    one, two = (count_flips(nets, weights, STD, 6, generator=generator(), workers=k) for k in (1, 2))
    assert all(np.array_equal(one[name].flipped, two[name].flipped) for name in nets)
    other = count_flips(nets, weights, STD, 6, generator=generator(1))
    assert any(not np.array_equal(one[name].flipped, other[name].flipped) for name in nets)


def test_predicted_flips_are_counted() -> None:
    nets, weights, models = small_networks(N)
    counted = count_flips(nets, weights, STD, 400, generator=generator(), workers=2)
    for name, model in models.items():
        predicted = flip_probability(model, STD, rng=np.random.default_rng(0))
        assert 0.02 < predicted.probability.mean() < 0.9
        assert counted[name].rate == pytest.approx(predicted.probability.mean(), abs=3 * counted[name].error)
        low, high = stats.binom.interval(0.9999, 400, predicted.probability)
        assert ((low <= 400 * counted[name].per_image) & (400 * counted[name].per_image <= high)).all()


def test_the_other_statistics_hold_on_a_network() -> None:
    """Size of the chi-square test and of the ratio test, on whole noisy models."""
    nets, weights, models = small_networks(N)
    found = perturb(nets, weights, STD, 100, generator=generator(), workers=2)
    for name, model in models.items():
        dof = degrees_of_freedom(model)
        for level, reference in ((0.1, STD), (0.1, STD / 2)):
            rejected = statistic(model, found[name].disturbed[0] - model.logits, reference) > critical_value(dof, level)
            low, high = stats.binom.interval(0.9999, 100, power(dof, level, reference, STD))
            assert ((low <= rejected.sum(0)) & (rejected.sum(0) <= high)).all()
        inside = np.abs(ratio(model.logits, found[name].disturbed[0]) - 1) <= 0.02
        expected = within_probability(0.02, relative_std(model, STD))
        low, high = stats.binom.interval(0.99999, 100, expected)
        assert ((low <= inside.sum(0)) & (inside.sum(0) <= high)).all()


def test_error_of_the_rate_counts_draws() -> None:
    flipped = np.random.default_rng(0).random((50, 1)) < 0.3  # all images flip together
    together = FlipCount(np.repeat(flipped, 100, axis=1))
    assert together.error == pytest.approx(flipped.std(ddof=1) / np.sqrt(50))
    assert together.rate == pytest.approx(flipped.mean()) and together.per_image.shape == (100,)


def test_zero_noise_flips_nothing() -> None:
    nets, weights, models = small_networks(N)
    found = count_flips(nets, weights, 0.0, 2, generator=generator())
    assert not any(count.flipped.any() for count in found.values())
    wrong = {name: (model.predicted + 1) % model.classes for name, model in models.items()}
    found = count_flips(nets, weights, 0.0, 2, generator=generator(), references=wrong)
    assert all(count.flipped.all() for count in found.values())


def test_a_destroyed_model_counts_as_flipped() -> None:
    nets, weights, _ = small_networks(N)
    found = count_flips(nets, weights, 1e37, 2, generator=generator())
    assert all(count.flipped.all() for count in found.values())
    with pytest.raises(InputError, match="take less noise"):
        perturb(nets, weights, 1e37, 1, generator=generator())


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


def test_one_class_does_not_move() -> None:
    backbone = small_backbone(3, layers=1)
    nets = {"one": network(backbone, small_split(1), small_head(classes=("only",)))}
    assert not count_flips(nets, backbone.weights, 0.01, 2, generator=generator())["one"].flipped.any()
    with pytest.raises(InputError, match="'one' do not move: expected two classes or more"):
        linearisation_error(perturb(nets, backbone.weights, 1e-4, 1, generator=generator()))


def test_bad_input() -> None:
    nets, weights, _ = small_networks(N)
    for draws, message in ((0, "draws is 0"), (1, "one has no standard error"), (2.5, "draws is 2.5")):
        with pytest.raises(InputError, match=message):
            count_flips(nets, weights, STD, draws, generator=generator())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no network"):
        count_flips({}, weights, STD, 2, generator=generator())
    with pytest.raises(InputError, match="workers is 0"):
        count_flips(nets, weights, STD, 2, generator=generator(), workers=0)
    for std in (-1.0, np.nan):
        with pytest.raises(InputError, match="the standard deviation of the noise"):
            count_flips(nets, weights, std, 2, generator=generator())
    for stds in (0.0, [1e-4, -1e-4], np.inf):
        with pytest.raises(InputError, match="the noise levels"):
            perturb(nets, weights, stds, 2, generator=generator())
