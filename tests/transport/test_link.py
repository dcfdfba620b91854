"""Task vectors over the uplink: the same estimates as by antennas, and errors as predicted."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.scheme import Detected
from rmtllmf_lib.wireless.receiver import error_cov, sic_mse
from rmtllmf_lib.wireless.simulate import covariance_root, decide, posterior_mean, receive
from sending import deviations, generator, normalised, vectors
from wireless import colored, unit_uplink

ORDERS = ["weakest-first", "strongest-first"]
TABLE = ["variance", "predicted", "symbol_mse", "symbol_mse_predicted"]


@dataclass(frozen=True)
class Nearest64:
    """A pair of numbers becomes the nearest point of 64-QAM: decisions and means from the reference in NumPy."""

    reals_per_block: int = 2
    symbols_per_block: int = 1

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        pairs = torch.nn.functional.pad(x, (0, len(x) % 2)).view(-1, 2).double().numpy() / math.sqrt(2)
        return self._points(pairs.view(complex)[:, 0], 0.0)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        received = estimate.to(torch.complex128).numpy()
        hard = self._points(received, mse)
        values = torch.view_as_real(hard).flatten()[:n] * math.sqrt(2)
        means = posterior_mean(received[None], np.array([mse]))[0]
        return Detected(values, lambda: hard, lambda: torch.from_numpy(means).to(torch.complex64))

    def _points(self, received: np.ndarray, mse: float) -> Tensor:
        return torch.from_numpy(decide(received[None], np.array([mse]))[0]).to(torch.complex64)

    def distortion(self, mse: float) -> float | None:
        return None


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(21)


# --- the same as by antennas


def by_antennas(link: Link, s: np.ndarray, seed: int, **options: object) -> np.ndarray:
    """Estimates (user, n) of one drop from y = H P^(1/2) s + z, with z as the generator gives it."""
    n = s.shape[1]
    draws = torch.randn(-(-n // 16) * 16, link.uplink.num_rx_antennas, 2, generator=generator(seed))[:n]
    z = covariance_root(link.noise_cov) @ (torch.view_as_complex(draws).numpy().T * np.sqrt(0.5))
    return receive(
        link.uplink.G @ s + z, link.uplink, link.effective_design_cov, order=link.order, receiver=link.receiver,
        cancellation=link.cancellation, sent=s, **options,
    )[0]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mismatched", [False, True])
@pytest.mark.parametrize(
    ("receiver", "cancellation"), [("sic", "genie"), ("sic", "soft"), ("lmmse", "genie"), ("lmmse", "hard")]
)
def test_analog_estimates_are_those_of_the_antennas(
    rng: np.random.Generator, order: str, mismatched: bool, receiver: str, cancellation: str
) -> None:
    uplink = unit_uplink(rng, rx=5, users=4)
    design = uplink.thermal_cov if mismatched else None
    link = Link(uplink, colored(rng, rx=5), design, order, receiver, cancellation)
    taus = vectors(4, 1001)
    received = send(taus, link, generator=generator(3))
    s = np.pad(normalised(taus, taus), ((0, 0), (0, 1))).reshape(4, -1, 2).view(complex)[..., 0] / np.sqrt(2)
    wanted = by_antennas(link, s, 3)
    found = np.pad(normalised(received.taus, taus), ((0, 0), (0, 1))).reshape(4, -1, 2).view(complex)[..., 0]
    np.testing.assert_allclose(found[:, :-1] / np.sqrt(2), wanted[:, :-1], rtol=0, atol=3e-6)
    mse = (np.abs(s - wanted) ** 2).mean(axis=1)
    np.testing.assert_allclose(received.statistics.table.symbol_mse, mse, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cancellation", ["genie", "hard", "soft"])
@pytest.mark.parametrize("mismatched", [False, True])
def test_decisions_and_means_are_cancelled_as_at_the_antennas(
    rng: np.random.Generator, order: str, cancellation: str, mismatched: bool
) -> None:
    """With mistakes on the way."""
    uplink = unit_uplink(rng, rx=5, users=4)
    link = Link(
        uplink, 0.1 * colored(rng, rx=5), 0.1 * uplink.thermal_cov if mismatched else None, order,
        cancellation=cancellation,
    )  # fmt: skip
    taus = vectors(4, 2000)
    scheme = Nearest64()
    received = send(taus, link, scheme, generator=generator(4))
    s = np.stack([scheme.modulate(tau.values / tau.rms).numpy() for tau in taus]).astype(complex)
    wanted = by_antennas(link, s, 4, symbols="qam64")
    mse = (np.abs(s - wanted) ** 2).mean(axis=1)
    np.testing.assert_allclose(received.statistics.table.symbol_mse, mse, rtol=2e-5)
    believed = sic_mse(uplink, link.effective_design_cov, order)
    points = decide(wanted, believed)
    np.testing.assert_allclose(
        normalised(received.taus, taus).reshape(4, -1, 2).view(complex)[..., 0], points * np.sqrt(2), atol=1e-5
    )
    assert 0.05 < (np.abs(points - s) > 1e-3).mean() < 0.8


def test_cancelling_own_estimates_is_joint_lmmse(rng: np.random.Generator) -> None:
    """Number by number: an analog link has nothing to gain from cancellation."""
    uplink = unit_uplink(rng, 3)
    taus = vectors(4, 5000)
    for order in ORDERS:
        for design in (None, uplink.thermal_cov):
            links = [
                Link(uplink, colored(np.random.default_rng(0)), design, order, *rest)
                for rest in (("sic", "soft"), ("lmmse",))
            ]
            for scheme in ("analog-mmse", "analog-unbiased"):
                sic, joint = (send(taus, link, scheme, generator=generator()) for link in links)
                size = 1e-6 * (1 if scheme == "analog-mmse" else 10)
                np.testing.assert_allclose(
                    normalised(sic.taus, taus), normalised(joint.taus, taus), rtol=size, atol=2 * size
                )
                np.testing.assert_allclose(sic.statistics.table[TABLE], joint.statistics.table[TABLE], rtol=1e-5)


# --- errors as predicted


@pytest.mark.parametrize("scheme", ["analog-mmse", "analog-unbiased", "pam8"])
@pytest.mark.parametrize("order", ORDERS)
def test_error_variance_of_genie_sic(rng: np.random.Generator, scheme: str, order: str) -> None:
    uplink = unit_uplink(rng, floor=0.1)
    received = send(vectors(4, 200_000), Link(uplink, uplink.thermal_cov, order=order), scheme, generator=generator(1))
    assert np.abs(deviations(received)).max() < 3
    table = received.statistics.table
    mu = sic_mse(uplink, uplink.thermal_cov, order)
    np.testing.assert_allclose(table.symbol_mse_predicted, mu, rtol=1e-12)
    if scheme != "pam8":  # whose symbols have not exactly power 1
        wanted = mu if scheme == "analog-mmse" else mu / (1 - mu)
        np.testing.assert_allclose(table.predicted, wanted, rtol=1e-12)
        assert (
            np.abs(table.excess_kurtosis / table.kurtosis_error).max() < 3
        )  # Gaussian numbers and noise: so are errors
        gain = 1 - mu if scheme == "analog-mmse" else np.ones(4)
        np.testing.assert_allclose(table.gain, gain, atol=3 / np.sqrt(200_000))


@pytest.mark.parametrize("receiver", ["lmmse", "sic"])
@pytest.mark.parametrize("scheme", ["analog-mmse", "analog-unbiased"])
def test_mismatched_receivers(rng: np.random.Generator, receiver: str, scheme: str) -> None:
    uplink = unit_uplink(rng)
    link = Link(uplink, uplink.thermal_cov + 2 * colored(rng), uplink.thermal_cov, receiver=receiver)
    received = send(vectors(4, 200_000), link, scheme, generator=generator(2))
    assert np.abs(deviations(received)).max() < 3
    cov = error_cov(uplink, link.noise_cov, link.design_cov, receiver=receiver)
    if scheme == "analog-mmse":
        np.testing.assert_allclose(received.statistics.table.predicted, np.einsum("ii->i", cov).real)


@pytest.mark.parametrize("options", [{}, {"receiver": "lmmse"}, {"cancellation": "soft"}])
def test_unbiased_estimates_have_no_bias(rng: np.random.Generator, options: dict) -> None:
    """The receiver knows its own gain, also where cancelling estimates makes it the joint receiver's."""
    uplink = unit_uplink(rng)
    n = 200_000
    received = send(vectors(4, n), Link(uplink, 3 * colored(rng), **options), "analog-unbiased", generator=generator(5))
    table = received.statistics.table
    assert (np.abs(table.gain - 1) < 3 * np.sqrt(table.variance / n)).all()
    assert np.abs(deviations(received)).max() < 3


