"""Scenarios: what the link says is what the task vectors get."""

import math

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, from_link, inject_mse, inject_snr, noise_to_signal
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, surrogate
from rmtllmf_lib.wireless.adversary import attack, jammer_power
from rmtllmf_lib.wireless.channel import LinkBudget, Uplink, draw_uplinks, uplinks_at
from rmtllmf_lib.wireless.receiver import lmmse_mse, sic_filters, sic_mse, sic_order
from sending import generator, vectors
from small import small_backbone, small_tau
from vectors import BASE, vector


@pytest.fixture(scope="module")
def drop() -> Uplink:
    return draw_uplinks(3, np.random.default_rng(5), num_users=4, num_rx_antennas=6)[1]


@pytest.mark.parametrize("order", ["weakest-first", "strongest-first"])
def test_without_an_adversary(drop: Uplink, order: str) -> None:
    thermal = drop.thermal_cov
    assert from_link("a", drop, order=order).mse == pytest.approx(sic_mse(drop, thermal, order))  # type: ignore[arg-type]
    assert from_link("a", drop, receiver="lmmse").mse == pytest.approx(lmmse_mse(drop, thermal))


@pytest.mark.parametrize("kind", ["sum-rate", "strongest-user"])
@pytest.mark.parametrize("order", ["weakest-first", "strongest-first"])
def test_under_attack(drop: Uplink, kind: str, order: str) -> None:
    power = 12 * LinkBudget().noise_floor_w * drop.num_rx_antennas
    noise = attack(drop, power, kind, order=order).noise_cov  # type: ignore[arg-type]
    aware = from_link("a", drop, kind, power, order=order)  # type: ignore[arg-type]
    assert aware.mse == pytest.approx(sic_mse(drop, noise, order))  # type: ignore[arg-type]
    unaware = from_link("a", drop, kind, power, aware=False, order=order)  # type: ignore[arg-type]
    # E|s - f y|^2 of each user in turn, with y free of the users decoded before
    filters, users = sic_filters(drop, drop.thermal_cov, order), sic_order(drop, order)  # type: ignore[arg-type]
    for place, user in enumerate(users):
        heard = drop.G[:, users[place:]]
        f = filters[user]
        covariance = heard @ heard.conj().T + noise
        expected = 1 - 2 * (f @ drop.G[:, user]).real + (f @ covariance @ f.conj()).real
        assert unaware.mse[user] == pytest.approx(expected)  # type: ignore[index]
    assert unaware.mean_mse > aware.mean_mse > from_link("a", drop, order=order).mean_mse  # type: ignore[arg-type]


def test_scale_and_correlation_are_handed_on(drop: Uplink) -> None:
    found = from_link("a", drop, scale="weight", correlation="half")
    assert (found.name, found.scale, found.correlation) == ("a", "weight", "half")
    assert all(type(mu) is float for mu in found.mse)  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1,)])
@pytest.mark.parametrize("kind", [None, "sum-rate"])
def test_a_batch_of_drops_gives_the_mean_over_them(shape: tuple[int, ...], kind: str | None) -> None:
    """Blocks of an OFDM frame: what `send` measures with one vector spread over them."""
    batch = uplinks_at(np.full((*shape, 2), 400.0), np.random.default_rng(0), num_rx_antennas=3)
    power = 0.0 if kind is None else float(jammer_power(batch, 5.0).flat[0])
    found = from_link("a", batch, kind, power, receiver="lmmse")
    each = [from_link("a", batch[drop], kind, power, receiver="lmmse").mse for drop in np.ndindex(*shape)]
    assert found.mse == pytest.approx(np.mean(each, axis=0))
    noise = batch.thermal_cov if kind is None else attack(batch, power, kind).noise_cov
    sent = send(vectors(2, 60_000), Link(batch, noise, receiver="lmmse"), generator=generator()).statistics.table
    assert sent.variance.to_numpy() == pytest.approx(found.mse, rel=0.05)


def test_links_that_make_no_scenario(drop: Uplink) -> None:
    with pytest.raises(InputError, match="uplink is None"):
        from_link("a", None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="jammer_w is 1.0"):
        from_link("a", drop, jammer_w=1.0)
    with pytest.raises(InputError, match="kind is 'rude'"):
        from_link("a", drop, "rude", 1.0)


