"""Tables on the ratio of logits, against a closed form, a plain loop, or the paper's own errors made on purpose."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import ndtr

from gaussians import random_model
from rmtllmf_lib.chapters.wde_mse_test.ratio_tables import (
    acceptance,
    alarms,
    alarms_against_noise,
    law_fit,
    ratio_against_first_order,
    slopes,
    tame,
    variance_ratios,
)
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.noisy_logits import Perturbed
from rmtllmf_lib.disentanglement.ratio_test import relative_std
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.intervals import over_seeds

STDS = np.array([1e-3, 1e-2])
DRAWS = 3000


def gaussian_samples(
    models: dict[str, FirstOrder], draws: int = DRAWS, stds: np.ndarray = STDS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Logits that move as the first order says, and no otherwise; the same draws at all levels."""
    rng = np.random.default_rng(seed)
    return {
        name: model.logits + stds[:, None, None, None] * model.sample(draws, rng)[None]
        for name, model in models.items()
    }


def one_level(models: dict[str, FirstOrder], draws: int, std: float) -> dict[str, np.ndarray]:
    return {name: logits[0] for name, logits in gaussian_samples(models, draws, np.array([std])).items()}


def models() -> dict[str, FirstOrder]:
    return {"a": random_model(4, 5, 0), "b": random_model(3, 2, 1)}


def quiet_tasks(draws: int = 6) -> dict[str, Perturbed]:
    """Logits whose deviations are known exactly: linear, with one logit of zero."""
    rng = np.random.default_rng(3)
    clean = np.array([[2.0, -4.0, 0.0], [1.0, 8.0, 3.0]])
    slope = rng.standard_normal((draws, 2, 3))
    return {"a": Perturbed(STDS, clean, clean + STDS[:, None, None, None] * slope, slope)}


def test_ratio_against_first_order_is_the_hyperbola() -> None:
    table = ratio_against_first_order(quiet_tasks())
    assert len(table) == 2 * 6 * 5  # without the logit of zero
    np.testing.assert_allclose(table["measured"], 1 / (1 - table["first_order"]) - 1, atol=1e-12)
    task = quiet_tasks()["a"]
    row = table.set_index(["std", "seed", "image", "label"]).loc[1e-2, 4, 0, 1]
    assert row["first_order"] == pytest.approx(-1e-2 * task.slopes[4, 0, 1] / -4)


def test_slope_is_one_and_leaves_out_what_is_far() -> None:
    table = pd.DataFrame({"std": 1.0, "seed": [0, 0, 0, 1, 1], "first_order": [0.1, -0.05, 5.0, 0.02, -0.01]}).assign(
        measured=lambda rows: 2 * rows["first_order"]
    )
    table.loc[2, "measured"] = 1e6
    np.testing.assert_allclose(slopes(table)["slope"], 2)
    assert slopes(table, within=6.0)["slope"].iloc[0] > 1e5
    linear = slopes(ratio_against_first_order(quiet_tasks()))
    assert len(linear) == 12
    np.testing.assert_allclose(linear["slope"], 1, atol=0.05)


def test_variances_are_those_of_a_gaussian_and_of_a_folded_one() -> None:
    found, samples = models(), gaussian_samples(models())
    chosen = tame(found, STDS[-1], 0.05)
    table = over_seeds(variance_ratios(found, samples, STDS, chosen), ["statistic", "std"], "ratio")
    theory = table["statistic"].map({"R − 1": 1.0, "|R − 1|": 1 - 2 / np.pi})
    assert (np.abs(table["mean"] - theory) <= 1.53 * table["half_width"] + 0.02).all()  # .02: R is not quite linear
    name, image, label = "a", *np.argwhere(chosen["a"])[0]
    only = {key: np.zeros_like(mask) for key, mask in chosen.items()}
    only[name][image, label] = True
    one = variance_ratios(found, samples, STDS, only)
    ratio = found[name].logits[image, label] / samples[name][0][:, image, label]
    expected = ratio.var(ddof=1) / relative_std(found[name], STDS[0])[image, label] ** 2
    got = one[(one["statistic"] == "R − 1") & (one["std"] == STDS[0])]["ratio"].mean()
    assert got == pytest.approx(expected)


def test_tame_logits() -> None:
    found = models()
    chosen = tame(found, STDS[-1], 0.05)
    np.testing.assert_array_equal(chosen["a"], 1e-2 * found["a"].row_norms / abs(found["a"].logits) <= 0.05)
    assert not tame({"a": FirstOrder([[0.0, 1.0]], np.eye(2)[None])}, 0.01)["a"][0, 0]