@pytest.mark.parametrize("mismatched", [False, True])
@pytest.mark.parametrize("receiver", ["lmmse", "sic"])
def test_correlation_of_errors_across_users(rng: np.random.Generator, receiver: str, mismatched: bool) -> None:
    uplink = unit_uplink(rng)
    link = Link(uplink, colored(rng), uplink.thermal_cov if mismatched else None, receiver=receiver)
    n = 200_000
    found = send(vectors(4, n), link, generator=generator(3)).statistics.correlation
    cov = error_cov(uplink, link.noise_cov, link.design_cov, receiver=receiver)
    power = np.einsum("ii->i", cov).real
    wanted = cov.real / np.sqrt(np.outer(power, power))
    assert np.abs((found - wanted) * np.sqrt(n)).max() < 3  # 1/sqrt(n) at most
    assert (np.abs(wanted - np.eye(4)).max() > 0.1) == (mismatched or receiver == "lmmse")


def test_mistakes_cost_accuracy_and_vanish_with_the_noise(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng, floor=0.1)
    taus = vectors(4, 50_000)
    tables = {}
    for level in (1.0, 1e-4):
        for how in ("genie", "hard", "soft"):
            link = Link(uplink, level * uplink.thermal_cov, cancellation=how)
            tables[level, how] = send(taus, link, "pam8", generator=generator()).statistics.table
    last = int(np.argmax(uplink.received_power))
    genie, hard, soft = (tables[1.0, how].variance[last] for how in ("genie", "hard", "soft"))
    spread = tables[1.0, "hard"].standard_error[last]
    assert hard - genie > 10 * spread and soft - genie > 5 * spread and hard > soft
    for how in ("hard", "soft"):
        np.testing.assert_allclose(tables[1e-4, how].variance, tables[1e-4, "genie"].variance, rtol=1e-6)


def test_drops_are_coherence_blocks(rng: np.random.Generator) -> None:
    """The vector is split evenly; each part has the errors of its own channel."""
    uplink = unit_uplink(rng, 3)
    C = uplink.thermal_cov * np.array([1.0, 0.0, 3.0])[:, None, None]
    taus = vectors(4, 90_001)
    received = send(taus, Link(uplink, C), generator=generator(4))
    errors = normalised(received.taus, taus) - normalised(taus, taus)
    parts = np.split(errors, [30_000, 60_000], axis=1)
    for part, drop, cov in zip(parts, range(3), C, strict=True):
        mu = sic_mse(uplink[drop], cov)
        variance = (part**2).mean(axis=1)
        assert (np.abs(variance - mu) <= 3 * mu * np.sqrt(2 / part.shape[1]) + 1e-12).all()
    assert np.abs(deviations(received)).max() < 3
    assert (received.statistics.table.excess_kurtosis > 0.5).all()  # a mixture of variances


def test_more_drops_than_numbers(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng, 50)
    received = send(vectors(4, 7), Link(uplink, uplink.thermal_cov), generator=generator())
    assert np.isfinite(normalised(received.taus, received.taus)).all()
    assert received.statistics.table.predicted.between(0, 1).all()