def test_the_papers_numbers() -> None:
    names = ["ideal", "SU", "SR"]
    injected = inject_mse("common")
    assert [(s.name, s.mse, s.scale, s.correlation) for s in injected] == [
        (name, mse, "weight", "common") for name, mse in zip(names, (0.013, 0.16, 0.21), strict=True)
    ]
    assert list(PAPER_LINKS) == names
    base = small_backbone().weights
    taus = [small_tau(base, seed, size) for seed, size in ((1, 0.01), (2, 0.05))]
    for scenario, snr in zip(inject_snr("independent"), (-16.2, -21.7, -27.3), strict=True):
        for sent, received in zip(taus, scenario.receive(taus, base, generator=generator()), strict=True):
            noise = (received.values.double() - sent.values).square().mean()
            found = 10 * math.log10(float(sent.values.double().square().mean() / noise))
            assert found == pytest.approx(snr, abs=0.1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_the_known_covariance_is_that_of_the_errors(scale: str, correlation: str) -> None:
    """Five standard deviations of the estimates, n numbers each."""
    base = small_backbone().weights
    taus = [small_tau(base, seed, size) for seed, size in ((1, 0.01), (2, 0.02), (3, 0.05))]
    scenario = Scenario("a", (0.02, 0.3, 0.1), scale, correlation)
    arrived = scenario.receive(taus, base, generator=generator())
    same = surrogate(taus, base, scenario.mse, scale=scale, correlation=correlation, generator=generator())
    assert [tau.hash for tau in arrived] == [tau.hash for tau in same]
    noise = torch.stack([after.values.double() - tau.values for tau, after in zip(taus, arrived, strict=True)])
    found, known = (noise @ noise.T / noise.shape[1]).numpy(), scenario.error_cov(taus, base)
    spread = np.sqrt(np.outer(known.diagonal(), known.diagonal()))
    assert (abs(found - known) <= 5 * math.sqrt(2 / noise.shape[1]) * spread).all()
    np.testing.assert_allclose(known, known.T)


def test_a_clean_link_changes_nothing() -> None:
    taus = [vector(1), vector(2)]
    arrived = CLEAN.receive(taus, BASE, generator=generator())
    assert [tau.hash for tau in arrived] == [tau.hash for tau in taus]
    assert not CLEAN.error_cov(taus, BASE).any() and CLEAN.mean_mse == 0


def test_one_number_or_one_per_user() -> None:
    assert Scenario("a", np.float64(0.5)).mse == 0.5  # type: ignore[arg-type]
    assert Scenario("a", np.array(0.5)).mse == 0.5  # type: ignore[arg-type]
    several = Scenario("a", np.array([0.5, 0.1]))  # type: ignore[arg-type]
    assert several.mse == (0.5, 0.1) and several == Scenario("a", [0.5, 0.1])  # type: ignore[arg-type]
    assert several.mean_mse == pytest.approx(0.3)
    with pytest.raises(InputError, match="mse has 2 values for 3 users"):
        several.receive([vector(1), vector(2), vector(3)], BASE, generator=generator())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name is ''"),
        ({"scale": "size"}, "scale is 'size'"),
        ({"correlation": "full"}, "correlation is 'full'"),
        ({"mse": -0.1}, "mse is -0.1"),
        ({"mse": ()}, r"mse is \(\)"),
        ({"mse": (0.1, math.nan)}, r"mse.* is .*nan"),
        ({"mse": (0.1, -1)}, r"mse.* is .*-1"),
        ({"mse": "0.1"}, "mse is '0.1'"),
        ({"mse": None}, "mse is None"),
        ({"mse": True}, "mse is True"),
    ],
)
def test_bad_scenarios(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scenario(**{"name": "a", "mse": 0.1, **fields})


def test_noise_to_signal() -> None:
    taus = [vector(seed) * 0.1 for seed in (1, 2, 3)]
    assert noise_to_signal(Scenario("a", 0.3, "task"), taus, BASE) == pytest.approx(0.3)
    assert noise_to_signal(Scenario("a", (0.1, 0.2, 0.4), "task", "common"), taus, BASE) == pytest.approx(0.2)
    expected = np.prod([BASE.rms**2 / tau.rms**2 for tau in taus]) ** (1 / 3)
    assert noise_to_signal(Scenario("a", 0.5, "weight", "half"), taus, BASE) == pytest.approx(0.5 * expected)
    assert noise_to_signal(CLEAN, taus, BASE) == 0


def test_what_a_code_sees_is_the_error_of_the_symbols() -> None:
    for scale in ("task", "weight", "unit"):
        assert Scenario("a", (0.3, 0.1), scale, "common").symbol_mse == (0.3, 0.1)
    assert Scenario("a", 3.0, "snr").symbol_mse == pytest.approx(0.75)
    assert Scenario("a", (1.0, 0.0), "snr").symbol_mse == (0.5, 0.0)
