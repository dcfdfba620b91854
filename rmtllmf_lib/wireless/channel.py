"""The multi-user uplink of Section II-A, `y = sum_q h_q sqrt(p_q) s_q + z`, Eq. (2), in batches of drops.

A drop is one placement of the users with one draw of their fading. Powers are in W, distances in m, frequencies in Hz.

References
----------
.. [1] A. Goldsmith, "Wireless Communications", Cambridge University Press, 2005, chapters 2 and 3.
.. [2] A. Paulraj, R. Nabar, D. Gore, "Introduction to Space-Time Wireless Communications", Cambridge University
   Press, 2003, chapter 3 (Rician fading and the Kronecker model of correlation).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import (
    Complex,
    Real,
    complex_array,
    fitted,
    instance_of,
    numpy_generator,
    one_of,
    real_array,
    real_number,
    whole_number,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.wireless.path_loss import PathLoss
from rmtllmf_lib.wireless.square_root import adjoint, precision, require_semidefinite

Placement = Literal["distance", "area"]

BOLTZMANN = 1.380649e-23  # J/K, exact in the SI
NOISE_TEMPERATURE = 290.0  # K, to which noise figures refer
_LARGE = 4 * 2**30  # bytes


@dataclass(frozen=True)
class LinkBudget:
    """Link budget: mean received power at a distance, and noise floor.

    The defaults are a physical link budget under which the paper's setting (8 users with .1 mW each, 100…1000 m, 16
    antennas, Rayleigh fading) has the paper's ideal mean MSE of .013: free space at 2.4 GHz, 180 kHz, noise figure
    6.8 dB, hence a noise floor of -114.6 dBm and a mean SNR of 4.6 dB per antenna at 1000 m. The paper gives none of
    them. Only the ratio of noise floor to path gain matters; the chapter on the system model measures how the mean MSE
    depends on the noise figure, carrier, path loss, fading, placement and number of antennas.

    Attributes
    ----------
    power_w : float
        Transmit power of each user, W.
    path_loss : PathLoss
        Path loss model with its carrier frequency.
    bandwidth_hz : float
        Noise bandwidth, Hz.
    noise_figure_db : float
        Noise figure of the receiver, dB.
    """

    power_w: float = 1e-4
    path_loss: PathLoss = PathLoss()
    bandwidth_hz: float = 180e3
    noise_figure_db: float = 6.8

    def __post_init__(self) -> None:
        instance_of(self.path_loss, PathLoss, "path_loss")
        object.__setattr__(self, "power_w", real_number(self.power_w, "power_w", minimum=0))
        thermal_noise_w(self.bandwidth_hz, self.noise_figure_db)

    @property
    def noise_floor_w(self) -> float:
        """Thermal noise power at each receive antenna, W."""
        return thermal_noise_w(self.bandwidth_hz, self.noise_figure_db)


def thermal_noise_w(bandwidth_hz: float, noise_figure_db: float = 0.0) -> float:
    """Thermal noise power `k T_0 B F` in W, with T_0 = 290 K; -174 dBm in 1 Hz for F = 1.

    Parameters
    ----------
    bandwidth_hz : float, Hz
        Above zero.
    noise_figure_db : float, dB
        At least 0.
    """
    bandwidth = real_number(bandwidth_hz, "bandwidth_hz", positive=True)
    figure = real_number(noise_figure_db, "noise_figure_db", minimum=0)
    return BOLTZMANN * NOISE_TEMPERATURE * bandwidth * 10 ** (figure / 10)


@dataclass(frozen=True, eq=False)
class Uplink:
    """One drop of the uplink, Eq. (2), or a batch of drops.

    Scalars and missing leading dimensions of `power` and `noise_floor` are broadcast over the batch.

    Attributes
    ----------
    H : (..., rx, user) complex
        Channel from each user to each receive antenna, path gain included; dimensionless (amplitude).
    power : (..., user) float, W
        Transmit power of each user, at least 0; a user of power 0 is silent.
    noise_floor : (...) float, W
        Thermal noise power sigma_0^2 at each receive antenna, at least 0.

    Raises
    ------
    InputError
        for a wrong shape, no user, no antenna, complex or negative power, NaN or infinity.
    """

    H: Complex
    power: Real
    noise_floor: Real

    __repr__ = short_repr

    def __post_init__(self) -> None:
        H = complex_array(self.H, "H")
        if H.ndim < 2 or 0 in H.shape:
            raise InputError(f"H has shape {H.shape}: expected (..., rx, user), at least one drop, antenna and user")
        power = real_array(self.power, "power", minimum=0)
        noise_floor = real_array(self.noise_floor, "noise_floor", minimum=0)
        batch, users = H.shape[:-2], H.shape[-1]
        if power.ndim and power.shape[-1] != users:
            raise InputError(f"power has shape {power.shape}: expected (..., user) = {(*batch, users)}, as H {H.shape}")
        object.__setattr__(self, "H", _frozen(np.array(H, order="C")))
        object.__setattr__(self, "power", _frozen(fitted(power, (*batch, users), "power", "(..., user)").copy()))
        object.__setattr__(self, "noise_floor", _frozen(fitted(noise_floor, batch, "noise_floor", "(...)").copy()))

    @property
    def num_rx_antennas(self) -> int:
        """N_R."""
        return int(self.H.shape[-2])

    @property
    def num_users(self) -> int:
        """Q."""
        return int(self.H.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of drops, () for a single drop."""
        return self.H.shape[:-2]

    @cached_property
    def G(self) -> Complex:  # noqa: N802 - the paper's letter
        """`H P^(1/2)`, columns `g_q = sqrt(p_q) h_q`: (..., rx, user) in W^(1/2)."""
        return _frozen(self.H * np.sqrt(self.power)[..., None, :])

    @cached_property
    def received_power(self) -> Real:
        """`p_q ||h_q||^2`, summed over the antennas: (..., user) in W."""
        gain = np.square(self.H.real).sum(axis=-2) + np.square(self.H.imag).sum(axis=-2)
        return _frozen(np.asarray(self.power * gain))

    @property
    def thermal_cov(self) -> Complex:
        """Covariance of the thermal noise, `sigma_0^2 I`: (..., rx, rx) in W.

        Read-only and stored once if all drops have the same noise floor. Otherwise every drop has its own matrix, with
        a warning above 4 GiB.
        """
        floor, size = self.noise_floor, self.num_rx_antennas
        shape = (*self.batch_shape, size, size)
        if self.batch_shape and (floor == floor.flat[0]).all():
            return np.broadcast_to((floor.flat[0] * np.eye(size)).astype(np.complex128), shape)
        if (needed := 16 * int(np.prod(shape))) > _LARGE:
            warnings.warn(
                f"thermal_cov of {shape} takes {needed / 2**30:.0f} GiB: take fewer drops at a time", stacklevel=2
            )
        return (floor[..., None, None] * np.eye(size)).astype(np.complex128)

    def __iter__(self) -> Iterator[Uplink]:
        """The drops along the first batch dimension."""
        if not self.batch_shape:
            raise InputError("this uplink is a single drop: expected a batch of drops to iterate over")
        return (self[drop] for drop in range(self.batch_shape[0]))

    def __getitem__(self, index: Any) -> Uplink:
        """The drops that `index` selects from the batch dimensions, as from an array of shape `batch_shape`."""
        try:
            chosen = np.arange(self.noise_floor.size).reshape(self.batch_shape)[index]
        except IndexError as error:
            raise InputError(f"the batch has shape {self.batch_shape}: {error}") from None
        flat = (
            self.H.reshape(-1, *self.H.shape[-2:]),
            self.power.reshape(-1, self.num_users),
            self.noise_floor.ravel(),
        )
        return Uplink(*(part[chosen] for part in flat))


