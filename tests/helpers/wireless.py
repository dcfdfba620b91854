"""Drops and textbook receivers for the tests of the wireless half: slow, plain, and independent of the library."""

import numpy as np

from rmtllmf_lib.wireless.channel import Uplink


def complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def unit_uplink(rng: np.random.Generator, *batch: int, rx: int = 6, users: int = 4, floor: float = 0.3) -> Uplink:
    """Powers of order one, so that textbook formulas keep their digits."""
    return Uplink(complex_normal(rng, *batch, rx, users), rng.uniform(0.2, 2, (*batch, users)), np.asarray(floor))


def colored(rng: np.random.Generator, *batch: int, rx: int = 6) -> np.ndarray:
    factor = complex_normal(rng, *batch, rx, 2 * rx)
    return factor @ factor.conj().swapaxes(-1, -2) / rx


def later_users(uplink: Uplink, order: str) -> list[list[int]]:
    """For one drop: the users decoded after each user."""
    power = uplink.power * np.linalg.norm(uplink.H, axis=0) ** 2
    sequence = sorted(range(uplink.num_users), key=lambda q: power[q] if order == "weakest-first" else -power[q])
    return [sequence[sequence.index(q) + 1 :] for q in range(uplink.num_users)]


def textbook_rates(uplink: Uplink, C: np.ndarray, order: str) -> np.ndarray:
    """Eq. (3) word for word, one drop."""
    rates = []
    for q, later in enumerate(later_users(uplink, order)):
        X = C + sum((np.outer(uplink.G[:, k], uplink.G[:, k].conj()) for k in later), np.zeros_like(C))
        rates.append(np.log1p((uplink.G[:, q].conj() @ np.linalg.solve(X, uplink.G[:, q])).real))
    return np.array(rates)


def textbook_filters(uplink: Uplink, C: np.ndarray, order: str | None) -> np.ndarray:
    """MMSE filters from the covariance of y, one drop; joint where `order` is None."""
    everyone = [[k for k in range(uplink.num_users) if k != q] for q in range(uplink.num_users)]
    rows = []
    for q, others in enumerate(everyone if order is None else later_users(uplink, order)):
        heard = uplink.G[:, [q, *others]]
        rows.append(np.linalg.solve(heard @ heard.conj().T + C, uplink.G[:, q]).conj())
    return np.array(rows)


def qam64(rng: np.random.Generator, *shape: int) -> np.ndarray:
    levels = np.arange(-7, 8, 2) / np.sqrt(42)
    return rng.choice(levels, shape) + 1j * rng.choice(levels, shape)