def test_acceptance_of_both_readings() -> None:
    found, samples = models(), gaussian_samples(models())
    chosen = tame(found, STDS[-1], 0.05)
    table = acceptance(found, samples, STDS, chosen, z_beta=1.96, reference_std=STDS[1])
    means = over_seeds(table, ["reading", "std", "exact"], "accepted").set_index(["reading", "std"])
    folded = 1.96 * np.sqrt(1 - 2 / np.pi)
    constant = 2 * ndtr(folded) - 1
    for std in STDS:
        row = means.loc["moving", std]
        assert abs(row["mean"] - constant) <= 1.53 * row["half_width"] + 2e-3
        assert row["exact"] == pytest.approx(constant, abs=2e-3)
    assert means.loc[("fixed", STDS[0]), "mean"] > 0.9999
    assert means.loc[("fixed", STDS[1]), "mean"] == pytest.approx(means.loc[("moving", STDS[1]), "mean"])
    higher = acceptance(found, samples, STDS, chosen, z_beta=3.0, reference_std=STDS[1])
    assert higher["accepted"].mean() > table["accepted"].mean()


def test_law_fits_gaussian_deviations_and_only_those_of_its_level() -> None:
    found = models()
    std = 0.05  # wide ratios, far from linear
    samples = one_level(found, 1000, std)
    right = law_fit(found, samples, std)
    assert list(right["task"]) == ["a"] * 4 + ["b"] * 3
    assert right["p_value"].min() > 1e-3
    assert (law_fit(found, samples, 1.3 * std)["p_value"] < 1e-3).all()
    name, image = "b", 2
    label = found[name].predicted[image]
    row = right[(right["task"] == name) & (right["image"] == image)]
    z = found[name].logits[image, label]
    g = np.sort(samples[name][:, image, label] / z - 1)
    plain = stats.kstest(np.abs(1 / (1 + g) - 1), lambda t: _law(t, relative_std(found[name], std)[image, label]))
    assert row["distance"].item() == pytest.approx(plain.statistic)


def _law(limit: np.ndarray, sigma: float) -> np.ndarray:
    """Pr(|1/(1+g) − 1| ≤ t) from the intervals of g that the inequality means, written anew."""
    g = stats.norm(scale=sigma)
    upper = np.where(limit < 1, limit / np.where(limit < 1, 1 - limit, 1), np.inf)
    inside = g.cdf(upper) - g.cdf(-limit / (1 + limit))
    beyond = np.where(limit > 1, g.cdf(-limit / np.where(limit > 1, limit - 1, 1)), 0)
    return inside + beyond


def test_alarms_against_a_plain_loop() -> None:
    found = models()
    samples = one_level(found, 40, 0.1)
    table = alarms(found, samples, 0.1, shifts=[0.0, 3.0], limit=0.2).set_index("shift")
    for shift in (0.0, 3.0):
        some, own, flipped = [], [], []
        for name, model in found.items():
            for draw in samples[name]:
                for before, after in zip(model.logits, draw, strict=True):
                    off = np.abs((before + shift) / (after + shift) - 1) > 0.2
                    some.append(off.any())
                    own.append(off[before.argmax()])
                    flipped.append(before.argmax() != after.argmax())
        row = table.loc[shift]
        np.testing.assert_allclose(
            row[["some_ratio", "own_ratio", "flipped"]].astype(float), [np.mean(some), np.mean(own), np.mean(flipped)]
        )
    assert table.loc[0.0, "some_ratio"] != table.loc[3.0, "some_ratio"]
    assert table["flipped"].nunique() == table["chi_square"].nunique() == 1
    np.testing.assert_allclose(table["chi_square"], 0.05, atol=3 * (0.05 * 0.95 / 280) ** 0.5)


def test_alarms_against_noise_is_one_row_a_level() -> None:
    found, samples = models(), gaussian_samples(models(), 30)
    table = alarms_against_noise(found, samples, STDS)
    assert list(table["std"]) == list(STDS)
    alone = {name: logits[1] for name, logits in samples.items()}
    assert table["some_ratio"].iloc[1] == alarms(found, alone, STDS[1])["some_ratio"].item()


def test_bad_input() -> None:
    found, samples = models(), gaussian_samples(models(), 4)
    chosen = tame(found, STDS[-1])
    with pytest.raises(InputError, match="samples of task 'a' have shape"):
        variance_ratios(found, samples, [1e-3], chosen)
    with pytest.raises(InputError, match="samples of task 'a' have shape"):
        alarms_against_noise(found, {name: logits[..., :1] for name, logits in samples.items()}, STDS)
    with pytest.raises(InputError, match="0 chosen logits"):
        variance_ratios(found, samples, STDS, {name: np.zeros_like(mask) for name, mask in chosen.items()})
    one = {name: logits[:, :1] for name, logits in samples.items()}
    with pytest.raises(InputError, match="1 draws"):
        acceptance(found, one, STDS, chosen, z_beta=1.96, reference_std=1e-3)
    with pytest.raises(InputError, match="within"):
        slopes(ratio_against_first_order(quiet_tasks()), within=0)