def require_uplink(uplink: Uplink, name: str = "uplink") -> Uplink:
    """`uplink`; `InputError` if it is something else."""
    found: Uplink = instance_of(uplink, Uplink, instance_of(name, str, "name"))
    return found


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def array_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array that is to be drawn; `InputError` unless it is a sequence of whole numbers."""
    sizes = instance_of(shape, (tuple, list), "shape")
    return tuple(whole_number(size, "shape", minimum=0) for size in sizes)


def draw_distances(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    placement: Placement = "distance",
    nearest_m: float = 100.0,
    farthest_m: float = 1000.0,
) -> Real:
    """Draw the users' distances from the receiver in m, an array of `shape`.

    Parameters
    ----------
    placement : {"distance", "area"}
        "distance": the distance is uniform, as in the paper, so that users crowd near the receiver.
        "area": users are uniform over the ring between the two distances; the density grows with the distance.
    nearest_m, farthest_m : float, m
        0 < nearest_m <= farthest_m.
    """
    near = real_number(nearest_m, "nearest_m", positive=True)
    far = real_number(farthest_m, "farthest_m", minimum=near)
    exponent = 1 if one_of(placement, Placement, "placement") == "distance" else 2
    return numpy_generator(rng).uniform(near**exponent, far**exponent, array_shape(shape)) ** (1 / exponent)


def complex_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Complex:
    """Draw independent circular-symmetric complex Gaussian numbers of mean power 1, an array of `shape`."""
    parts = numpy_generator(rng).standard_normal((2, *array_shape(shape)))
    return np.asarray((parts[0] + 1j * parts[1]) * np.sqrt(0.5))


def draw_fading(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    rician_k_db: float | None = None,
    rx_correlation: ArrayLike | None = None,
) -> Complex:
    """Draw small-scale fading of mean power 1 per antenna, (..., rx, user).

    Parameters
    ----------
    shape : tuple of int
        (..., rx, user).
    rician_k_db : float, dB, optional
        Power of the direct path over that of the scattered ones; None is Rayleigh fading, without a direct path. The
        direct path arrives at a linear array of half-wavelength spacing from a uniform azimuth with a uniform phase.
    rx_correlation : (rx, rx) complex, optional
        Correlation of the scattered paths between antennas, Hermitian positive semidefinite with unit diagonal, the
        same for every user [2]; None is the identity. See `exponential_correlation`.
    """
    if len(array_shape(shape)) < 2:
        raise InputError(f"shape is {shape}: expected (..., rx, user)")
    scattered = complex_normal(shape, rng)
    if rx_correlation is not None:
        scattered = _correlation_root(rx_correlation, shape[-2]) @ scattered
    if rician_k_db is None:
        return scattered
    k = 10 ** (real_number(rician_k_db, "rician_k_db") / 10)
    users = (*shape[:-2], 1, shape[-1])
    azimuth, phase = rng.uniform(-np.pi, np.pi, users), rng.uniform(-np.pi, np.pi, users)
    direct = np.exp(1j * (np.pi * np.arange(shape[-2])[:, None] * np.sin(azimuth) + phase))
    return np.sqrt(k / (k + 1)) * direct + np.sqrt(1 / (k + 1)) * scattered


def exponential_correlation(num_rx_antennas: int, coefficient: complex) -> Complex:
    """Correlation matrix (rx, rx) with `coefficient^(j - i)` above the diagonal; |coefficient| is at most 1."""
    count = whole_number(num_rx_antennas, "num_rx_antennas")
    rho = complex_array(coefficient, "coefficient")
    if rho.ndim or abs(rho) > 1:
        raise InputError(f"coefficient is {coefficient!r}: expected one number of modulus at most 1")
    lag = np.arange(count) - np.arange(count)[:, None]
    powers = rho ** np.abs(lag)
    return np.where(lag >= 0, powers, powers.conj())


def _correlation_root(correlation: ArrayLike, num_rx_antennas: int) -> Complex:
    """Hermitian square root of a correlation matrix."""
    R = complex_array(correlation, "rx_correlation")
    if R.shape != (num_rx_antennas, num_rx_antennas):
        raise InputError(f"rx_correlation has shape {R.shape}: expected (rx, rx) = {(num_rx_antennas,) * 2}")
    tolerance = precision(correlation, 1e-12)
    off = max(np.abs(R - adjoint(R)).max(), np.abs(R.diagonal() - 1).max())
    if off > tolerance:
        raise InputError(
            "rx_correlation is not a correlation matrix: expected a Hermitian one with ones on its diagonal"
        )
    values, vectors = np.linalg.eigh(R)
    require_semidefinite(values, "rx_correlation", max(tolerance, 1e-10))
    return (vectors * np.sqrt(values.clip(0))) @ adjoint(vectors)


def uplinks_at(
    distance_m: ArrayLike,
    rng: np.random.Generator,
    *,
    num_rx_antennas: int = 16,
    budget: LinkBudget | None = None,
    rician_k_db: float | None = None,
    rx_correlation: ArrayLike | None = None,
) -> Uplink:
    """Draw shadowing (where the path loss model has it) and fading for users at given distances.

    Parameters
    ----------
    distance_m : (..., user) float, m
        Ground distance of each user, above zero.
    num_rx_antennas : int
        N_R.
    budget : LinkBudget, optional
        `LinkBudget()` by default.
    rician_k_db, rx_correlation
        See `draw_fading`.

    Returns
    -------
    Uplink with batch shape (...).
    """
    distance = real_array(distance_m, "distance_m", positive=True)
    antennas = whole_number(num_rx_antennas, "num_rx_antennas")
    if distance.ndim == 0 or distance.shape[-1] == 0:
        raise InputError(f"distance_m has shape {distance.shape}: expected (..., user) with at least one user")
    budget = LinkBudget() if budget is None else instance_of(budget, LinkBudget, "budget")
    amplitude = 10 ** (-budget.path_loss.draw_db(distance, rng) / 20)
    shape = (*distance.shape[:-1], antennas, distance.shape[-1])
    fading = draw_fading(shape, rng, rician_k_db=rician_k_db, rx_correlation=rx_correlation)
    power, floor = np.full(distance.shape[-1:], budget.power_w), np.asarray(budget.noise_floor_w)
    return Uplink(fading * amplitude[..., None, :], power, floor)


def draw_uplinks(
    n: int,
    rng: np.random.Generator,
    *,
    num_users: int = 8,
    placement: Placement = "distance",
    nearest_m: float = 100.0,
    farthest_m: float = 1000.0,
    **channel: Any,
) -> Uplink:
    """Draw `n` drops of the paper's setting: 8 users of .1 mW at 100…1000 m, 16 antennas, Rayleigh fading.

    Distances are drawn first, then shadowing, then fading: the same generator state gives the same placement for every
    `budget`, and the same fading for every `budget` without shadowing.

    Parameters
    ----------
    n : int
        Number of drops, at least 1.
    rng : numpy.random.Generator
    num_users : int
        Q.
    placement, nearest_m, farthest_m
        See `draw_distances`.
    **channel
        num_rx_antennas, budget, rician_k_db, rx_correlation, see `uplinks_at`.

    Returns
    -------
    Uplink with batch shape (n,).
    """
    shape = (whole_number(n, "n"), whole_number(num_users, "num_users"))
    distance = draw_distances(shape, rng, placement=placement, nearest_m=nearest_m, farthest_m=farthest_m)
    return uplinks_at(distance, rng, **channel)


def snr_db(uplink: Uplink) -> Real:
    """Received SNR per antenna, averaged over the antennas: `10 log10(p_q ||h_q||^2 / (N_R sigma_0^2))`.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.

    Returns
    -------
    (..., user) float, dB

    Raises
    ------
    InputError
        where a noise floor or a received power is 0.
    """
    floor = require_uplink(uplink).noise_floor[..., None] * uplink.num_rx_antennas
    if not (floor > 0).all() or not (uplink.received_power > 0).all():
        raise InputError("a noise floor or a received power is 0: an SNR in dB needs both above 0 W")
    return np.asarray(10 * np.log10(uplink.received_power / floor))


def with_floor(uplink: Uplink, gain_db: float) -> Uplink:
    """The same uplink with a noise floor that is higher by `gain_db`."""
    require_uplink(uplink)
    return Uplink(uplink.H, uplink.power, uplink.noise_floor * 10 ** (real_number(gain_db, "gain_db") / 10))
