"""Uplinks and covariances for the tests of the adversary."""

import numpy as np

from rmtllmf_lib.wireless.channel import Uplink


def gaussian(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.normal(size=shape) + 1j * generator.normal(size=shape)


def link(seed: int, antennas: int, users: int, floor: float = 0.0, *, batch: tuple = (), spread: float = 2) -> Uplink:
    """Rayleigh fading, powers spread over so many decades."""
    generator = np.random.default_rng(seed)
    power = 10 ** (-spread * generator.random((*batch, users)))
    return Uplink(gaussian(generator, *batch, antennas, users), power, floor)


def rival(generator: np.random.Generator, uplink: Uplink, budget: float, rank: int | None = None) -> np.ndarray:
    """Some other covariance of the same budget, with full rank unless told."""
    factor = gaussian(generator, uplink.num_rx_antennas, rank or uplink.num_rx_antennas)
    cov = factor @ factor.conj().T
    return uplink.thermal_cov + budget * cov / np.trace(cov).real
